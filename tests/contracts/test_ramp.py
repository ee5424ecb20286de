import math

import pytest

from fewlabels.contracts.ramp import Ramp


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [0.0, 5.0, 10.0]),
        ("sigmoid", [10 * math.exp(-5), 10 * math.exp(-1.25), 10.0]),
        ("cosine", [0.0, 5.0, 10.0]),
        ("step", [0.0, 0.0, 10.0]),
    ],
)
def test_ramps_start_pass_half_way_and_end_where_their_papers_say(shape, expected):
    ramp = Ramp(end=10.0, steps=100, shape=shape)
    assert [ramp(0), ramp(50), ramp(100)] == pytest.approx(expected)
    assert ramp(10**6) == 10.0


def test_a_decay_that_reaches_back_over_a_tenth_of_the_steps_leaves_the_beginning_behind():
    decay, constant = Ramp(end=0.999, shape="reach"), Ramp(end=0.999)
    averages = {decay: 0.0, constant: 0.0}  # of a weight that is 0 for 200 steps and then 1
    for step in range(300):
        for ramp, value in averages.items():
            kept = min(ramp(step), step / (step + 1))  # the bound of every average
            averages[ramp] = kept * value + (1 - kept) * (step >= 200)
    assert averages[decay] > 0.95
    assert averages[constant] == pytest.approx(1 / 3)
    assert decay(600) == pytest.approx(1 - 1 / 61)
    assert decay(9_000) < 0.999 == decay(10_000)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"start": 0.9, "steps": 500}, "no start"), ({"steps": 5}, "no steps"), ({"end": 100.0}, "1")],
)
def test_reach_is_refused_where_part_of_it_would_mean_nothing(options, says):
    with pytest.raises(ValueError, match=says):
        Ramp(**{"end": 0.999, "shape": "reach", **options})
