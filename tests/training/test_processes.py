"""One process and two train to the same weights, with the same global batch.

Batch norms use fixed statistics, since those of half a batch differ from those of the whole. SGD is
used: Adam divides gradients by their own size, and so makes rounding errors of small ones large.

The table of all strategies: ``pytest -s tests/training/test_processes.py``.
"""

import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from fewlabels.registry import REGISTRIES
from fewlabels.testing.runs import in_two_processes, run_of
from fewlabels.testing.subject import Subject
from fewlabels.training.run_folder import RunFolder

STEPS = 20
STRATEGIES = REGISTRIES["strategies"]
FEW = {"labelled": 8, "batch": 8}
PAIRS = {"batch": 8, "per_class": 2}
OPTIONS = {
    "metric": {**PAIRS, "momentum": 0.9, "average": 0.9},
    "rotation": {"epochs": 2, "batch": 8},
    "tac_ccl": PAIRS,
}
RECIPES = {
    "tac_ccl": {
        "blocks": {"name": "cbam", "after": "conv2", "reduction": 4},
        "losses": ["multi_similarity", "contrastive_clustering", "attention_consistency"],
    }
}
ALL = os.environ.get("FEWLABELS_PROCESSES") == "all"
ROUNDING = (1e-6, "rounding")
GROWING = (1e-3, "rounding, which the memory of past embeddings and the clusters carry on")
MIXING = (5e-2, "by design: a process mixes each image with one of its own part of the batch")
BOUNDS = {
    "ict": MIXING,
    "lmcs": MIXING,
    "mean_teacher": ROUNDING,
    "metric": GROWING,
    "mixmatch": MIXING,
    "mixup": MIXING,
    "pi_model": ROUNDING,
    "pseudo_label": ROUNDING,
    "rotation": ROUNDING,
    "snowball": ROUNDING,
    "supervised": ROUNDING,
    "tac_ccl": GROWING,
    "temporal_ensembling": ROUNDING,
    "vat": (1e-2, "by design: a process draws the directions of its own images"),
}
CLOSED_FORMS = {"fine_tune", "lda", "nearest_mean"}
"""Their layer is compared in tests/components/strategies/test_closed_form.py."""
UNMIXED = {f"unmixed_{name}": ROUNDING for name, bound in BOUNDS.items() if "design" in bound[1]}
"""The same strategies without what is by design: rounding alone is left."""


def make_subject(name):
    base = name.removeprefix("unmixed_")
    recipe = {
        "optimizer": {"name": "sgd", "lr": 0.01},
        "rounds": {"rounds": 2, "steps_per_epoch": 10},
        **RECIPES.get(base, {}),
    }
    return Subject(STRATEGIES, name, OPTIONS.get(base, FEW), recipe)


@pytest.fixture(scope="module", autouse=True)
def unmixed_strategies(built_in):
    import unmixed

    yield
    for name in unmixed.BASES:
        del STRATEGIES._registered[f"unmixed_{name}"]


@pytest.fixture(scope="module")
def table():
    rows = []
    yield rows
    print("\n| strategy | after step 1 | largest after step 20 | steps | reason |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        print("| {} | {:.1e} | {:.1e} | {} | {} |".format(*row))


def check_weights(name, together, table):
    """Compare one strategy, which is started in two processes with all those ``together``."""
    subject = make_subject(name)
    one, two = run_of(subject), in_two_processes(subject, [make_subject(n) for n in together])
    assert two.read_rows("run")[0]["processes"] == 2
    parts = [part for part in ("pretrain", ".") if (one.folder / part / "checkpoints").is_dir()]
    differences = {}
    last = find_last_step(one.folder, two.folder)
    for part in parts:
        places = [RunFolder(run.folder / part).list_checkpoints() for run in (one, two)]
        for ours, theirs in zip(*places, strict=True):
            step = int(ours.name.rpartition("-")[2])
            if step <= last:
                differences[part, step] = measure_difference(ours, theirs)
    bound, reason = {**BOUNDS, **UNMIXED}[name]
    if last < STEPS:
        reason += f"; from step {last + 1} on the discovery gave an image another label"
    worst = max(differences.values())
    table.append((name, differences[parts[0], 1], worst, last, reason))
    assert worst <= bound
    assert last >= STEPS / 2


def measure_difference(ours, theirs):
    """The largest absolute difference of a number in the modules of two checkpoints."""
    one, two = (load_file(place / "modules.safetensors") for place in (ours, theirs))
    assert one.keys() == two.keys()
    return max(float(np.abs(one[key].astype(np.float64) - two[key]).max()) for key in one)


def find_last_step(one, two):
    """The last step before two runs were given other labels; rounding can move one image."""
    for ours, theirs in zip(*(sorted(RunFolder(run).ledger.glob("*")) for run in (one, two))):
        tables = [pq.read_table(path, columns=["row", "label"]) for path in (ours, theirs)]
        if not tables[0].equals(tables[1]):
            begun = pq.read_table(ours, columns=["round"])["round"][0].as_py()
            steps = [row for row in RunFolder(one).read_metrics() if row["kind"] == "train"]
            return min(STEPS, sum(row["round"] < begun for row in steps))
    return STEPS


def test_every_strategy_has_its_bound():
    registered = STRATEGIES._registered.items()  # by name, by module
    ours = {name for name, own in registered if any(m.startswith("fewlabels.") for m in own)}
    assert ours == set(BOUNDS) | CLOSED_FORMS


@pytest.mark.parametrize("name", ["mean_teacher", "metric"])
def test_two_processes_train_two_strategies_to_the_weights_of_one(name, table):
    check_weights(name, ["mean_teacher", "metric"], table)


@pytest.mark.skipif(not ALL, reason="conformance compares them; FEWLABELS_PROCESSES=all does here")
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*BOUNDS, *UNMIXED} - {"mean_teacher", "metric"}))
def test_two_processes_train_to_the_weights_of_one(name, table):
    check_weights(name, [*BOUNDS, *UNMIXED], table)
