"""Whole runs, as a person starts them: real data, real processes, real files."""

import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from children import run_together, start_command
from run_folders import newest_checkpoint, read_rows, remove_checkpoints_after
from safetensors.numpy import load_file

import fewlabels
from fewlabels import registry
from fewlabels.contracts import Discovered, Needs
from fewlabels.errors import FewLabelsError

RECIPES = Path(__file__).parents[2] / "recipes"
QUICK = [str(RECIPES / "quickstart.yaml")]
SMALL = ["rounds.rounds=2", "rounds.epochs_per_round=2", "rounds.steps_per_epoch=6"]


def launch(*command, **environment):
    """Run a module in processes of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(folder, kind):
    return read_rows(folder, kind)


@pytest.mark.slow
def test_quickstart_retrieves_better_than_pixels_and_than_before(tmp_path):
    printed = launch("fewlabels.run", *QUICK, "--out", tmp_path)
    scores = {row["model"]: row["recall@1"] for row in rows(tmp_path / "quickstart", "evaluation")}
    assert 0.58 <= scores["pixels"] <= 0.68
    assert scores["trained"] > max(scores["pixels"], scores["untrained"]) + 0.1
    assert "raw pixels" in printed
    assert "embedder after training" in printed
    assert f"run folder: {tmp_path / 'quickstart'}" in printed


def test_a_run_folder_is_the_whole_truth(tmp_path):
    result = fewlabels.train(QUICK[0], SMALL, out=tmp_path)
    assert result.folder == tmp_path / "quickstart"
    (facts,) = rows(result.folder, "run")
    assert {"recipe", "seed", "device", "processes", "torch", "timm", "fewlabels"} <= set(facts)
    assert len(list((result.folder / "ledger").glob("*.parquet"))) == 2
    assert [row["round"] for row in rows(result.folder, "discovery")] == [0, 1]
    again = fewlabels.load_recipe(result.folder / "recipe.yaml")
    assert again.hash == facts["recipe"]
    embedder = result.embedder()
    images = np.zeros((2, 24, 24, 3), np.uint8)
    assert embedder.encode(list(images)).shape == (2, 64)
    with pytest.raises(FewLabelsError, match="no scores of 'train'"):
        result.score("train")


def test_a_second_run_overwrites_nothing(tmp_path):
    quick = [*SMALL, "rounds.rounds=1", "evaluation.before=false", "evaluation.pixels=false"]
    first = fewlabels.train(QUICK[0], quick, out=tmp_path)
    second = fewlabels.train(QUICK[0], quick, out=tmp_path)
    assert (first.folder.name, second.folder.name) == ("quickstart", "quickstart-2")
    one, two = (load_file(r.folder / "model" / "model.safetensors") for r in (first, second))
    assert all((one[key] == two[key]).all() for key in one)


@pytest.mark.slow
def test_true_labels_never_reach_training_without_labels(tmp_path, monkeypatch):
    from fewlabels.components.sources.digits import Digits

    quick = [*SMALL, "evaluation.before=false", "evaluation.pixels=false"]
    first = fewlabels.train(QUICK[0], quick, out=tmp_path)
    load = Digits.load

    def shuffled(self):
        records = load(self)
        np.random.default_rng(0).shuffle(records.truth)
        return records

    monkeypatch.setattr(Digits, "load", shuffled)
    second = fewlabels.train(QUICK[0], quick, out=tmp_path)
    one, two = (load_file(r.folder / "model" / "model.safetensors") for r in (first, second))
    assert all((one[key] == two[key]).all() for key in one)
    assert first.score() != second.score()


def test_supervised_metric_learning_is_the_same_strategy_with_labels(tmp_path):
    result = fewlabels.train(
        QUICK[0], [*SMALL, "data.labels=all", "discovery=null", "losses=pml:proxy_anchor_loss"],
        out=tmp_path,
    )  # fmt: skip
    assert result.score() > result.score("untrained")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.labels=all"], "numbers its labels by itself"),
        (["optimizer.factors={student.haed: 3}"], "did you mean 'student.head'?"),
        (["strategy.head=pca", "model.embedding_size=null"], "pca needs a head"),
    ],
)
def test_what_cannot_be_trained_is_told_before_images_are_decoded(
    tmp_path, monkeypatch, overrides, sentence
):
    from fewlabels.data.pixels import Pixels

    monkeypatch.setattr(Pixels, "decode_all", None)
    with pytest.raises(FewLabelsError, match=re.escape(sentence)):
        fewlabels.train(QUICK[0], overrides, out=tmp_path)


def test_a_file_in_the_place_of_run_folders_is_refused(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(FewLabelsError, match="run folders cannot be made in"):
        fewlabels.train(QUICK[0], SMALL, out=tmp_path / "runs")


class Growing:
    """Labels a few more samples a round, so that epochs grow longer."""

    classes = 3

    def __init__(self, *, fail: bool = False) -> None:
        self.fail = fail

    def needs(self):
        return Needs("student")

    def discover(self, pool, budget, rng):
        if self.fail:
            raise KeyError("inside a plugin")
        free = np.flatnonzero(pool.labels < 0)[:180]
        return Discovered(free, free % 3, np.ones(len(free), np.float32))


@pytest.mark.slow
def test_a_schedule_goes_on_exactly_when_epochs_grow(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.discovery._registered, "growing", {__name__: Growing})
    grows = ["discovery=growing", "rounds.rounds=3", "rounds.epochs_per_round=2"]
    grows += ["schedule.name=cosine", "evaluation.before=false", "evaluation.pixels=false"]
    grows += ["train.checkpoint_every=1", "train.keep_checkpoints=99", "train.log_every=1"]
    whole = fewlabels.train(QUICK[0], grows, out=tmp_path / "whole").folder
    trained = rows(whole, "train")
    assert len(trained) == 2 * (3 + 6 + 9)
    progress = [
        (i // n + i % n / n + 2 * r) / 6 for r, n in enumerate((3, 6, 9)) for i in range(2 * n)
    ]
    expected = [1e-3 * 0.5 * (1 + math.cos(math.pi * p)) for p in progress]
    np.testing.assert_allclose([row["lr"] for row in trained], expected, rtol=1e-3, atol=1e-7)
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    remove_checkpoints_after(stopped, 10)
    again = fewlabels.train(resume=stopped).folder
    one, two = (folder / "model/model.safetensors" for folder in (whole, again))
    assert one.read_bytes() == two.read_bytes()
    assert [row["lr"] for row in rows(again, "train")] == [row["lr"] for row in trained]


def test_a_discovery_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.discovery._registered, "growing", {__name__: Growing})
    with pytest.raises(
        FewLabelsError, match=r"discovery 'growing' failed with KeyError.*test_train.py"
    ):
        fewlabels.train(QUICK[0], ["discovery={name: growing, fail: true}"], out=tmp_path)


@pytest.mark.slow
def test_two_runs_in_one_process_of_many(tmp_path):
    script = tmp_path / "twice.py"
    script.write_text(
        "import fewlabels, sys\n"
        "for out in 'ab':\n"
        f"    fewlabels.train({QUICK[0]!r}, {[*SMALL, 'evaluation.before=false']!r}, out=sys.argv[1] + out)\n"
    )
    launch("torch.distributed.run", "--nproc_per_node", 2, "--master_port", 26500 + os.getpid() % 1000,
           script, tmp_path / "out", ACCELERATE_USE_CPU="true")  # fmt: skip
    one, two = (tmp_path / f"out{n}/quickstart/model/model.safetensors" for n in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_an_average_of_the_weights_is_what_is_saved(tmp_path):
    result = fewlabels.train(QUICK[0], [*SMALL, "strategy.average=0.9"], out=tmp_path)
    last = newest_checkpoint(result.folder)
    kept, saved = (
        load_file(last / "modules.safetensors"),
        load_file(result.folder / "model/model.safetensors"),
    )
    assert (saved["head.weight"] == kept["average/head.weight"]).all()
    assert (saved["head.weight"] != kept["student/head.weight"]).any()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path):
    long = [*QUICK, "rounds.rounds=3", "rounds.epochs_per_round=2", "rounds.steps_per_epoch=10"]
    long += ["evaluation.before=false", "evaluation.pixels=false", "train.checkpoint_every=4"]
    long += ["strategy.momentum=0.9"]
    start = time.monotonic()
    codes, said = run_together(["run", *long, "--out", tmp_path / "whole"], 1)
    assert codes == [0], said
    whole = time.monotonic() - start
    folder = tmp_path / "killed" / "quickstart"
    moments = random.Random(7)
    words = ["run", *long, "--out", tmp_path / "killed"]
    for _ in range(3):
        run = start_command(words, tmp_path / "said.txt")
        deadline = time.monotonic() + 60
        before = set((folder / "checkpoints").glob("step-*"))
        while set((folder / "checkpoints").glob("step-*")) <= before:
            assert time.monotonic() < deadline
            if not run.is_alive():
                break
            time.sleep(0.02)
        time.sleep(moments.uniform(0, whole / 30))
        run.kill()
        run.join()
        words = ["run", "--resume", folder]
    codes, said = run_together(words, 1)
    assert codes == [0], said
    one, two = (tmp_path / "whole" / "quickstart", folder)
    assert (one / "model/model.safetensors").read_bytes() == (
        two / "model/model.safetensors"
    ).read_bytes()
    assert [(r["step"], r["loss"]) for r in rows(one, "train")] == [
        (r["step"], r["loss"]) for r in rows(two, "train")
    ]


@pytest.mark.slow
def test_a_batch_that_processes_cannot_share_is_refused(tmp_path):
    words = [
        "run",
        *QUICK,
        "strategy.batch=55",
        "evaluation.pixels=false",
        "evaluation.before=false",
    ]
    codes, said = run_together([*words, "--out", tmp_path], 2)
    assert all(codes)
    assert "2 processes cannot share equally; change batch" in said
