"""Images that cannot be read are left out of a run alike wherever its images are asked for."""

import csv
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from pictures import texture
from run_folders import load_newest_modules, read_rows, remove_checkpoints_after

from fewlabels.cli.main import main
from fewlabels.errors import DataError
from fewlabels.recipe.recipe import load_recipe
from fewlabels.runs.assemble import assemble_run
from fewlabels.training.run_folder import RunFolder

RECIPE = """
name: photos
model: {backbone: convnet3, image_size: 16, embedding_size: 8, backbone_options: {width: 0.25}}
strategy: {name: metric, batch: 8, per_class: 2}
discovery: {name: kmeans, clusters: 2}
losses: multi_similarity
rounds: {rounds: 1, steps_per_epoch: 2}
evaluation: {before: false}
data: {source: folder, path: photos, split: official, workers: 0}
"""
BROKEN = ("train/a/02.png", "test/b/27.png")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Where a recipe and forty photos are, of which two cannot be read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos.yaml").write_text(RECIPE)
    for i in range(40):
        file = tmp_path / "photos" / ("train" if i < 24 else "test") / "ab"[i % 2] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        texture(i, 20).save(file)
    for name in BROKEN:
        (tmp_path / "photos" / name).write_bytes(b"")
    return tmp_path


def run(*overrides, resume=None):
    """Run the recipe, or go on with a run: its folder, and what it said."""
    said = []
    recipe = load_recipe(resume / "recipe.yaml" if resume else "photos.yaml", overrides)
    folder, _ = assemble_run(recipe, Path("runs").absolute(), resume, said.append)
    return folder, said


def read_left_out(folder):
    with RunFolder(folder).left_out.open(newline="") as file:
        return [row["name"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("memory", [4, 0], ids=["kept", "read lazily"])
@pytest.mark.parametrize("max_bad", [0, 0.01, 1])
def test_all_are_named_before_a_run_folder_is_made_or_training_begins(max_bad, memory, here):
    with pytest.raises(DataError) as caught:
        run(f"data.max_bad={max_bad}", f"data.memory={memory}")
    # Where nothing is read before, what is read lazily is seen to be damaged when it is needed.
    named = BROKEN if max_bad or memory else BROKEN[:1]
    assert all(name in str(caught.value) for name in named)
    assert max_bad == 0 or not (here / "runs").exists()


@pytest.mark.parametrize("memory", [4, 0], ids=["kept", "read lazily"])
def test_up_to_max_bad_they_are_left_out_and_listed(memory, here, capsys):
    folder, said = run("data.max_bad=2", f"data.memory={memory}")
    assert sorted(read_left_out(folder)) == sorted(BROKEN)
    [facts] = read_rows(folder, "run")
    assert (facts["left_out"], facts["copies"]) == (2, 0)
    [remark] = [line for line in said if line.startswith("images left out: 2, ")]
    assert all(name in remark for name in BROKEN)
    assert any("23 images train, 15 are" in line for line in said)
    assert main(["evaluate", str(folder / "model")]) == 0
    printed = capsys.readouterr().out
    assert remark in printed
    assert "15 images of 2 classes" in printed
    assert main(["evaluate", str(folder / "model"), "--data", "photos"]) == 2
    assert "2 images cannot be read" in capsys.readouterr().err


def test_a_resumed_run_leaves_out_what_it_left_out_before(here):
    folder, _ = run("data.max_bad=2", "train.checkpoint_every=1", "train.keep_checkpoints=9")
    ended = load_newest_modules(folder)
    remove_checkpoints_after(folder, 1)
    for name in BROKEN:  # repaired since
        texture(1, 20).save(here / "photos" / name)
    _, said = run(resume=folder)
    assert sorted(read_left_out(folder)) == sorted(BROKEN)
    assert any("23 images train, 15 are" in line for line in said)
    assert all(
        torch.equal(ended[key], tensor) for key, tensor in load_newest_modules(folder).items()
    )


def test_copies_leave_the_training_images_where_that_is_asked_for(here):
    for name in BROKEN:
        texture(1, 20).save(here / "photos" / name)  # which is 01.png too
    folder, said = run("data.drop_duplicates=true")
    assert read_left_out(folder) == ["train/a/02.png", "train/b/01.png"]
    assert any("22 images train, 16 are" in line for line in said)
    folder, said = run()
    assert not RunFolder(folder).left_out.exists()
    assert read_rows(folder, "run")[0]["copies"] == 2
    assert any(
        line.startswith("training images that are copies of test images: 2, as ") for line in said
    )


def test_labels_of_other_images_stay_where_one_cannot_be_read(here):
    for name in BROKEN:
        texture(50, 20).save(here / "photos" / name)
    drawn = []
    for _ in range(2):
        folder, _ = run("data.labels=4", "data.max_bad=9", "discovery=[]")
        with RunFolder(folder).labelled.open() as file:
            drawn.append({row["row"] for row in csv.DictReader(file)})
        first = min(drawn[0], key=int)
        names = sorted(
            p.relative_to(here / "photos").as_posix() for p in here.glob("photos/*/*/*.png")
        )
        (here / "photos" / names[int(first)]).write_bytes(b"")
    assert len(drawn[0] - drawn[1]) == 1
    assert len(drawn[0]) == len(drawn[1])


def test_processes_that_read_different_images_do_not_wait_for_each_other(here, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    monkeypatch.setattr("fewlabels.runs.parts.gather_object", lambda own: [*own, {BROKEN[0]}])
    with pytest.raises(DataError, match=f"only some processes can read {BROKEN[1]}; see to it"):
        run("data.max_bad=2")
