import numpy as np
import pytest

from fewlabels.errors import DataError
from fewlabels.evaluation.classification import error_rate, summarize_error


def test_error_is_the_share_of_wrong_ones():
    scores = np.array([[3.0, 1, 2], [0, 5, 1], [1, 2, 9], [1, 0, 0], [7, 7, 7]])
    truth = np.array([0, 2, 2, 1, -1])
    assert error_rate(scores, truth) == 0.5


def test_a_constant_model_has_the_error_of_chance():
    truth = np.arange(40) % 4
    assert error_rate(np.ones((40, 4)), truth) == pytest.approx(0.75)
    two = np.tile([1.0, 1, 0, 0], (40, 1))
    assert error_rate(two, truth) == pytest.approx(0.75)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(DataError, match="not finite"):
        error_rate(np.array([[np.nan, 1.0]]), np.array([0]))
    with pytest.raises(DataError, match="no test image has a known class"):
        error_rate(np.ones((2, 2)), np.array([-1, -1]))


def rows(errors, validation=None):
    validation = validation or [None] * len(errors)
    return [
        {"model": m, "step": i, "error": e + (m == "student"), "validation_error": v}
        for i, (e, v) in enumerate(zip(errors, validation, strict=True))
        for m in ("student", "teacher")
    ]


def test_each_rule_reports_its_own_number():
    errors = [0.9, 0.1, *[0.5, 0.3] * 10, 0.4]
    assert summarize_error(rows(errors), "teacher", "last")["error"] == 0.4
    median = summarize_error(rows(errors), "teacher", "median")
    assert median["error"] == sorted(errors[-20:])[9:11][0] / 2 + sorted(errors[-20:])[10] / 2
    assert (median["checkpoints"], median["step"]) == (20, 22)
    best = summarize_error(rows([0.1, 0.5, 0.4], [0.3, 0.2, 0.2]), "teacher", "best")
    assert (best["error"], best["step"]) == (0.5, 1)  # not the smallest test error
    assert summarize_error(rows([0.2, 0.3]), "teacher", "median")["checkpoints"] == 2
    with pytest.raises(DataError, match="set data.validation"):
        summarize_error(rows([0.1]), "teacher", "best")
    with pytest.raises(DataError, match="never evaluated"):
        summarize_error(rows([0.1]), "master", "last")
