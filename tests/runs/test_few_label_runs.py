"""Whole semi-supervised runs on real handwritten digits."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from run_folders import load_newest_modules, newest_checkpoint, read_rows, remove_checkpoints_after
from safetensors.numpy import load_file

import fewlabels
from fewlabels.components.sources.digits import Digits
from fewlabels.contracts import Records
from fewlabels.errors import FewLabelsError
from fewlabels.recipe.recipe import recipe_from

BASE = {
    "data": {"source": "digits", "split": "official", "labels": 50},
    "model": {"backbone": "convnet3", "image_size": 24, "backbone_options": {"width": 0.25}},
    "views": [{"name": "homography", "crop": [0.8, 1.0], "rotation": 10}],
    "optimizer": {"name": "adam", "lr": 2e-3},
    "rounds": {"steps_per_epoch": 6},
}
SNOWBALL = {
    "strategy": {"name": "snowball", "ema": {"end": 0.9}, "master_ema": 0.9},
    "discovery": "confident",
    "rounds": {"rounds": 2, "generations": 2, "steps_per_epoch": 6, "growth": "double"},
}


def train(tmp_path, *overrides, **changes):
    return fewlabels.train({**BASE, **changes}, overrides, out=tmp_path)


def rows(folder, kind):
    """Of one kind; of evaluations, those of models that were trained."""
    return [row for row in read_rows(folder, kind) if row.get("model") != "frozen_lda"]


def weights(folder):
    return load_newest_modules(folder)


@pytest.mark.parametrize("base", ["mean_teacher", "mixmatch"])
def test_snowball_trains_in_bfloat16(tmp_path, base):
    strategy = {"name": "snowball", "base": base, "labelled": 20, "batch": 20}
    run = train(
        tmp_path, "train.precision=bf16", "rounds.generations=1", "train.log_every=1",
        **{**SNOWBALL, "strategy": strategy},
    )  # fmt: skip
    assert all(np.isfinite(row["loss"]) for row in rows(run.folder, "train"))
    assert rows(run.folder, "train")[-1]["master"] > 0


def test_a_number_sets_the_height_of_a_strategys_own_ramp(tmp_path):
    strategy = {"name": "mixmatch", "labelled": 10, "batch": 10}
    folders = [
        train(
            tmp_path / name, f"weights.unlabelled={weight}", "train.log_every=1", strategy=strategy
        )
        for name, weight in [("number", "1e6"), ("ramp", "{end: 1e6, steps: 16384}")]
    ]
    one, two = (rows(run.folder, "train") for run in folders)
    assert [row["loss"] for row in one] == [row["loss"] for row in two]
    assert one[0]["loss"] == one[0]["supervised"]  # at step 0 the ramp is at 0
    assert one[1]["loss"] > one[1]["supervised"]


def test_snowball_doubles_its_labels_and_begins_again_each_generation(tmp_path):
    run = train(tmp_path, **SNOWBALL)
    found = rows(run.folder, "discovery")
    assert [(r["round"], r["discovered"]) for r in found] == [(1, 50), (2, 100), (3, 50), (4, 100)]
    assert all(0 <= r["wrong"] < 0.9 for r in found)
    books = sorted((run.folder / "ledger").glob("*.parquet"))
    first, second = (pq.read_table(path).to_pydict() for path in books[:2])
    assert not set(first["row"]) & set(second["row"])
    with (run.folder / "labelled.csv").open() as file:
        given = {int(r["row"]) for r in csv.DictReader(file)}
    assert len(given) == 50
    assert not given & (set(first["row"]) | set(second["row"]))
    models = [r["model"] for r in rows(run.folder, "evaluation")]
    assert models == ["teacher", "student"] + ["teacher", "student", "master"] * 4


def test_with_everything_labelled_snowball_is_mean_teacher(tmp_path):
    longer = {**SNOWBALL["rounds"], "steps_per_epoch": 10}  # of five rounds: 50 steps
    same = {**SNOWBALL, "data": {**BASE["data"], "labels": "all"}, "rounds": longer}
    ours = train(tmp_path / "a", **same)
    teacher = {"name": "mean_teacher", "ema": {"end": 0.9}}
    theirs = train(
        tmp_path / "b",
        **{**same, "strategy": teacher, "discovery": {"name": "confident", "by": "teacher"}},
    )
    assert rows(ours.folder, "end")[0]["steps"] == 50
    one, two = weights(ours.folder), weights(theirs.folder)
    assert {k for k in one if not k.startswith("master/")} == set(two)
    assert all((one[k] == two[k]).all() for k in two)


def test_true_labels_of_unlabelled_images_never_reach_training(tmp_path, monkeypatch):
    plain = train(tmp_path / "plain", "data.split_seed=3", **SNOWBALL)
    with (plain.folder / "labelled.csv").open() as file:
        given = [int(r["row"]) for r in csv.DictReader(file)]
    load = Digits.load

    def shuffled(self):
        records = load(self)
        others = np.setdiff1d(np.arange(len(records)), given)
        truth = records.truth.copy()
        truth[others] = np.random.default_rng(0).permutation(truth[others])
        return Records(records.images, truth, records.classes, records.columns, records.names)

    from fewlabels.runs import training_data

    drawn = training_data.labelled_split
    monkeypatch.setattr(Digits, "load", shuffled)

    def same_rows(truth, rows, *more):  # the split is drawn from the truth: keep it
        found = drawn(truth, rows, *more)
        return found._replace(labelled=np.flatnonzero(np.isin(rows, given)))

    monkeypatch.setattr(training_data, "labelled_split", same_rows)
    other = train(tmp_path / "shuffled", "data.split_seed=3", **SNOWBALL)
    one, two = weights(plain.folder), weights(other.folder)
    assert all((one[k] == two[k]).all() for k in one)
    assert (
        rows(plain.folder, "evaluation")[-1]["error"]
        != rows(other.folder, "evaluation")[-1]["error"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("restart", ["never", "generation", "round"])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, restart):
    changes = {**SNOWBALL, "discovery": {"name": "confident", "fusion": "cascade"}}
    whole = train(
        tmp_path / "whole", f"rounds.restart={restart}", "train.checkpoint_every=1",
        "train.keep_checkpoints=99", "schedule.name=cosine", "train.log_every=1", **changes,
    ).folder  # fmt: skip
    for stop in (9, 18, 21):
        stopped = tmp_path / f"stopped-{stop}"
        shutil.copytree(whole, stopped)
        remove_checkpoints_after(stopped, stop)
        again = fewlabels.train(resume=stopped).folder
        one, two = weights(whole), weights(again)
        assert all((one[k] == two[k]).all() for k in one)
        assert rows(whole, "train") == rows(again, "train")


def test_weights_and_schedule_begin_again_where_the_recipe_says(tmp_path):
    run = train(
        tmp_path,
        "rounds.restart=generation",
        "schedule.name=cosine",
        "train.log_every=1",
        **SNOWBALL,
    )
    rates = [r["lr"] for r in rows(run.folder, "train")]
    assert len(rates) == 30
    assert rates[0] == rates[18] == 2e-3
    assert (np.diff(rates[:18]) < 0).all()
    assert (run.folder / "initial" / "modules.safetensors").is_file()


def arrays(folder):
    last = newest_checkpoint(folder)
    return np.load(last / "arrays.npz")


@pytest.mark.parametrize("oracle", ["true", "false"])
def test_oracle_labels_are_true_and_the_run_says_so(tmp_path, oracle, capsys):
    one = {**SNOWBALL["rounds"], "generations": 1, "rounds": 1}
    folder = train(tmp_path, f"rounds.oracle={oracle}", **{**SNOWBALL, "rounds": one}).folder
    (book,) = (folder / "ledger").glob("*.parquet")
    table = pq.read_table(book).to_pydict()
    assert table["truth"] != table["label"]
    used = arrays(folder)["labels"][table["row"]].tolist()  # digits: train rows are the first ones
    assert used == table["truth" if oracle == "true" else "label"]
    stamped = [oracle == "true"] * 3
    told = capsys.readouterr().out
    noted = [row.get("oracle", False) for row in rows(folder, "run") + rows(folder, "end")]
    assert [*noted, "ORACLE" in told] == stamped


def test_the_master_is_the_teacher_of_the_first_discovery_and_its_average_from_then_on(tmp_path):
    run = train(
        tmp_path, "train.checkpoint_every=1", "train.keep_checkpoints=99", "strategy.ema.end=0.5",
        "strategy.master_ema=0.75", **SNOWBALL,
    )  # fmt: skip
    places = [run.folder / f"checkpoints/step-{s:06d}" for s in range(6, 19)]
    steps = [load_file(place / "modules.safetensors") for place in places]
    weight = "{}/backbone.conv1.0.weight"
    master = steps[0][weight.format("teacher")]  # step 6: the round before the first discovery
    for state in steps[1:]:  # through the second discovery too, which makes no new one
        master = 0.75 * master + 0.25 * state[weight.format("teacher")]
        np.testing.assert_allclose(state[weight.format("master")], master, atol=1e-6)
    assert np.abs(master - steps[-1][weight.format("teacher")]).max() > 1e-4


def test_what_is_saved_is_the_model_of_the_smallest_validation_error(tmp_path):
    run = train(
        tmp_path, "evaluation.report=best", "data.validation=100", "evaluation.steps=1",
        "train.checkpoint_every=1", "train.keep_checkpoints=99", "optimizer.lr=0.2",
        strategy={"name": "supervised"},
    )  # fmt: skip
    found = rows(run.folder, "evaluation")
    best = min(found, key=lambda r: r["validation_error"])
    assert best["step"] < found[-1]["step"]  # so that the last weights would be wrong
    kept = load_file(run.folder / f"checkpoints/step-{best['step']:06d}/modules.safetensors")
    saved = load_file(run.folder / "model/model.safetensors")
    assert all((saved[k] == kept[f"student/{k}"]).all() for k in saved)
    assert rows(run.folder, "end")[0]["score"] == best["error"]


def test_no_image_is_tested_that_a_person_has_labelled(tmp_path, capsys):
    run = train(
        tmp_path, "data.split=all", "data.labels=3", "data.share=per_class", "data.validation=2",
        strategy={"name": "supervised"},
    )  # fmt: skip
    assert "test error of 1747 images; 30 labels and 20 for validation" in capsys.readouterr().out
    assert len(rows(run.folder, "evaluation")) == 1


def test_a_folder_with_a_few_labels_and_nothing_to_test_on_is_trained(tmp_path, capsys):
    images = Digits(warp=False).load()
    place = tmp_path / "photos"
    place.mkdir()
    for i in range(60):
        images.images[i].save(place / f"{i}.png")
    lines = [f"{i}.png,digit {images.truth[i] % 3}" for i in range(30)]
    (place / "labels.csv").write_text("\n".join(["file,label", *lines]))
    small = ["model.backbone=convnet3", "model.pretrained=false", "model.image_size=24"]
    small += ["rounds.steps_per_epoch=2", f"data.path={place}", "data.labels=all"]
    recipe = Path(__file__).parents[2] / "recipes" / "few_labels_folder.yaml"
    run = fewlabels.train(recipe, small, out=tmp_path)
    assert "nothing was scored" in capsys.readouterr().out
    found = rows(run.folder, "discovery")
    assert len(found) == 3
    assert sum(row["discovered"] for row in found) == 30  # of 60 images 30 had labels
    assert run.classifier().predict([place / "59.png"]).shape == (1, 3)


@pytest.mark.slow
def test_the_stop_rule_looks_at_validation_alone(tmp_path):
    run = train(tmp_path, "rounds.stop=0.99", "data.validation=50", **SNOWBALL)
    found = rows(run.folder, "evaluation")
    assert max(r["round"] for r in found) == 1  # the second round is within .99 of the first
    assert all("validation_error" in r for r in found)
    with (run.folder / "labelled.csv").open() as file:
        parts = [r["part"] for r in csv.DictReader(file)]
    assert (parts.count("labelled"), parts.count("validation")) == (50, 50)


def test_the_median_is_over_evaluations_within_rounds(tmp_path):
    run = train(
        tmp_path, "evaluation.steps=2", "evaluation.report=median", "rounds.epochs_per_round=2",
        strategy={"name": "supervised"},
    )  # fmt: skip
    assert [r["step"] for r in rows(run.folder, "evaluation")] == [2, 4, 6, 8, 10, 12, 12]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.labels=none"], "needs some labels; set data.labels to a number"),
        (["data.labels=55"], "55 cannot be shared equally by 10 classes"),
        (
            ["strategy.unlabelled=rest", "data.labels=all"],
            "every one has a label; lower data.labels, or set strategy.unlabelled: all",
        ),
        (["discovery=confident"], "looks through the master, which this strategy does not have"),
        (["discovery=kmeans"], "numbers its labels by itself"),
        (["rounds.stop=0.01"], "stop needs a validation split; set data.validation"),
        (["evaluation.report=best"], "best needs a validation split; set data.validation"),
    ],
)
def test_what_cannot_be_is_a_sentence(tmp_path, overrides, sentence):
    with pytest.raises(FewLabelsError, match=re.escape(sentence)):
        train(tmp_path, *overrides, strategy={"name": "mean_teacher"})


@pytest.mark.slow
def test_two_processes_train_as_one(in_one_and_two_processes):
    recipe = recipe_from(
        {**BASE, **SNOWBALL},
        [
            "rounds.generations=1",
            "rounds.rounds=2",
            "train.log_every=1",
            "model.freeze_batchnorm=statistics",
            "rounds.stop=1.0",
            "data.validation=50",
            "evaluation.report=best",
        ],
    )
    one, two = in_one_and_two_processes(recipe)
    assert rows(two, "run")[0]["processes"] == 2
    losses = [[r["loss"] for r in rows(folder, "train")] for folder in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-4)


@pytest.mark.slow
def test_running_statistics_of_averages_are_the_same_in_every_process(tmp_path):
    script = tmp_path / "norms.py"
    script.write_text(
        "import torch\n"
        "from accelerate import Accelerator\n"
        "from fewlabels.training.modules import TrainingModules\n"
        "from fewlabels.training.processes import leave_processes\n"
        "def check():\n"
        "    accelerator = Accelerator(cpu=True)\n"
        "    names = ('student', 'teacher')\n"
        "    modules = {n: torch.nn.Sequential(torch.nn.BatchNorm1d(2)) for n in names}\n"
        "    running = TrainingModules(modules, accelerator)\n"
        "    running.wrap_for_training('student')\n"
        "    for module in modules.values():\n"
        "        module(torch.full((4, 2), float(accelerator.process_index)))\n"
        "    running.average_buffers()\n"
        "    means = [round(float(m[0].running_mean[0]), 6) for m in modules.values()]\n"
        "    assert accelerator.num_processes == 2 and means == [0.05, 0.05], means\n"
        "check()\n"
        "leave_processes()\n"  # as a run does: else the interpreter's end may abort a process
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port",
         str(24500 + os.getpid() % 1000), str(script)],
        capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_validation_leaves_every_class_a_label(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    images = Digits(warp=False).load().images
    for i in range(6):
        images[i].save(place / f"{i}.png")
    lines = [f"{i}.png,{'a' if i < 4 else 'b'}" for i in range(6)]
    (place / "labels.csv").write_text("\n".join(["file,label", *lines]))
    data = {"source": "folder", "path": str(place), "labels": "all", "share": "per_class"}
    with pytest.raises(FewLabelsError, match="holds out every labelled image of class 'b'"):
        train(tmp_path, "data.validation=2", data=data, strategy={"name": "supervised"})
