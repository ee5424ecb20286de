"""How sure an error is, against scipy's own tests."""

import numpy as np
import pytest
from scipy.stats import binomtest

from fewlabels.evaluation.paired import Paired, compare_answers, find_binomial_interval


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (0, 12), (3, 12), (12, 12), (133, 324)])
def test_the_interval_is_clopper_and_pearson_s(hits, count):
    exact = binomtest(hits, count).proportion_ci(0.95, "exact")
    assert find_binomial_interval(hits, count) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize(
    ("gained", "lost"), [(0, 0), (3, 0), (5, 5), (12, 31), (31, 12), (400, 90)]
)
def test_the_chance_of_a_difference_is_the_sign_test_s(gained, lost):
    exact = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert Paired(gained, lost).chance == pytest.approx(exact)


def test_pairs_are_counted_where_one_of_two_is_right_alone():
    truth = np.array([0, 1, 2, 3, 4])
    pair = compare_answers(np.array([0, 1, 0, 0, 4]), np.array([0, 0, 2, 0, 4]), truth)
    assert pair == (1, 1)
