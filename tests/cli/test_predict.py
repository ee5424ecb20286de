"""A classifier that knows eight of the ten digits, and what it answers of all ten."""

import csv
import json
import shutil

import numpy as np
import pytest

import fewlabels
from fewlabels import Classifier
from fewlabels.cli.main import main
from fewlabels.components.sources.digits import Digits
from fewlabels.components.sources.folder import Folder

KNOWN = 8
RECIPE = {
    "data": {"source": "folder", "labels": 10, "share": "per_class", "validation": 20},
    "model": {"backbone": "convnet3", "image_size": 24, "backbone_options": {"width": 0.25}},
    "strategy": "supervised",
    "optimizer": {"name": "adam", "lr": 1e-2},
    "rounds": {"steps_per_epoch": 120},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Digits 0 to 7 to train on, the test digits 0 to 9, and a classifier of the former."""
    root, digits = tmp_path_factory.mktemp("digits"), Digits().load()
    for i, number in enumerate(digits.truth):
        part = "train" if i < 1200 else "test"
        if part == "train" and number >= KNOWN:
            continue
        file = root / part / str(number) / f"{i:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        digits.images[i].save(file)
    run = fewlabels.train(RECIPE, [f"data.path={root / 'train'}", "name=run"], out=root)
    config = json.loads((run.folder / "model" / "config.json").read_text())
    for name, change in (("old", {"precision_curve": None}), ("named", {"classes": None})):
        shutil.copytree(run.folder / "model", root / name)
        told = {key: value for key, value in config.items() if key not in change}
        if name == "named":
            told["classes"] = ["None", *"1234567"]
        (root / name / "config.json").write_text(json.dumps(told))
    return root


def predict(place, out, *more, model="run/model"):
    return main(["predict", str(place / model), str(place / "test"), "-o", str(out), *more])


def read(out):
    with out.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_answers_are_as_precise_as_wished_and_strangers_are_none_more_often(
    place, tmp_path, capsys
):
    out = tmp_path / "labels.csv"
    assert predict(place, out, "--min-precision", "0.9") == 0
    printed, rows = capsys.readouterr().out, read(out)
    known = [row for row in rows if int(row["file"][0]) < KNOWN]
    strange = [row for row in rows if int(row["file"][0]) >= KNOWN]
    answered = [row for row in known if row["label"] != "none"]
    assert np.mean([row["label"] == row["file"][0] for row in answered]) >= 0.9
    none, lost = (np.mean([row["label"] == "none" for row in part]) for part in (strange, known))
    assert none > 2 * lost > 0
    count = sum(row["label"] == "none" for row in rows)
    assert f"{out}: {len(rows)} images, {count} of them none: no class has probability" in printed
    assert "of 160 held-out images" in printed


def test_nothing_is_lost_where_the_answer_is_none(place, tmp_path):
    plain, out = tmp_path / "plain.csv", tmp_path / "none.csv"
    assert predict(place, plain) == 0
    assert predict(place, out, "--min-precision", "0.9") == 0
    threshold = Classifier.from_pretrained(place / "run" / "model").find_threshold(0.9)
    for before, row in zip(read(plain), read(out), strict=True):
        assert list(row) == ["file", "label", "probability", "best_label", "best_probability"]
        best = [row["file"], row["best_label"], row["best_probability"]]
        assert list(before.values()) == best
        answered = float(before["probability"]) >= threshold
        answer = best[1:] if answered else ["none", ""]
        assert [row["label"], row["probability"]] == answer


def test_without_a_wish_the_file_is_what_it_was(place, tmp_path):
    assert predict(place, tmp_path / "labels.csv") == 0
    classifier = Classifier.from_pretrained(place / "run" / "model")
    files = sorted((place / "test").rglob("*.png"))
    lines = ["file,label,probability"]
    for file, row in zip(files, classifier.predict(files), strict=True):
        name = file.relative_to(place / "test").as_posix()
        lines.append(f"{name},{classifier.classes[row.argmax()]},{row.max():.6f}")
    assert (tmp_path / "labels.csv").read_bytes() == ("\n".join(lines) + "\n").encode()


def test_a_threshold_of_ones_own_needs_no_held_out_images(place, tmp_path):
    out = tmp_path / "labels.csv"
    assert predict(place, out, "--none-below", "0.7", model="old") == 0
    for row in read(out):
        assert (row["label"] == "none") == (float(row["best_probability"]) < 0.7)


def test_an_empty_word_is_read_as_no_label(place, tmp_path):
    out = tmp_path / "labels.csv"
    assert predict(place, out, "--none-below", "0.7", "--none-as", "") == 0
    records = Folder(path=str(place / "test"), labels_csv=str(out)).load()
    assert records.classes == tuple("01234567")
    assert [number < 0 for number in records.truth] == [not row["label"] for row in read(out)]
    assert 0 < sum(number < 0 for number in records.truth) < len(records.truth)


def test_a_class_called_none_takes_another_word(place, tmp_path, capsys):
    out, ask = tmp_path / "labels.csv", ("--none-below", "0.7")
    assert predict(place, out, *ask, model="named") == 2
    assert "the model has a class 'None', so 'none' would mean two" in capsys.readouterr().err
    assert predict(place, out, *ask, "--none-as", "unknown", model="named") == 0
    assert {"None", "unknown"} <= {row["label"] for row in read(out)}
    assert predict(place, tmp_path / "plain.csv", model="named") == 0  # then it means one thing


@pytest.mark.parametrize(
    ("model", "more", "sentence"),
    [
        ("old", "--min-precision 0.95", "train it with data.validation (precision 0.95 takes 45 images"),
        ("old", "--min-precision 0.95", "as in --none-below 0.7"),
        ("run/model", "--min-precision 0.9999", "0.9999 is not borne out by 160 held-out images; 0.9"),
        ("run/model", "--min-precision 95", "expected a share of answers above 0 and below 1, as in 0.95"),
        ("run/model", "--none-below 70", "--none-below 70: expected a probability above 0 and at most 1"),
        ("run/model", "--none-below nan", "--none-below nan: expected a probability"),
        ("run/model", "--none-as x", "add --min-precision or --none-below"),
        ("run/model", "--none-below .7 --none-as a\x1bb", "give a word of printable letters"),
        ("run/model", "--none-below .7 --none-as 3", "has a class '3', so '3' would mean two things"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(place, tmp_path, capsys, model, more, sentence):
    assert predict(place, tmp_path / "x.csv", *more.split(" "), model=model) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_show_says_what_each_precision_takes(place, capsys):
    assert main(["show", str(place / "run" / "model")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "held-out" in line]
    assert len(lines) == 3
    assert lines[0].split()[:5] == ["precision", "0.9", "from", "probability", lines[0].split()[4]]
