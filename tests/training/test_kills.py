"""A run that is killed at any moment goes on to the same weights, ledger and metrics.

Two strategies at every eighth operation; with ``FEWLABELS_KILLS=all`` all strategies at every one. A
table is added to ``$FEWLABELS_KILLS_OUT``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from killing import CASES

ALL = os.environ.get("FEWLABELS_KILLS") == "all"
CHOSEN, EVERY = (list(CASES), 1) if ALL else (["metric", "snowball"], 8)
MOMENTS = 20 if ALL else 6


@pytest.mark.slow
@pytest.mark.parametrize("case", CHOSEN)
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, case):
    harness = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, harness, tmp_path, case, str(MOMENTS), str(EVERY)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    if out := os.environ.get("FEWLABELS_KILLS_OUT"):
        survived = found["kills"] - len(found["differences"])
        with Path(out).open("a") as table:
            table.write(f"| {case} | {found['operations']} | {found['kills']} | {survived} |\n")
    assert not found["differences"]
    assert found["operations"] > 50
    assert found["kills"] > found["operations"] / EVERY
