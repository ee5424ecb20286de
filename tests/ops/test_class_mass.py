"""Class mass: equal columns, equal rows, and an order within a class that stays."""

import numpy as np

from fewlabels.ops.class_mass import equalise_mass, measure_margins


def test_three_samples_by_hand():
    """With power 1 columns (1.5, .5) of two samples become (1, 1): the odds ratio fixes how.

    Shares (a, 1 - a) and (1 - a, a) with a / (1 - a) = sqrt(.8 .3 / .2 / .7).
    """
    found = equalise_mass(np.array([[0.8, 0.2], [0.7, 0.3]]), 1, 500)
    ratio = np.sqrt(0.8 * 0.3 / (0.2 * 0.7))
    assert np.allclose(found[0], [ratio / (1 + ratio), 1 / (1 + ratio)])
    assert np.allclose(found[1], found[0][::-1])


def test_a_large_power_shares_the_samples_out_and_not_the_doubts():
    """All lean to class 0, with sums that are nearly fair: decisions are not."""
    shares = np.array([[0.56, 0.44], [0.54, 0.46], [0.52, 0.48], [0.51, 0.49]])
    assert (equalise_mass(shares, 1000, 500).argmax(1) == [0, 0, 1, 1]).all()
    assert shares.sum(0)[0] < 2.2


def test_rows_are_fair_and_a_class_is_only_scaled():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.linspace(0.2, 2, 5), 200)
    found = equalise_mass(shares, 1, 300)
    assert np.allclose(found.sum(1), 1)
    assert np.allclose(found.sum(0), 40, rtol=1e-3)
    for power in (1, 30):
        fair = equalise_mass(shares, power)
        odds = (fair / fair[:, :1]) / (shares / shares[:, :1])
        assert np.allclose(odds, odds[0], rtol=1e-6)
    counts = [np.bincount(s.argmax(1), minlength=5) for s in (shares, equalise_mass(shares))]
    assert np.ptp(counts[1]) < np.ptp(counts[0]) / 3


def test_a_class_that_nobody_wants_and_shares_of_zero_stay_finite():
    shares = np.zeros((6, 3))
    shares[:, 0] = 1
    assert np.isfinite(equalise_mass(shares)).all()


def test_a_margin_is_the_log_of_first_by_second():
    shares = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1, 0, 0]])
    found = measure_margins(shares)
    assert np.allclose(found[:2], np.log([2, 8]))
    assert found[2] > 60
