"""Labels of an earlier run: found again by names, in another order, with other classes."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest

import fewlabels
from fewlabels.components.discovery.ledger import Ledger
from fewlabels.contracts import Discovered, Pool, Records
from fewlabels.errors import DataError
from fewlabels.training.ledger import write_ledger
from fewlabels.training.run_folder import RunFolder

NAMES, CLASSES = list("ABCDEF"), ("cat", "dog", "eel")


def make_pool(names=NAMES, classes=CLASSES, labels=None):
    labels = np.full(len(names), -1) if labels is None else np.array(labels)
    seen = np.zeros((len(names), 0), np.float32)
    rows = np.arange(len(names))
    return Pool(rows, seen, labels, labels >= 0, names=names, class_names=classes)


@pytest.fixture
def write(tmp_path):
    """Writes a round of a ledger; of the images at ``indices``, in the order of NAMES."""
    records = Records([None] * 6, np.full(6, -1), CLASSES, names=NAMES)

    def write(number, indices, labels, scores, before=(), **more):
        pool = make_pool()
        pool.labels[list(before)] = 0
        weights = np.array(scores, np.float32) / 2
        found = Discovered(
            np.array(indices), np.array(labels), np.array(scores), weights=weights, **more
        )
        write_ledger(tmp_path / f"round-{number:03}-x.parquet", found, pool, records, number, "x")

    return write


def ask(pool, tmp_path, budget=99, **options):
    found = Ledger(path=str(tmp_path), **options).discover(pool, budget, np.random.default_rng(0))
    weights = [None] * len(found.indices) if found.weights is None else found.weights.tolist()
    return [
        (pool.names[i], pool.class_names[label], weight)
        for i, label, weight in zip(found.indices, found.labels, weights)
    ]


def test_images_and_classes_are_found_by_name(write, tmp_path):
    write(1, [0, 3], [2, 1], [0.8, 0.4])
    pool = make_pool(["D", "new", "A"], ("ant", "cat", "dog", "eel"))
    assert ask(pool, tmp_path) == [
        ("D", "dog", pytest.approx(0.2)),
        ("A", "eel", pytest.approx(0.4)),
    ]
    assert ask(pool, tmp_path, weigh=False) == [("D", "dog", None), ("A", "eel", None)]


def test_a_person_s_label_stays_and_the_surest_come_first(write, tmp_path):
    write(1, [0, 1, 2, 3], [0, 1, 2, 0], [0.1, 0.9, 0.5, 0.7])
    pool = make_pool(labels=[-1, 2, -1, -1, -1, -1])
    found = ask(pool, tmp_path, budget=2, weigh=False)
    assert [name for name, _, _ in found] == ["C", "D"]


def test_what_is_discovered_last_counts(write, tmp_path):
    write(1, [0, 1], [0, 0], [0.5, 0.5])
    write(2, [2], [1], [0.5], before=[0, 1])
    assert [name for name, _, _ in ask(make_pool(), tmp_path)] == ["A", "B", "C"]
    write(3, [1], [2], [0.5], before=[0, 1, 2], merge="replace")
    assert ask(make_pool(), tmp_path, weigh=False) == [("B", "eel", None)]
    write(4, [4], [1], [0.5])  # a generation that began with the given labels alone
    assert ask(make_pool(), tmp_path, weigh=False) == [("E", "dog", None)]


def test_what_does_not_fit_is_told(write, tmp_path):
    with pytest.raises(DataError, match=r"no round-\*.parquet"):
        ask(make_pool(), tmp_path / "nowhere")
    write(1, [0], [2], [0.5])
    with pytest.raises(DataError, match="none of its .* is among those that train"):
        ask(make_pool(["X", "Y"]), tmp_path)
    with pytest.raises(DataError, match="eel are none of these data's"):
        ask(make_pool(classes=("cat", "dog")), tmp_path)
    (tmp_path / "round-002-x.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="round-002-x.parquet: no ledger that can be read"):
        ask(make_pool(), tmp_path)


RECIPE = {
    "data": {"source": "digits", "labels": 40},
    "model": {"backbone": "convnet3", "image_size": 16, "backbone_options": {"width": 0.25}},
    "strategy": {"name": "supervised", "labelled": 8},
    "discovery": {"name": "by_prediction", "by": "student", "weigh": True},
    "rounds": {"rounds": 2, "steps_per_epoch": 2},
}


def test_a_run_begins_with_the_labels_of_another(tmp_path):
    first = fewlabels.train(RECIPE, out=tmp_path).folder
    again = {"name": "ledger", "path": str(RunFolder(first).ledger)}
    more = {"discovery": again, "rounds": {"growth": "all", "steps_per_epoch": 2}}
    second = fewlabels.train({**RECIPE, **more}, out=tmp_path).folder
    rows = [
        [row for row in RunFolder(f).read_metrics() if row["kind"] == "discovery"]
        for f in (first, second)
    ]
    assert [row["discovered"] for row in rows[0]] == [40, 80]
    assert [row["discovered"] for row in rows[1]] == [120]


def test_the_seed_in_a_path_is_that_of_the_run(tmp_path):
    data = {"source": "digits", "labels": 50}
    model = {"backbone": "convnet3", "image_size": 16}
    base = {"data": data, "model": model, "strategy": "supervised"}
    base |= {"rounds": {"rounds": 1, "steps_per_epoch": 1, "growth": "all"}}
    base |= {"evaluation": {"before": False, "every": 0}}
    found = {**base, "name": "found", "discovery": {"name": "by_prediction", "by": "student"}}
    first = [fewlabels.train(found, [f"seed={seed}"], out=tmp_path).folder for seed in (0, 1)]
    named = [first[0].rename(tmp_path / "s-0"), first[1].rename(tmp_path / "s-1")]
    later = {**base, "discovery": {"name": "ledger", "path": f"{tmp_path}/s-{{seed}}/ledger"}}
    for seed, folder in enumerate(named):
        again = fewlabels.train(
            {**later, "name": f"later-{seed}"}, [f"seed={seed}"], out=tmp_path
        ).folder
        tables = [
            next((place / "ledger").glob("*.parquet")).read_bytes() for place in (folder, again)
        ]
        rows = [pq.read_table(io.BytesIO(t), columns=["row", "label"]).to_pydict() for t in tables]
        assert rows[0] == rows[1]
    assert "{seed}" in (again / "recipe.yaml").read_text()
