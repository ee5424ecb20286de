from dataclasses import replace

import numpy as np
import pytest

from fewlabels.components.discovery.by_prediction import ByPrediction
from fewlabels.components.discovery.confident import Confident
from fewlabels.contracts import Pool
from fewlabels.errors import DataError


def pool(seed=0, count=60, classes=4, history=0, given=3):
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % classes
    places = rng.normal(size=(classes, 5))
    sets = [
        (places[truth] + rng.normal(size=(count, 5))).astype(np.float32) for _ in range(1 + history)
    ]
    labels = np.where(np.arange(count) < given * classes, truth, -1)
    probabilities = rng.dirichlet(np.ones(classes), count).astype(np.float32)
    return Pool(
        np.arange(count), sets[0], labels, labels >= 0, probabilities=probabilities,
        history=tuple(sets[1:]),
    )  # fmt: skip


def plainly(features, labels):
    """Nearest centre and distance of each unlabelled sample, one after the other (Eq. 2.8)."""
    centres = {n: features[labels == n].mean(0) for n in set(labels[labels >= 0])}
    result = {}
    for i in np.flatnonzero(labels < 0):
        far = {n: float(np.sqrt(((features[i] - c) ** 2).sum())) for n, c in centres.items()}
        result[int(i)] = (min(far, key=far.get), far)
    return result


def ask(component, pool, budget=8):
    return component.discover(pool, budget, np.random.default_rng(0))


@pytest.mark.parametrize("select", ["min", "max"])
@pytest.mark.parametrize("factor", [1.0, 3.0, None])
def test_the_nearest_or_the_farthest_of_the_confident_pool(select, factor):
    given = pool()
    expected = plainly(given.features, given.labels)
    order = sorted(expected, key=lambda i: expected[i][1][expected[i][0]])
    confident = order if factor is None else order[: int(8 * factor)]
    wanted = confident[:8] if select == "min" else confident[-8:]
    found = ask(Confident(normalise=False, select=select, pool_factor=factor), given)
    assert found.indices.tolist() == sorted(wanted)
    assert found.labels.tolist() == [expected[i][0] for i in sorted(wanted)]
    np.testing.assert_allclose(
        found.scores, [-expected[i][1][expected[i][0]] for i in sorted(wanted)], rtol=1e-5
    )


def test_random_stays_within_the_confident_pool_and_follows_the_generator():
    given = pool()
    inner = set(ask(Confident(normalise=False), given, 24).indices)
    component = Confident(normalise=False, select="random", pool_factor=3)
    first = ask(component, given)
    assert set(first.indices) < inner
    assert first.indices.tolist() == ask(component, given).indices.tolist()
    other = component.discover(given, 8, np.random.default_rng(1))
    assert first.indices.tolist() != other.indices.tolist()


def test_balance_takes_the_same_number_of_each_class():
    found = ask(Confident(normalise=False, balance=True), pool(seed=3))
    assert np.bincount(found.labels, minlength=4).tolist() == [2, 2, 2, 2]


def test_distances_cascades_and_ranks_of_three_models():
    given = pool(history=2)
    sets = [given.features, *given.history]
    each = [plainly(features, given.labels) for features in sets]
    free = sorted(each[0])
    mean = {i: {n: np.mean([e[i][1][n] for e in each]) for n in each[0][i][1]} for i in free}
    wanted = sorted(free, key=lambda i: min(mean[i].values()))[:8]
    found = ask(Confident(normalise=False, fusion="distance"), given)
    assert found.indices.tolist() == sorted(wanted)
    assert found.labels.tolist() == [min(mean[i], key=mean[i].get) for i in sorted(wanted)]
    together = plainly(np.concatenate(sets, 1), given.labels)
    wanted = sorted(free, key=lambda i: together[i][1][together[i][0]])[:8]
    assert ask(Confident(normalise=False, fusion="cascade"), given).indices.tolist() == sorted(
        wanted
    )
    places = []
    for e in each:
        order = sorted(free, key=lambda i, e=e: e[i][1][e[i][0]])
        places.append({i: order.index(i) for i in free})
    sums = {i: sum(p[i] for p in places) for i in free}
    found = ask(Confident(normalise=False, fusion="rank"), given)
    assert max(sums[i] for i in found.indices) <= sorted(sums.values())[8]
    assert found.labels.tolist() == [each[0][i][0] for i in found.indices]
    assert Confident(normalise=False, fusion="rank").needs().history == 2


def test_the_budget_and_the_labelled_are_kept_to():
    given = pool()
    assert len(ask(Confident(normalise=False), given, 0).indices) == 0
    found = ask(Confident(normalise=False), given, 10**6)
    assert found.indices.tolist() == np.flatnonzero(given.labels < 0).tolist()


def test_prediction_takes_the_surest():
    given = pool()
    free = np.flatnonzero(given.labels < 0)
    wanted = sorted(free, key=lambda i: -given.probabilities[i].max())[:8]
    found = ask(ByPrediction(), given)
    assert found.indices.tolist() == sorted(wanted)
    assert found.labels.tolist() == [given.probabilities[i].argmax() for i in sorted(wanted)]
    with pytest.raises(DataError, match="needs a classifier's probabilities"):
        ask(ByPrediction(), Pool(given.rows, given.features, given.labels, given.given))


