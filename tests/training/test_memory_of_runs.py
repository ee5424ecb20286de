"""A run of many rounds takes no more memory, and opens no more files, than one of few."""

import os
from pathlib import Path

import pytest
from small import DIGITS

from fewlabels.recipe.recipe import recipe_from
from fewlabels.runs.assemble import assemble_run

RECIPE = DIGITS | {
    "losses": "multi_similarity",
    "strategy": {"name": "metric", "batch": 16, "per_class": 4},
    "rounds": {"rounds": 200, "steps_per_epoch": 1},
    "evaluation": {"before": False, "every": 20},
    "train": {"log_every": 1},
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_rounds(tmp_path):
    pages, files = [], []

    def look(said):
        if said.startswith("round"):
            pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
            files.append(len(os.listdir("/proc/self/fd")))

    assemble_run(recipe_from(RECIPE), tmp_path, None, look)
    assert len(pages) == 200
    print("pages of memory at rounds 20, 100, 200:", pages[19], pages[99], pages[199])
    assert pages[199] == pytest.approx(pages[19], rel=0.05)
    assert files[199] == files[19]
