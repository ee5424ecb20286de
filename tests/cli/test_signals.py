"""Commands that a signal ends, as processes of their own: no traceback, and the shell's exit codes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from children import run_together
from run_folders import load_newest_modules, newest_checkpoint, read_rows
from small import DIGITS

from fewlabels.recipe.yaml_file import dump_yaml

pytestmark = pytest.mark.slow
RECIPE = DIGITS | {
    "name": "it",
    "losses": "multi_similarity",
    "model": {**DIGITS["model"], "freeze_batchnorm": "statistics"},
    "strategy": {"name": "metric", "batch": 20, "per_class": 5},
    "rounds": {"rounds": 2, "steps_per_epoch": 100},
    "evaluation": {"before": False, "every": 0},
    "train": {"log_every": 1, "checkpoint_every": 50},
}
SLEEPER = """
import time
from pathlib import Path
Path("asleep").touch()
time.sleep(60)
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_text(dump_yaml(RECIPE))
    return path


def start(tmp_path, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, words)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(seen, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not seen():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "words",
    [
        ["check", "it.yaml"],
        ["study", "it.yaml", "--runs", "runs"],
        ["embed", "model", "photos", "-o", "it.parquet"],
        ["index", "model", "photos", "-o", "it.index"],
    ],
    ids=lambda words: words[0],
)
def test_a_command_that_is_stopped_says_so_in_a_line(tmp_path, recipe, words, number):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    process = start(tmp_path, "fewlabels", *words, "--import", "sleeper")
    wait_for((tmp_path / "asleep").exists, process)
    process.send_signal(number)
    assert process.communicate(timeout=30)[1] == "stopped\n"
    assert process.returncode == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_run_ends_it_after_its_step(tmp_path, recipe, number):
    words = ["run", recipe, "data.memory=0", "data.workers=2", "--out", tmp_path]
    process = start(tmp_path, "fewlabels", *words)
    folder = tmp_path / "it"
    wait_for(lambda: len(read_rows(folder, "train")) > 5, process)
    os.killpg(process.pid, number)  # as a terminal does at Ctrl-C
    told = process.communicate(timeout=60)[1]
    assert told == f"stopped; to go on: fewlabels run --resume {folder}\n"
    assert process.returncode == 128 + number
    assert len(read_rows(folder, "train")) == int(newest_checkpoint(folder).name[5:]) < 200


def launch_two(tmp_path, port, *words):
    two = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    return start(tmp_path, *two, "-m", "fewlabels.run", *words)


def test_two_processes_end_at_the_same_step_and_go_on(tmp_path, recipe, port):
    codes, said = run_together(["run", recipe, "--out", tmp_path / "whole"], 2)
    assert codes == [0, 0], said
    process = launch_two(tmp_path, port, recipe, "--out", tmp_path)
    folder = tmp_path / "it"
    wait_for(lambda: len(read_rows(folder, "train")) > 5, process)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert told.count(f"stopped; to go on: fewlabels run --resume {folder}\n") == 1, told
    assert len(read_rows(folder, "train")) == int(newest_checkpoint(folder).name[5:]) < 200
    process = launch_two(tmp_path, port, "--resume", folder)
    assert process.wait(timeout=300) == 0, process.stderr.read()
    whole = tmp_path / "whole" / "it"
    assert read_rows(whole, "train") == read_rows(folder, "train")
    one, two = load_newest_modules(whole), load_newest_modules(folder)
    assert all((one[name] == two[name]).all() for name in one)


def test_workers_whose_launcher_was_killed_end_too(tmp_path, recipe, port):
    process = launch_two(tmp_path, port, recipe, "rounds.rounds=500", "--out", tmp_path)
    wait_for(lambda: read_rows(tmp_path / "it", "train"), process)
    workers = find_children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate(timeout=60)  # its pipes are closed once the last of them has ended
    assert {*(each for worker in workers for each in read_status(worker)[:1])} <= {"Z"}


def find_children(parent):
    places = Path("/proc").glob("[0-9]*")
    return [int(p.name) for p in places if read_status(p.name)[1:2] == [str(parent)]]


def read_status(process):
    """State and parent of a process; nothing for one that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return []
