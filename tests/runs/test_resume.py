"""A run that goes on: with its own recipe, images and labels, or not at all."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from run_folders import forget_end, read_rows, remove_checkpoints_after

import fewlabels
from fewlabels.errors import FewLabelsError
from fewlabels.recipe.yaml_file import dump_yaml
from fewlabels.runs.study import run_study
from fewlabels.training.loop import Loop
from fewlabels.training.run_folder import RunFolder

RECIPE = {
    "data": {"source": "folder", "split": "all", "labels": "all", "workers": 0},
    "model": {"backbone": "convnet3", "image_size": 16, "backbone_options": {"width": 0.25}},
    "strategy": {"name": "supervised", "batch": 4},
    "views": [{"name": "flip"}],
    "optimizer": {"name": "adam", "lr": 1e-3},
    "rounds": {"rounds": 2, "steps_per_epoch": 2},
    "evaluation": {"every": 0},
    "train": {"checkpoint_every": 1, "keep_checkpoints": 99, "log_every": 1},
}


def draw(file, seed):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(file)


@pytest.fixture(scope="module")
def began(tmp_path_factory):
    """A folder with ``photos`` and a ``run`` on them that has come to its end."""
    place = tmp_path_factory.mktemp("began")
    for number in range(12):
        draw(place / "photos" / "abc"[number % 3] / f"{number:02d}.png", number)
    recipe = {**RECIPE, "data": {**RECIPE["data"], "path": str(place / "photos")}}
    fewlabels.train({**recipe, "name": "run"}, out=place)
    return place


@pytest.fixture
def stopped(began, tmp_path):
    """The same, stopped at its third step of four; and its photos, copied."""
    shutil.copytree(began, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "run"
    remove_checkpoints_after(folder, 3)
    shutil.rmtree(RunFolder(folder).model)
    forget_end(folder)
    edit(folder, str(began), str(tmp_path))
    return folder


def edit(folder, then, now):
    recipe = RunFolder(folder).recipe
    assert then in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(then, now, 1))


def digest(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def refused(folder):
    """The sentence with which it does not go on, having changed nothing."""
    before = digest(folder)
    with pytest.raises(FewLabelsError) as error:
        fewlabels.train(resume=folder)
    assert digest(folder) == before
    return str(error.value)


def test_a_run_whose_photos_were_moved_goes_on_to_the_same_weights(began, stopped):
    edit(stopped, "keep_checkpoints: 99", "keep_checkpoints: 1")
    again = fewlabels.train(resume=stopped).folder
    files = [RunFolder(folder).model / "model.safetensors" for folder in (began / "run", again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert read_rows(began / "run", "train") == read_rows(again, "train")
    assert len(RunFolder(again).list_checkpoints()) == 1


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ("seed: 0", "seed: 5", "seed (0 then, 5 now)"),
        ("lr: 0.001", "lr: 0.05", "optimizer.lr (0.001 then, 0.05 now)"),
        ("name: adam", "name: sgd", 'optimizer.name ("adam" then, "sgd" now)'),
        ("options: {}", "options: {eps: 0.1}", "optimizer.options.eps (not set then, 0.1 now)"),
        ("rounds: 2", "rounds: 3", "rounds.rounds (2 then, 3 now)"),
        ("name: supervised", "name: mixup", 'strategy.name ("supervised" then, "mixup" now)'),
        ("probability: 0.5", "probability: 0.9", "views.0.probability (0.5 then, 0.9 now)"),
    ],
)
def test_a_recipe_that_was_edited_since_is_refused_by_its_keys(stopped, then, now, said):
    edit(stopped, then, now)
    told = refused(stopped)
    assert told.startswith(f"{stopped / 'recipe.yaml'} is not what the run began with: ")
    assert said in told
    assert told.endswith("; put it back, or start a new run")


CHANGES = {
    "an image more": (lambda p: draw(p / "a/000.png", 50), "images", "12 then, 13 now"),
    "an image less": (lambda p: (p / "a/00.png").unlink(), "images", "12 then, 11 now"),
    "an image renamed": (
        lambda p: (p / "a/00.png").rename(p / "a/99.png"), "images", "12 as before, but others"
    ),
    "an image of another class": (
        lambda p: (p / "a/00.png").rename(p / "b/00.png"), "images", "12 as before, but others"
    ),
    "a class more": (lambda p: draw(p / "aa/1.png", 50), "classes", "3 then, 4 now"),
    "a class renamed": (
        lambda p: (p / "c").rename(p / "0"), "classes", "3 as before, but others"
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_images_that_were_changed_since_are_refused(stopped, change):
    do, what, counts = CHANGES[change]
    do(stopped.parent / "photos")
    said = f"{stopped}: its {what} are not those that it began with ({counts}); put them back"
    assert refused(stopped).startswith(said)


def test_a_label_that_was_changed_since_is_refused(tmp_path):
    lines = ["file,label"]
    for number in range(12):
        draw(tmp_path / "photos" / f"{number}.png", number)
        lines.append(f"{number}.png,{'abc'[number % 3]}")
    table = tmp_path / "photos" / "labels.csv"
    table.write_text("\n".join(lines))
    recipe = {**RECIPE, "data": {**RECIPE["data"], "path": str(tmp_path / "photos")}}
    folder = fewlabels.train(recipe, out=tmp_path).folder
    table.write_text("\n".join([*lines[:-1], "11.png,a"]))
    assert "its labels are not those that it began with (12 as before, but others)" in refused(
        folder
    )


def age(folder, change):
    """As an older version would have written the run: its first row changed, and no sums."""
    metrics = RunFolder(folder).metrics
    first, *rest = metrics.read_text().splitlines(keepends=True)
    row = json.loads(first)
    change(row)
    older = json.dumps(row) + "\n"
    metrics.write_text("".join([older, *rest]))
    for place in RunFolder(folder).list_checkpoints():
        (place / "SHA256SUMS").unlink()
        state = json.loads((place / "state.json").read_text())
        state["metrics"] += len(older) - len(first)
        (place / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    "change",
    [
        lambda row: (row.pop("resolved"), row.pop("data")),
        lambda row: row["resolved"]["train"].pop("channels_last"),
    ],
    ids=["notes nothing", "has a key less"],
)
def test_what_an_older_version_wrote_goes_on(began, stopped, change):
    age(stopped, change)
    again = fewlabels.train(resume=stopped).folder
    files = [RunFolder(folder).model / "model.safetensors" for folder in (began / "run", again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_with_what_is_there(stopped):
    shutil.rmtree(RunFolder(stopped).checkpoints)
    edit(stopped, "seed: 0", "seed: 5")
    (stopped.parent / "photos/a/00.png").unlink()
    fewlabels.train(resume=stopped)
    assert read_rows(stopped, "run")[0]["resolved"]["seed"] == 5
    fewlabels.train(resume=stopped)


def test_a_study_does_not_take_the_number_of_a_run_whose_recipe_was_edited(began, tmp_path):
    data = {**RECIPE["data"], "path": str(began / "photos"), "labels": 6}  # others are the test
    recipe = {**RECIPE, "data": data}
    path = tmp_path / "it.yaml"
    path.write_text(dump_yaml(recipe))
    run_study([path], [3], runs=tmp_path, say=print)
    edit(tmp_path / "it-seed-3", "lr: 0.001", "lr: 0.05")
    for gone in ("nothing", "checkpoints", "recipe.yaml"):
        place = tmp_path / "it-seed-3" / gone
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        with pytest.raises(FewLabelsError, match=r"lr \(0.001 then, 0.05 now\); put it back, remo"):
            run_study([path], [3], ["optimizer.lr=0.05"], runs=tmp_path, say=print)
    first, *_ = RunFolder(tmp_path / "it-seed-3").metrics.read_text().splitlines(keepends=True)
    RunFolder(tmp_path / "it-seed-3").metrics.write_text(f'{first}{{"kind": "end"}}\n')
    with pytest.raises(
        FewLabelsError, match=r"it seed 3: its metrics.jsonl is damaged .*'measure'"
    ):
        run_study([path], [3], runs=tmp_path, say=print)


def test_a_finished_run_without_checkpoints_is_not_trained_over(began, tmp_path):
    folder = shutil.copytree(began / "run", tmp_path / "run")
    shutil.rmtree(RunFolder(folder).checkpoints)
    before = digest(folder)
    assert "has come to its end, and its checkpoints are gone; its model is in" in refused(folder)
    edit(folder, "seed: 0", "seed: 5")
    assert "seed (0 then, 5 now)" in refused(folder)
    edit(folder, "seed: 5", "seed: 0")
    assert digest(folder) == before


def test_what_was_being_written_when_a_run_was_killed_is_removed(stopped):
    left = [stopped / ".part-x" / "file", stopped / "checkpoints" / ".draft-000002" / "state.json"]
    for file in left:
        file.parent.mkdir()
        file.write_text("half")
    fewlabels.train(resume=stopped)
    assert not any(file.parent.exists() for file in left)


def test_a_run_that_begins_again_says_so(stopped, capsys):
    shutil.rmtree(RunFolder(stopped).checkpoints)
    fewlabels.train(resume=stopped)
    assert f"{stopped} has no checkpoint, so it begins again\n" in capsys.readouterr().out


def test_a_first_row_that_is_no_account_of_images_is_damage(stopped):
    first, *rest = RunFolder(stopped).metrics.read_text().splitlines(keepends=True)
    row = json.loads(first)
    row["data"] = {"images": 3}
    RunFolder(stopped).metrics.write_text("".join([json.dumps(row) + "\n", *rest]))
    assert "its first line is damaged; put it back" in refused(stopped)


def test_the_newest_checkpoint_damaged_a_run_ends_with_the_same_weights(began, stopped, capsys):
    newest = RunFolder(stopped).list_checkpoints()[-1]
    (newest / "optimizers.pt").write_bytes(b"")
    edit(stopped, "keep_checkpoints: 99", "keep_checkpoints: 1")
    again = fewlabels.train(resume=stopped).folder
    said = f"{newest} is damaged (optimizers.pt: it is not what was written); going on from step-"
    assert capsys.readouterr().out.count(said) == 1
    files = [RunFolder(folder).model / "model.safetensors" for folder in (began / "run", again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert read_rows(began / "run", "train") == read_rows(again, "train")


@pytest.mark.parametrize("damage", ["gone", "first line", "cut", "all of them"])
def test_damages_that_nothing_can_go_on_from_are_told_before_images_are_decoded(
    stopped, monkeypatch, damage
):
    monkeypatch.setattr("fewlabels.data.pixels.Pixels.decode_all", None)
    files = RunFolder(stopped)
    text = files.metrics.read_text()
    if damage == "gone":
        files.metrics.unlink()
    elif damage == "all of them":
        for place in files.list_checkpoints():
            (place / "state.json").unlink()
    else:
        files.metrics.write_text(
            text[3:] if damage == "first line" else text[: text.index("\n") + 9]
        )
    told = refused(stopped)
    for said in {
        "gone": ["metrics.jsonl is missing, or its first line is damaged; put it back, or"],
        "first line": ["metrics.jsonl is missing, or its first line is damaged; put it back, or"],
        "cut": ["metrics.jsonl has ", " that were written when the checkpoint was; put the file"],
        "all of them": ["step-000003 is damaged (state.json: it is missing)", "no checkpoint is"],
    }[damage]:
        assert said in told


@pytest.mark.parametrize("kept", ["initial", "best"])
def test_weights_that_a_run_goes_back_to_are_missed_before_it_goes_on(began, tmp_path, kept):
    data = {**RECIPE["data"], "path": str(began / "photos"), "validation": 3}
    recipe = {**RECIPE, "data": data, "name": "run", "evaluation": {"report": "best"}}
    recipe |= {"rounds": {"rounds": 2, "steps_per_epoch": 1, "restart": "round"}}
    folder = fewlabels.train(recipe, out=tmp_path).folder
    remove_checkpoints_after(folder, 1)
    (getattr(RunFolder(folder), kept) / "modules.safetensors").write_bytes(b"")
    told = refused(folder)
    assert f"{kept} is damaged (modules.safetensors: " in told
    assert told.endswith("; put it back, or start a new run")


def test_weights_that_went_to_infinity_between_two_logged_losses_are_not_kept(began, tmp_path):
    recipe = {**RECIPE, "data": {**RECIPE["data"], "path": str(began / "photos")}}
    wild = ["optimizer.name=sgd", "optimizer.lr=1e30", "train.log_every=8", "name=wild"]
    with pytest.raises(FewLabelsError, match="is not finite at step 2, so it is not kept; start"):
        fewlabels.train(recipe, [*wild, "rounds.steps_per_epoch=8"], out=tmp_path)
    (place,) = RunFolder(tmp_path / "wild").list_checkpoints()
    assert place.name == "step-000001"


def test_rates_that_multiply_beyond_float32_are_a_sentence(began, tmp_path):
    recipe = {**RECIPE, "data": {**RECIPE["data"], "path": str(began / "photos")}}
    wild = ["optimizer.lr=1e30", "optimizer.factors={student: 1e30}", "name=wild"]
    with pytest.raises(FewLabelsError, match="too large for float32 at step 0; lower optimizer.lr"):
        fewlabels.train(recipe, wild, out=tmp_path)


def test_a_run_stopped_in_pretraining_is_compared_too(began, tmp_path, monkeypatch):
    shutil.copytree(began / "photos", tmp_path / "photos")
    recipe = {**RECIPE, "data": {**RECIPE["data"], "path": str(tmp_path / "photos")}}
    recipe |= {"pretrain": {"name": "rotation", "epochs": 2, "batch": 4}, "name": "run"}
    save = Loop._save_checkpoint

    def save_and_stop(loop):
        save(loop)
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        fewlabels.train(recipe, out=tmp_path)
    monkeypatch.undo()
    folder = tmp_path / "run"
    assert not RunFolder(folder).list_checkpoints()
    draw(tmp_path / "photos/a/000.png", 50)
    assert "its images are not those that it began with (12 then, 13 now)" in refused(folder)
    (tmp_path / "photos/a/000.png").unlink()
    edit(folder, "seed: 0", "seed: 5")
    assert "seed (0 then, 5 now)" in refused(folder)
    edit(folder, "seed: 5", "seed: 0")
    first = read_rows(folder, "run")
    backbone = RunFolder(fewlabels.train(resume=folder).folder).pretrain.backbone
    assert read_rows(folder, "run") == first
    backbone.write_bytes(b"")
    shutil.rmtree(RunFolder(folder).checkpoints)
    forget_end(folder)
    with pytest.raises(FewLabelsError, match=r"backbone.safetensors cannot be used .*remove it"):
        fewlabels.train(resume=folder)
