"""Label propagation: the paper's equations plainly, and what it finds where distances fail."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fewlabels_label_propagation import LabelPropagation, diffuse
from scipy.stats import entropy
from sklearn.datasets import make_moons

import fewlabels
from fewlabels import discovery
from fewlabels.cli.main import main
from fewlabels.contracts import Pool
from fewlabels.errors import DataError
from fewlabels.ops.label_graph import connect_neighbours


def rng():
    return np.random.default_rng(0)


def directions(count=40, width=6):
    features = rng().normal(size=(count, width)).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def moons(count=400):
    """Two bent bands as seen from above, one label at the tip of each; its distance misleads."""
    flat, truth = make_moons(count, noise=0.05, random_state=0)
    features = np.c_[flat - flat.mean(0), np.full(count, 2)].astype(np.float32)
    labels = np.full(count, -1)
    for label, tip in enumerate((flat[:, 0].argmin(), flat[:, 0].argmax())):
        labels[tip] = truth[tip]
        assert truth[tip] == label
    return Pool(np.arange(count), features, labels, labels >= 0, classes=2), truth


def ask(pool, budget, name="label_propagation", **options):
    return discovery.get(name)(**options).discover(pool, budget, rng())


@pytest.mark.parametrize("mutual", [True, False])
def test_the_graph_holds_the_nearest_neighbours_one_by_one(mutual):
    features = directions()
    cosines = features @ features.T
    expected = np.zeros((40, 40))
    near = [set(np.argsort(-row)[1:6]) for row in cosines]  # the first is the sample itself
    for i in range(40):
        for j in range(40):
            edges = (j in near[i]) + (i in near[j])
            count = edges == 2 if mutual else edges
            expected[i, j] = count * max(0, cosines[i, j]) ** 3
    found = connect_neighbours(features, 5, 3.0, mutual)
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-6)


def test_diffusion_solves_the_dense_system():
    graph = connect_neighbours(directions(), 5, 3.0, mutual=False)
    known = np.zeros((40, 3))
    known[[0, 1, 2, 3], [0, 1, 2, 0]] = 1
    w = graph.toarray()
    root = np.diag(w.sum(1) ** -0.5)
    expected = np.linalg.solve(np.eye(40) - 0.99 * root @ w @ root, known)
    np.testing.assert_allclose(diffuse(graph, known, 0.99), expected, rtol=1e-3, atol=1e-5)


def test_labels_flow_along_bands_where_the_nearest_centre_misleads():
    pool, truth = moons()
    flowed, nearest = ask(pool, 300, neighbours=10), ask(pool, 300, "confident")
    assert len(flowed.indices) == 300
    assert (truth[flowed.indices] == flowed.labels).all()
    assert (truth[nearest.indices] != nearest.labels).mean() > 0.1
    assert np.bincount(flowed.labels).tolist() == [150, 150]


def test_the_scores_are_the_entropies_of_what_arrives_and_the_surest_come_first():
    features, labels = directions(), np.full(40, -1)
    labels[:6] = [0, 1, 2, 0, 1, 2]
    pool = Pool(np.arange(40), features, labels, labels >= 0)
    found = ask(pool, 34, neighbours=5, balance=False)
    known = np.eye(3)[labels] * (labels >= 0)[:, None]
    spread = diffuse(connect_neighbours(features, 5, 3.0, mutual=False), known, 0.99)[found.indices]
    np.testing.assert_allclose(found.scores, 1 - entropy(spread, base=3, axis=1), atol=1e-5)
    assert found.labels.tolist() == spread.argmax(1).tolist()
    assert found.weights is None
    weighed = ask(pool, 34, neighbours=5, balance=False, weigh=True)
    assert weighed.weights.tolist() == found.scores.tolist()  # the paper's weight, Eq. 11
    few = ask(pool, 10, neighbours=5, balance=False)
    assert set(few.indices) == set(found.indices[np.argsort(-found.scores)[:10]])


def test_what_no_label_reaches_is_not_labelled():
    islands = np.eye(3, dtype=np.float32).repeat(10, 0)  # three places at right angles
    labels = np.full(30, -1)
    labels[[0, 10]] = 0, 4
    found = ask(Pool(np.arange(30), islands, labels, labels >= 0), 30, neighbours=4)
    assert set(found.indices) == {*range(1, 10), *range(11, 20)}
    assert found.labels.tolist() == [0] * 9 + [4] * 9


def test_one_known_class_and_more_neighbours_than_samples_are_no_failure():
    labels = np.full(40, -1)
    labels[0] = 7
    found = ask(Pool(np.arange(40), directions(), labels, labels >= 0), 5, neighbours=500)
    assert found.labels.tolist() == [7] * 5


def test_a_pool_without_labels_or_with_bad_features_is_a_sentence():
    pool, _ = moons()
    with pytest.raises(DataError, match=r"needs labelled samples to start from; set data\.labels"):
        ask(replace(pool, labels=np.full(400, -1)), 10)
    pool.features[3] = np.nan
    with pytest.raises(DataError, match="features that are not finite"):
        ask(pool, 10)


def test_the_recipe_runs_and_labels_what_its_budget_allows(tmp_path):
    recipe = Path(__file__).parents[1] / "digits.yaml"
    small = ["rounds.rounds=2", "rounds.steps_per_epoch=3", "rounds.first_epochs=1"]
    run = fewlabels.train(recipe, small, out=tmp_path)
    rows = map(json.loads, (run.folder / "metrics.jsonl").read_text("utf-8").splitlines())
    told = [(r["discovery"], r["discovered"]) for r in rows if r["kind"] == "discovery"]
    assert told == [("label_propagation", 20), ("label_propagation", 40)]


def test_it_is_listed_with_its_distribution(capsys):
    assert main(["list", "discovery"]) == 0
    assert ["label_propagation", "fewlabels-label-propagation"] in [
        line.split()[:2] for line in capsys.readouterr().out.splitlines()
    ]
    assert discovery.get("label_propagation") is LabelPropagation
