"""Rotation before a run: what it learns, where the run then starts, and that it resumes."""

import shutil

import numpy as np
import pytest
import torch
from children import run_together
from run_folders import forget_end, read_rows, remove_checkpoints_after
from safetensors.numpy import load_file

import fewlabels
from fewlabels.components.strategies.mean_teacher import MeanTeacher
from fewlabels.components.strategies.rotation import Rotation, rotate_images
from fewlabels.errors import FewLabelsError, RecipeError
from fewlabels.models.composition import Composition
from fewlabels.recipe.recipe import recipe_from
from fewlabels.registry import strategies

BASE = {
    "data": {"source": "digits", "split": "official", "labels": 20},
    "model": {"backbone": "convnet3", "image_size": 16, "backbone_options": {"width": 0.25}},
    "views": [{"name": "homography", "crop": [0.8, 1.0]}],
    "optimizer": {"name": "adam", "lr": 2e-3},
    "strategy": {"name": "mean_teacher", "labelled": 20, "batch": 20},
    "pretrain": {"name": "rotation", "epochs": 2, "batch": 20},
    "rounds": {"steps_per_epoch": 5},
    "train": {"log_every": 1, "checkpoint_every": 1, "keep_checkpoints": 99},
}


def train(folder, *overrides, **changes):
    return fewlabels.train({**BASE, **changes}, overrides, out=folder).folder


def rows(folder, kind):
    return read_rows(folder, kind)


def weights(folder, step=None):
    places = {int(place.name[5:]): place for place in (folder / "checkpoints").iterdir()}
    place = places[max(places) if step is None else step]
    return load_file(place / "modules.safetensors")


def test_the_four_turns_of_an_image():
    image = torch.tensor([[1, 2], [3, 4]]).reshape(1, 1, 2, 2)
    views, turns = rotate_images(torch.cat([image, 10 * image]))
    assert turns.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert views[::2, 0].tolist() == [
        [[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]],
    ]  # fmt: skip
    assert (views[1::2] == 10 * views[::2]).all()


def test_turns_are_learnt(tmp_path):
    folder = train(tmp_path, "pretrain.epochs=16", "train.checkpoint_every=0")
    losses = [row["rotation"] for row in rows(folder / "pretrain", "train")]
    assert len(losses) == 80
    assert np.mean(losses[-5:]) < 0.8 < np.log(4) < np.mean(losses[:5]) + 0.3


def test_the_run_starts_where_pretraining_ends(tmp_path):
    folder = train(tmp_path, "rounds.restart=round")  # which keeps the weights of the beginning
    kept = load_file(folder / "pretrain" / "backbone.safetensors")
    begin = load_file(folder / "initial" / "modules.safetensors")
    trained, before = (weights(folder / "pretrain", step) for step in (None, 1))
    assert not (kept["conv1.0.weight"] == before["student/backbone.conv1.0.weight"]).all()
    for key, value in kept.items():
        assert (value == trained[f"student/backbone.{key}"]).all()
        for model in ("student", "teacher"):
            assert (value == begin[f"{model}/backbone.{key}"]).all()


def test_without_it_the_run_starts_from_its_own_weights(tmp_path):
    none = {k: v for k, v in BASE.items() if k != "pretrain"}
    one = fewlabels.train(none, out=tmp_path / "one").folder
    two = train(tmp_path / "two", pretrain=None)
    three = train(tmp_path / "three")
    finals = [weights(folder)["student/backbone.conv1.0.weight"] for folder in (one, two, three)]
    assert (finals[0] == finals[1]).all()
    assert not (finals[0] == finals[2]).all()
    assert recipe_from(none).hash == recipe_from({**BASE, "pretrain": None}).hash
    assert "pretrain:" not in (one / "recipe.yaml").read_text()
    assert not (one / "pretrain").exists()