def test_nothing_labelled_or_not_finite_is_refused():
    given = pool(given=0)
    with pytest.raises(DataError, match="needs labelled samples"):
        ask(Confident(normalise=False), given)
    given = pool()
    given.features[3, 1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        ask(Confident(normalise=False), given)


def test_the_length_of_a_feature_says_nothing_unless_asked_for():
    given = pool()
    lengths = np.random.default_rng(1).uniform(0.2, 5, (60, 1)).astype(np.float32)
    longer = replace(given, features=given.features * lengths)
    for component in (Confident(), Confident(select="max", pool_factor=2)):
        one, two = ask(component, given), ask(component, longer)
        assert one.indices.tolist() == two.indices.tolist()
        assert one.labels.tolist() == two.labels.tolist()
    unit = given.features / np.linalg.norm(given.features, axis=1, keepdims=True)
    expected = plainly(unit, given.labels)
    order = sorted(expected, key=lambda i: expected[i][1][expected[i][0]])
    assert ask(Confident(), longer).indices.tolist() == sorted(order[:8])
    raw = Confident(normalise=False)
    assert ask(raw, given).indices.tolist() != ask(raw, longer).indices.tolist()


def test_the_least_sure_are_taken_from_all_samples_where_no_factor_says_else():
    given = pool()
    picks = {select: ask(Confident(select=select), given) for select in ("min", "max", "random")}
    assert not set(picks["min"].indices) & set(picks["max"].indices)
    assert picks["min"].scores.min() > picks["max"].scores.max()
    assert picks["min"].indices.tolist() != picks["random"].indices.tolist()


def test_equal_probabilities_do_not_all_go_to_the_class_that_comes_first():
    given = pool()
    sure = np.zeros((60, 4), np.float32)
    sure[np.arange(60), np.repeat(np.arange(4), 15)] = 1.0  # all tie, in the order of the classes
    found = ask(ByPrediction(), replace(given, probabilities=sure), 12)
    assert len(set(found.labels.tolist())) > 1
    assert found.indices.tolist() == sorted(found.indices)
    assert found.labels.tolist() == sure[found.indices].argmax(1).tolist()


def test_a_ratio_finds_who_is_near_one_centre_alone_where_distance_finds_who_is_near_two():
    features = np.array([[0, 0], [2, 0], [10, 10], [0.9, 0], [10, 13]], np.float32)
    labels = np.array([0, 1, 2, -1, -1])  # the fourth lies between two centres, the last by one
    given = Pool(np.arange(5), features, labels, labels >= 0)
    near = ask(Confident(normalise=False), given, 1)
    sure = ask(Confident(normalise=False, score="ratio"), given, 1)
    assert (near.indices.tolist(), near.labels.tolist()) == ([3], [0])
    assert (sure.indices.tolist(), sure.labels.tolist()) == ([4], [2])
    assert sure.scores[0] == pytest.approx(-3 / np.hypot(8, 13))


@pytest.mark.parametrize("fusion", ["none", "distance", "cascade", "rank"])
def test_a_ratio_of_distances_in_every_fusion(fusion):
    given = pool(history=2)
    sets = [given.features, *given.history]
    if fusion in ("none", "cascade"):
        sets = sets[:1] if fusion == "none" else [np.concatenate(sets, 1)]
    each = [plainly(features, given.labels) for features in sets]
    free = sorted(each[0])

    def ratio(far):
        first, second = sorted(far.values())[:2]
        return first / second

    if fusion == "rank":
        places = [sorted(free, key=lambda i, e=e: ratio(e[i][1])) for e in each]
        cost = {i: np.mean([order.index(i) for order in places]) for i in free}
    else:
        mean = {i: {n: np.mean([e[i][1][n] for e in each]) for n in each[0][i][1]} for i in free}
        cost = {i: ratio(mean[i]) for i in free}
    found = ask(Confident(normalise=False, fusion=fusion, score="ratio"), given)
    np.testing.assert_allclose(found.scores, [-cost[i] for i in found.indices], rtol=1e-5)
    assert sorted(-found.scores) == pytest.approx(sorted(cost.values())[:8], rel=1e-5)


def test_a_ratio_is_1_where_centres_coincide_and_needs_two_of_them():
    features = np.ones((4, 2), np.float32)
    given = Pool(np.arange(4), features, np.array([0, 1, -1, -1]), np.arange(4) < 2)
    assert ask(Confident(score="ratio"), given, 1).scores.tolist() == [-1]
    alone = replace(given, labels=np.array([0, 0, -1, -1]))
    assert len(ask(Confident(), alone, 1).indices) == 1
    with pytest.raises(DataError, match="two classes for a ratio"):
        ask(Confident(score="ratio"), alone, 1)


def test_in_single_precision_the_surest_of_a_saturated_network_are_random_ones():
    """Half are wrong, and less sure by 1e-9: in double precision they come last."""
    given = pool(count=200, given=1)
    rest = np.where(np.arange(200) % 2, 1e-9, 1e-12)  # odd ones are the wrong ones
    certain = np.stack([1 - rest, rest, 0 * rest, 0 * rest], 1)
    given = replace(given, probabilities=certain)
    assert not (ask(ByPrediction(), given, 40).indices % 2).any()
    wrong = (ask(ByPrediction(precision="single"), given, 40).indices % 2).mean()
    assert 0.25 < wrong < 0.75
