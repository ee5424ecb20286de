"""``fewlabels classify`` as a person runs it: on a folder of digits, a few of them labelled."""

import csv
import io
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import fewlabels
from fewlabels.cli.main import main
from fewlabels.components.backbones import register_into_timm
from fewlabels.components.sources.digits import Digits
from fewlabels.models.frozen import pool_features
from fewlabels.models.load import load_model
from fewlabels.recipe.recipe import load_recipe
from fewlabels.runs import classify_recipe
from fewlabels.runs.classify_recipe import make_fine_tuning, make_recipe
from fewlabels.runs.cross_validate import draw_folds
from fewlabels.runs.photos import Photos
from fewlabels.training.run_folder import RunFolder

RECIPES = Path(__file__).parents[2] / "recipes"
CLASSES, COUNT, GIVEN = 4, 40, 3  # classes, images of each, labels of each


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photographs of digits, tables of labels, and weights of a small backbone."""
    root, digits = tmp_path_factory.mktemp("classify"), Digits(warp=False).load()
    (root / "photos").mkdir()
    known = []
    for label in range(CLASSES):
        for i, row in enumerate(np.flatnonzero(digits.truth == label)[:COUNT]):
            name = f"{i:02}-{label}.png"
            digits.images[row].save(root / "photos" / name)
            known.append((i, name, f"digit {label}"))
    write_table(root / "labels.csv", [row[1:] for row in known if row[0] < GIVEN])
    write_table(root / "one.csv", [row[1:] for row in known if row[0] < 1])
    write_table(root / "rare.csv", [r[1:] for r in known if r[0] < (1 if "-3" in r[1] else GIVEN)])
    write_table(root / "all.csv", [row[1:] for row in known])
    write_table(root / "none.csv", [])
    write_table(root / "same.csv", [row[1:] for row in known[:GIVEN]])
    torch.manual_seed(0)
    register_into_timm()
    backbone = timm.create_model("convnet3", num_classes=0)
    save_file(backbone.state_dict(), root / "weights.safetensors")
    last = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)][-1]
    torch.nn.init.zeros_(last.weight)  # features that tell nothing apart
    torch.nn.init.ones_(last.bias)
    save_file(backbone.state_dict(), root / "blind.safetensors")
    return root


def write_table(file, rows):
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("file", "label"), *rows])


def read_table(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture
def run(place, tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; its code, and what it printed there and as mistakes."""
    monkeypatch.setenv("FEWLABELS_CACHE", str(place / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*words, table="labels.csv", photos=place / "photos", weights="weights"):
        more = ["--backbone", "convnet3", "--weights", str(place / f"{weights}.safetensors")]
        more += ["--image-size", "16", *(["--labels", str(place / table)] if table else [])]
        code = main(["classify", str(photos), *more, *words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def done(place):
    """One run of the command: what it printed, its table, and its run folder."""
    printed, patch = io.StringIO(), pytest.MonkeyPatch()
    with patch.context() as context, redirect_stdout(printed):
        context.setenv("FEWLABELS_CACHE", str(place / "cache"))
        context.chdir(place)
        words = "classify photos --labels labels.csv -o out.csv --backbone convnet3 --image-size 16"
        assert main([*words.split(), "--weights", "weights.safetensors"]) == 0
    return printed.getvalue(), place / "out.csv", RunFolder(place / "runs" / "classify")


def test_it_says_what_it_found_how_good_it_is_and_what_to_do_next(done):
    printed, _, folder = done
    said = "photos: 160 images, 12 of them labelled; 4 classes, 3 labels each: digit 0, digit 1"
    assert said in printed
    for what in ("without discovery", "with discovery"):
        assert re.search(
            rf"{what}: .* of 12 labelled images, each left out once in 3 folds", printed
        )
    assert "of the same images discovery gets" in printed
    assert (
        "fewlabels classify photos --labels labels.csv --labels runs/classify/label_next.csv"
        in (printed)
    )
    assert folder.ledger.exists()


def test_the_table_has_a_probability_of_each_class_for_each_image(done):
    _, out, folder = done
    rows = read_table(out)
    assert len(rows) == 160
    assert sum(row["given"] != "" for row in rows) == 12
    names = [name for name in rows[0] if name.startswith("p(")]
    assert names == [f"p(digit {i})" for i in range(4)]
    each = np.array([[float(row[name]) for name in names] for row in rows])
    assert each.sum(1) == pytest.approx(1, abs=1e-5)
    assert [row["label"] for row in rows] == [names[i][2:-1] for i in each.argmax(1)]
    right = sum(row["file"][3] == row["label"][6] for row in rows)
    assert right / 160 > 0.6
    model = load_model(folder.model)
    found = model.predict([out.parent / "photos" / row["file"] for row in rows[:20]])
    assert found.argmax(1).tolist() == each[:20].argmax(1).tolist()


def test_the_baseline_s_error_is_that_of_another_library(done, place):
    """scikit-learn's LDA on the features that are kept, with the same labels left out."""
    printed, out, folder = done
    model = load_model(folder.model)
    rows = read_table(out)
    labels = np.array([int(row["given"][6:]) if row["given"] else -1 for row in rows])
    known = np.flatnonzero(labels >= 0)
    with torch.no_grad():
        images = [
            model.prepare_image(Image.open(place / "photos" / rows[i]["file"])) for i in known
        ]
        pooled = pool_features(model, torch.stack(images).float() / 255).half().double()
    features = torch.nn.functional.normalize(pooled).numpy()
    wrong = 0
    for fold in draw_folds(labels, 0):
        out = np.isin(known, fold)
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5, priors=[0.25] * 4)
        lda.fit(features[~out], labels[known[~out]])
        wrong += int((lda.predict(features[out]) != labels[known[out]]).sum())
    said = re.search(r"without discovery: .*? (\d+) of 12", printed)
    assert int(said[1]) == wrong


def test_the_run_s_recipe_gives_the_same_model_again(done, place, tmp_path, monkeypatch):
    _, _, folder = done
    monkeypatch.setenv("FEWLABELS_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)
    again = fewlabels.train(folder.recipe, out=tmp_path).folder
    one, two = ((f.model / "model.safetensors").read_bytes() for f in (folder, RunFolder(again)))
    assert one == two


def test_labels_that_a_person_adds_count_in_the_next_run(done, place, run):
    rows = read_table(done[2].label_next)
    assert len(rows) == 20
    assert len({row["guess"] for row in rows}) == 4
    sure = [float(row["probability"]) for row in rows]
    assert sure == sorted(sure)
    more = [(row["file"], f"digit {row['file'][3]}") for row in rows[:5]]
    write_table(place / "more.csv", [*more, *[(row["file"], "") for row in rows[5:]]])
    code, printed, _ = run("--labels", str(place / "more.csv"))
    assert (code, "160 images, 17 of them labelled; 4 classes, the rarest first" in printed) == (
        0,
        True,
    )


def test_a_class_with_one_label_trains_and_is_not_checked(run):
    code, printed, _ = run(table="rare.csv")
    assert code == 0
    assert "one label, so are not checked: digit 3" in printed
    assert "of 9 labelled images, each left out once in 3 folds" in printed
    assert any(row["label"] == "digit 3" for row in read_table(Path("runs/classify/answers.csv")))


def test_one_label_of_each_class_makes_a_classifier_that_is_not_checked(run):
    code, printed, _ = run(table="one.csv")
    assert code == 0
    assert "no class has two labels, so nothing can be left out and checked" in printed
    assert "trained with discovery: runs/classify/model" in printed


def test_where_every_image_has_a_label_nothing_is_discovered_or_asked_for(run):
    code, printed, _ = run(table="all.csv")
    assert code == 0
    assert "every image has a label, so there is nothing to discover" in printed
    assert "of 160 labelled images, each left out once in 10 folds" in printed
    assert "with discovery:" not in printed
    assert "label next" not in printed


def test_images_that_cannot_be_read_are_named_or_left_out(place, tmp_path, run):
    shutil.copytree(place / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "99-0.png").write_bytes(b"no picture")
    code, _, said = run(photos="photos")
    assert code == 2
    assert "99-0.png" in said
    assert "--skip-unreadable" in said
    given = [(row["file"], row["label"]) for row in read_table(place / "labels.csv")]
    write_table(tmp_path / "labels.csv", [*given, ("99-0.png", "digit 9")])
    code, printed, _ = run("--skip-unreadable", photos="photos", table=tmp_path / "labels.csv")
    assert code == 0
    assert "images left out: 1, 99-0.png" in printed
    assert "with no label and cannot be answered: digit 9" in printed
    rows = read_table(tmp_path / "runs" / "classify" / "answers.csv")
    assert len(rows) == 160
    assert {row["p(digit 9)"] for row in rows} == {"0.000000"}


def test_a_folder_s_own_table_goes_on_in_the_next_command(place, tmp_path, run):
    shutil.copytree(place / "photos", tmp_path / "photos")
    shutil.copy(place / "labels.csv", tmp_path / "photos" / "labels.csv")
    code, printed, _ = run(photos="photos", table=None)
    assert code == 0
    assert "photos --labels photos/labels.csv --labels runs/classify/label_next.csv" in printed


def test_folders_of_classes_and_one_of_unlabelled_images_need_no_table(place, tmp_path, run):
    for file in (place / "photos").iterdir():
        kind = f"digit {file.name[3]}" if file.name < "03" else "unlabeled"
        (tmp_path / "sorted" / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "sorted" / kind / file.name)
    code, printed, _ = run(photos="sorted", table=None)
    assert code == 0
    assert "sorted: 160 images, 12 of them labelled; 4 classes, 3 labels each" in printed
    assert "put them into the folders of their classes, then: fewlabels classify sorted" in printed


@pytest.mark.parametrize(
    ("words", "changes", "says"),
    [
        ([], {"photos": "nowhere"}, "nowhere: no such folder; name the one"),
        ([], {"table": "lost.csv"}, "lost.csv: no such file; name a CSV file"),
        ([], {"weights": "lost"}, "lost.safetensors: no such file; name one that holds"),
        ([], {"table": "none.csv"}, "no image has a label; write a CSV file"),
        ([], {"table": "same.csv"}, "all labels are 'digit 0'; label an image of a second class"),
        (
            ["--fine-tune"],
            {"table": "one.csv"},
            "--fine-tune is judged by labels that are held out",
        ),
        (["--backbone", "resnet5"], {}, "has a backbone called 'resnet5'"),
        (["--out", "runs.csv"], {}, "for a table: -o CSV"),
        (["-o", __file__], {}, "name another file"),
        (["--seed", "-1"], {}, "expected 0 or more"),
        (["--image-size", "0"], {}, "image_size"),
    ],
)
def test_mistakes_are_a_sentence_and_leave_nothing(run, tmp_path, words, changes, says):
    code, _, said = run(*words, **changes)
    assert code == 2
    assert says in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_weights_without_their_backbone_are_refused(capsys):
    assert main(["classify", "photos", "--weights", "x.safetensors"]) == 2
    assert "belongs to a backbone; name it too" in capsys.readouterr().err


def test_two_tables_that_disagree_are_refused(run, place):
    write_table(place / "other.csv", [("00-1.png", "digit 2")])
    code, _, said = run("--labels", str(place / "other.csv"))
    assert code == 2
    assert "00-1.png is 'digit 1' in" in said


def test_the_recipes_in_the_folder_are_those_of_the_command(tmp_path, monkeypatch):
    photos = Photos("photos", ["labels.csv"])
    written = load_recipe(RECIPES / "classify_folder.yaml")
    assert written.resolved == make_recipe(photos).resolved
    written = load_recipe(RECIPES / "classify_fine_tune.yaml")
    assert written.resolved == make_fine_tuning(photos, "runs/classify/ledger").resolved


@pytest.fixture
def short(monkeypatch):
    """Fine-tuning in seconds."""
    rounds = {**classify_recipe.FINE_TUNING["rounds"], "steps_per_epoch": 30}
    monkeypatch.setitem(classify_recipe.FINE_TUNING, "rounds", rounds)
    monkeypatch.setitem(classify_recipe.FINE_TUNING, "optimizer", {"name": "adam", "lr": 1e-2})


def test_fine_tuning_that_wins_is_kept(run, short):
    code, printed, _ = run("--fine-tune", weights="blind", table="all.csv")
    assert code == 0
    said = r"fine-tuned without 16 labels: .* (\d+) of 16 of these; .* (\d+) of 16;"
    tuned, frozen = map(int, re.search(said, printed).groups())
    assert tuned < frozen == 12  # features that tell nothing apart are right by chance alone
    assert "the fine-tuned model is kept: runs/classify-fine-tune/model" in printed
    rows = read_table(Path("runs/classify-fine-tune/answers.csv"))
    model = load_model("runs/classify-fine-tune/model")
    assert len(rows) == 160
    assert model.classes == ("digit 0", "digit 1", "digit 2", "digit 3")


def test_fine_tuning_that_does_not_win_is_not_kept(run, monkeypatch):
    rounds = {**classify_recipe.FINE_TUNING["rounds"], "steps_per_epoch": 1, "epochs_per_round": 1}
    monkeypatch.setitem(classify_recipe.FINE_TUNING, "rounds", rounds)
    monkeypatch.setitem(classify_recipe.FINE_TUNING, "schedule", {"name": "constant"})
    code, printed, _ = run("--fine-tune")
    assert code == 0
    assert "the frozen model is kept: runs/classify/model" in printed
    assert not Path("runs/classify-fine-tune").exists()