def test_its_steps_and_minutes_are_counted_beside_those_of_the_run(tmp_path):
    folder = train(tmp_path, "pretrain.epochs=16")
    end = rows(folder, "end")[0]
    assert (end["steps"], end["other_steps"]) == (5, 80)
    seconds = [
        r["seconds"] for place in (folder, folder / "pretrain") for r in rows(place, "round")
    ]
    assert len(seconds) == 2
    assert seconds[1] > 0
    assert end["minutes"] == pytest.approx(sum(seconds) / 60)


@pytest.mark.parametrize("embedding_size", [8, None])
def test_an_embedder_may_start_from_it_too(tmp_path, embedding_size):
    folder = train(
        tmp_path, "data.labels=none", "rounds.restart=round", f"model.embedding_size={embedding_size or 'null'}",
        "optimizer.factors={student.backbone.conv1: 0.5}",
        strategy={"name": "metric", "batch": 20, "per_class": 2},
        discovery={"name": "kmeans", "clusters": 10}, losses="multi_similarity",
    )  # fmt: skip
    kept = load_file(folder / "pretrain" / "backbone.safetensors")
    first = load_file(folder / "initial" / "modules.safetensors")
    assert (kept["conv2.0.weight"] == first["student/backbone.conv2.0.weight"]).all()
    assert ("student/head.weight" in first) == (embedding_size is not None)


def test_stopped_in_pretraining_it_goes_on_bit_for_bit(tmp_path):
    whole = train(tmp_path / "whole")
    for stop in (0, 4):
        stopped = tmp_path / f"stopped-{stop}"
        shutil.copytree(whole, stopped)
        shutil.rmtree(stopped / "checkpoints")
        shutil.rmtree(stopped / "model")
        forget_end(stopped)
        (stopped / "pretrain" / "backbone.safetensors").unlink()
        remove_checkpoints_after(stopped / "pretrain", stop)
        again = fewlabels.train(resume=stopped).folder
        one, two = weights(whole), weights(again)
        assert all((one[k] == two[k]).all() for k in one)
        assert rows(whole / "pretrain", "train") == rows(again / "pretrain", "train")
        assert rows(whole, "train") == rows(again, "train")


def test_stopped_after_it_the_run_does_not_pretrain_again(tmp_path):
    whole = train(tmp_path / "whole")
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    shutil.rmtree(stopped / "checkpoints")
    shutil.rmtree(stopped / "pretrain" / "checkpoints")
    forget_end(stopped)
    again = fewlabels.train(resume=stopped).folder
    assert not (again / "pretrain" / "checkpoints").exists()
    one, two = weights(whole), weights(again)
    assert all((one[k] == two[k]).all() for k in one)


def test_what_a_strategy_draws_is_the_same_after_pretraining(tmp_path, built_in, monkeypatch):
    class Drawing(MeanTeacher):
        """Has a module beside the student that is drawn at random."""

        def modules(self, build):
            return {**super().modules(build), "drawn": torch.nn.Linear(4, 4)}

    monkeypatch.setattr(strategies, "_registered", dict(strategies._registered))
    strategies.register("drawing")(Drawing)
    begins = []
    for name, changes in [("without", {"pretrain": None}), ("with", {})]:
        changes["strategy"] = {**BASE["strategy"], "name": "drawing"}
        folder = train(tmp_path / name, "rounds.restart=round", **changes)
        begins.append(load_file(folder / "initial" / "modules.safetensors"))
    for key in ("drawn/weight", "student/backbone.fc.weight"):
        assert (begins[0][key] == begins[1][key]).all()


