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
