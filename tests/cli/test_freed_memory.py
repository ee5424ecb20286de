"""Freed memory stays in the process of a command, unless the person has chosen otherwise."""

import os
import subprocess
import sys

import pytest

COUNT = """
import resource
import numpy as np
from fewlabels.cli.main import main
main(["list", "blocks"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(100_000_000 // 8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_fetched_pages(**variables: str) -> int:
    """Pages that ten tensors of 100 MB fetch, one after the other, in a command's process."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=plain | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_a_command_fetches_the_pages_of_large_tensors_once():
    ten_times = count_fetched_pages(MALLOC_TRIM_THRESHOLD_="131072")
    assert count_fetched_pages() < 0.3 * ten_times
    assert count_fetched_pages(MALLOC_ARENA_MAX="2") < 0.3 * ten_times  # it says nothing of this
    assert (
        count_fetched_pages(GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072") > 0.5 * ten_times
    )
