"""What is printed reaches any pipe, and what the system refuses is a sentence."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewlabels.cli import components
from fewlabels.cli.main import main

LONG = "n" * 300
GOOD = "{data: {source: digits}, losses: multi_similarity}\n"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(GOOD)
    Path("photos").mkdir()
    return tmp_path


def start(*words, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "fewlabels", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **more},
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_letter_that_a_pipe_lacks_is_written_by_its_number(recipe, encoding):
    Path("猫.yaml").write_text(GOOD)
    out, error = start("check", "猫.yaml", PYTHONIOENCODING=encoding).communicate()
    assert error == b""
    shown = "猫" if encoding == "utf-8" else "\\u732b"
    assert out.decode(encoding).startswith(f"{shown}.yaml: good")


@pytest.mark.parametrize("words", [["list", "backbones"], ["check", "good.yaml"]])
def test_a_pipe_that_is_closed_ends_a_command_quietly(recipe, words):
    process = start(*words)
    process.stdout.close()  # as `| head` does
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), error) == (141, b"")


@pytest.mark.parametrize(
    "words",
    [
        ["check", LONG],
        ["check", "good.yaml", f"name={LONG}"],
        ["check", "good.yaml", f"model.weights={LONG}"],
        ["check", "good.yaml", "--import", LONG],
        ["run", LONG],
        ["run", "good.yaml", "--out", LONG],
        ["run", "--resume", LONG],
        ["run", "good.yaml", "data.source=folder", f"data.path={LONG}"],
        ["run", "good.yaml", "data.source=parquet", f"data.files={LONG}"],
        ["study", "good.yaml", "--out", LONG],
        ["study", "good.yaml", "--runs", LONG],
        ["embed", LONG, "photos", "-o", "x.parquet"],
        ["index", LONG, "photos", "-o", "x"],
        ["search", LONG, "x", "y"],
        ["predict", LONG, "photos", "-o", "x.csv"],
        ["export", LONG, "--onnx", "x.onnx"],
        ["show", LONG],
        ["evaluate", LONG],
        ["push", LONG, "--repo", "lab/x"],
        ["new", "discovery", LONG],
        ["list", LONG],
    ],
    ids=" ".join,
)
def test_a_name_that_no_file_can_have_is_a_sentence(words, recipe, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert len(error) < 2000


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            "a/b: Permission denied; choose a place that you may read and write",
        ),
        (OSError(errno.EROFS, "Read-only file system", b"a"), "a: Read-only file system; choose a"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Broken pipe"),  # of a process, not ours
        (OSError("said in words"), "said in words"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(error, sentence, monkeypatch, capsys):
    def refuse(*_):
        raise error

    monkeypatch.setattr(components, "list_components", refuse)
    assert main(["list"]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.startswith("a") or printed.startswith("test_output.py:")
    assert len(printed.splitlines()) == 1