def test_lmcs_starts_from_it_in_all_its_models(tmp_path, monkeypatch):
    asked = []

    def compose(self, model, *args, **options):
        asked.append(all(parameter.requires_grad for parameter in model.parameters()))
        make(self, model, *args, **options)

    make = Composition.__init__
    monkeypatch.setattr(Composition, "__init__", compose)
    folder = train(
        tmp_path, "rounds.restart=round", "optimizer.factors={student.backbone.conv1: 0}",
        strategy={"name": "lmcs", "labelled": 20, "batch": 20},
    )  # fmt: skip
    assert asked == [True, True]  # it is made of a model as the recipe has it, both times
    kept = load_file(folder / "pretrain" / "backbone.safetensors")
    begin = load_file(folder / "initial" / "modules.safetensors")
    models = ["student", "teacher", "master/current", "master/previous", "master/decision"]
    for key, value in kept.items():
        for model in models:
            joint = "." if "/" in model else "/"
            assert (value == begin[f"{model}{joint}backbone.{key}"]).all()


def test_labels_are_not_looked_at(tmp_path):
    few, more = (
        load_file(train(tmp_path / str(n), f"data.labels={n}") / "pretrain/backbone.safetensors")
        for n in (20, 100)
    )
    assert all((few[key] == more[key]).all() for key in few)


def test_a_frozen_backbone_starts_from_the_file_of_another_run(tmp_path, monkeypatch):
    frozen = "optimizer.factors={student.backbone: 0}"
    metric = {
        "strategy": {"name": "metric", "batch": 20, "per_class": 2},
        "losses": "multi_similarity",
    }
    metric |= {"data": {**BASE["data"], "labels": "all"}}
    monkeypatch.setattr(
        "fewlabels.data.pixels.Pixels.decode_all", None
    )  # told before images are decoded
    with pytest.raises(FewLabelsError, match="pretrain: optimizer.factors freeze the whole backb"):
        train(tmp_path, frozen, **metric)
    monkeypatch.undo()
    place = train(tmp_path, **metric) / "pretrain" / "backbone.safetensors"
    folder = train(tmp_path, frozen, f"model.weights={place}", pretrain=None, **metric)
    kept, final = load_file(place), weights(folder)
    assert (kept["conv1.0.weight"] == final["student/backbone.conv1.0.weight"]).all()


def test_a_batch_larger_than_the_data_repeats_images(tmp_path):
    folder = train(tmp_path, "pretrain.batch=1500", "pretrain.epochs=1", "rounds.steps_per_epoch=1")
    assert rows(folder, "end")[0]["other_steps"] == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"strategy": "rotation"}, "strategy rotation is a pretext task; it belongs under pretrain:"),
        ({"pretrain": "mixmatch"}, "strategy mixmatch is no pretext task; it belongs under strategy:"),
        ({"pretrain": "rotatoin"}, "did you mean 'rotation'"),
        ({"pretrain": {"name": "rotation", "epoch": 3}}, "did you mean 'epochs'"),
        ({"pretrain": {"name": "rotation", "batch": 0}}, "pretrain.batch: expected greater than or equal to 1"),
        ({"pretrain": 3}, "pretrain: expected a mapping with 'name', got 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_sentence(changes, sentence):
    with pytest.raises(RecipeError) as error:
        recipe_from({**BASE, **changes})
    assert sentence in str(error.value)


@pytest.mark.slow
def test_a_batch_that_processes_cannot_share_is_told_before_images_are_decoded(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_from(BASE, ["pretrain.batch=15"]).to_yaml())
    codes, said = run_together(["run", path, "--out", tmp_path], 2)
    assert all(codes)
    assert "pretrain: strategy: stream 'images' has 15 images a step, which 2 proc" in said


class LooksAtImages(Rotation):
    """A pretext strategy that extracts before a phase, as any strategy may."""

    seen: list = []

    def begin(self, phase, models, found, extract):
        self.seen.append(extract("student", "features", np.arange(3)).shape)


def test_a_pretext_strategy_may_look_at_the_images(tmp_path, built_in, monkeypatch):
    monkeypatch.setattr(strategies, "_registered", dict(strategies._registered))
    strategies.register("looks_at_images")(LooksAtImages)
    train(tmp_path, pretrain={"name": "looks_at_images", "epochs": 1, "batch": 20})
    assert LooksAtImages.seen == [(3, 32)]
