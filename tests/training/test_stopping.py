"""Ctrl-C and SIGTERM: what a run has learnt is kept, and one line says how to go on."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from run_folders import newest_checkpoint, read_rows
from small import DIGITS

import fewlabels
from fewlabels.cli.main import main
from fewlabels.errors import FewLabelsError
from fewlabels.files import hold_file
from fewlabels.recipe.yaml_file import dump_yaml
from fewlabels.training.discover import Discoverer
from fewlabels.training.loop import Loop
from fewlabels.training.phase import PhaseTrainer
from fewlabels.training.run_folder import RunFolder
from fewlabels.training.stopping import handle_signals

RECIPE = DIGITS | {
    "name": "it",
    "losses": "multi_similarity",
    "strategy": {"name": "metric", "batch": 20, "per_class": 5},
    "rounds": {"rounds": 2, "steps_per_epoch": 4},
    "evaluation": {"before": False},
    "train": {"log_every": 1},
}
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody stops."""
    return fewlabels.train(RECIPE, out=tmp_path_factory.mktemp("whole")).folder


@pytest.fixture
def start(tmp_path, capsys):
    """Run the recipe by the command line; its exit code, folder and lines on stderr."""

    def run(*words):
        path = tmp_path / "it.yaml"
        path.write_text(dump_yaml(RECIPE))
        before = [signal.getsignal(number) for number in SIGNALS]
        code = main(["run", str(path), "--out", str(tmp_path), *words])
        assert [signal.getsignal(number) for number in SIGNALS] == before
        return code, tmp_path / "it", capsys.readouterr().err.splitlines()

    return run


def send(monkeypatch, owner, method, at, *numbers):
    """Send signals to this process as the method begins for the time ``at``."""
    original, calls = getattr(owner, method), [0]

    def watched(*given):
        calls[0] += 1
        if calls[0] == at:
            for number in numbers:
                os.kill(os.getpid(), number)
        return original(*given)

    monkeypatch.setattr(owner, method, watched)


def goes_on_to_the_same(folder, whole, monkeypatch):
    monkeypatch.undo()
    fewlabels.train(resume=folder)
    files = [RunFolder(each).model / "model.safetensors" for each in (folder, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()
    for kind in ("train", "discovery", "evaluation"):
        assert read_rows(folder, kind) == read_rows(whole, kind)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_run_after_its_step_saved(start, whole, monkeypatch, number):
    send(monkeypatch, PhaseTrainer, "_backward_batch", 3, number)
    code, folder, told = start()
    assert code == 128 + number
    assert told == [f"stopped; to go on: fewlabels run --resume {folder}"]
    assert newest_checkpoint(folder).name == "step-000003"
    goes_on_to_the_same(folder, whole, monkeypatch)


def test_a_launcher_that_adds_its_own_signal_does_not_cut_the_step_short(start, monkeypatch):
    send(monkeypatch, PhaseTrainer, "_backward_batch", 3, *SIGNALS, signal.SIGTERM)
    code, folder, _ = start()
    assert code == 130
    assert newest_checkpoint(folder).name == "step-000003"


def test_a_second_ctrl_c_ends_it_at_once(start, whole, monkeypatch):
    send(monkeypatch, PhaseTrainer, "_backward_batch", 7, signal.SIGINT, signal.SIGINT)
    code, folder, told = start()
    assert (code, len(told)) == (130, 1)
    assert newest_checkpoint(folder).name == "step-000004"
    goes_on_to_the_same(folder, whole, monkeypatch)


@pytest.mark.parametrize(
    ("owner", "method", "at", "step"),
    [
        (Discoverer, "discover_labels", 1, None),
        (Discoverer, "discover_labels", 2, "step-000004"),
        (Loop, "_evaluate_models", 1, "step-000004"),
        (Loop, "_evaluate_models", 2, "step-000008"),
    ],
)
def test_between_steps_too_nothing_is_lost(start, whole, monkeypatch, owner, method, at, step):
    send(monkeypatch, owner, method, at, signal.SIGTERM)
    code, folder, told = start()
    assert (code, len(told)) == (143, 1)
    assert [place.name for place in RunFolder(folder).list_checkpoints()][-1:] == [step][
        : bool(step)
    ]
    goes_on_to_the_same(folder, whole, monkeypatch)


def test_pretraining_is_stopped_and_goes_on_in_the_folder_of_the_run(start, monkeypatch):
    send(monkeypatch, PhaseTrainer, "_backward_batch", 3, signal.SIGTERM)
    code, folder, told = start("pretrain={name: rotation, epochs: 1, batch: 20}")
    assert code == 143
    assert told == [f"stopped; to go on: fewlabels run --resume {folder}"]
    assert newest_checkpoint(RunFolder(folder).pretrain.path).name == "step-000003"


def test_a_study_says_that_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    path = tmp_path / "it.yaml"
    path.write_text(dump_yaml(RECIPE))
    send(monkeypatch, PhaseTrainer, "_backward_batch", 3, signal.SIGINT)
    words = ["study", str(path), "--seeds", "4", "--runs", str(tmp_path / "runs")]
    assert main(words) == 130
    told = capsys.readouterr().err
    assert told == "stopped in it seed 4; the same command goes on with it\n"
    assert main(words) == 0


def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handle_signals(SIGNALS, pytest.fail):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


HOLD = """
import sys, time
from pathlib import Path
from fewlabels.files import hold_file
with hold_file(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_do_not_write_into_one_folder(whole, tmp_path):
    folder = tmp_path / "it"
    shutil.copytree(whole, folder)
    lock = RunFolder(folder).lock
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        before = {file: file.read_bytes() for file in folder.rglob("*.*") if file.is_file()}
        said = f"{folder} is being written by process {other.pid}; wait for its end, or stop it"
        with pytest.raises(FewLabelsError, match=said):
            fewlabels.train(resume=folder)
        assert before == {file: file.read_bytes() for file in before}
        other.kill()
        other.wait()
    with hold_file(lock, str(folder)):
        with pytest.raises(FewLabelsError, match="is being written by this process"):
            fewlabels.train(resume=folder)
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as other:
            assert b"is being written by process" in other.communicate()[1]
    fewlabels.train(resume=folder)
