"""Work is measured at its size where that is soon done, and carried on by its own power else."""

import pytest

from fewlabels.rehearsal.growth import Growth, measure_growth


def test_work_that_is_soon_done_is_measured_at_its_size():
    sizes = []
    growth = measure_growth(lambda size: lambda: sizes.append(size), 5000, 1000)
    assert sizes == [1000, 2000, 4000, 5000]
    assert growth.describe(5000) == "measured at its size"
    assert growth.at(5000)[0] == growth.seconds[-1]


@pytest.mark.parametrize(("power", "taken"), [(1, 1), (2, 2), (0.2, 1), (9, 2.5)])
def test_work_is_carried_on_by_the_power_of_its_last_two_sizes(power, taken):
    growth = Growth((100, 200), (1.0, 2.0**power), (1.0, 2.0**power))
    assert growth.at(2000)[0] == pytest.approx(2.0**power * 10**taken)


def test_work_that_takes_long_ends_after_two_sizes(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert measure_growth(lambda size: lambda: None, 10**6, 1000).sizes == (1000, 2000)


def test_nothing_to_do_costs_nothing():
    assert measure_growth(lambda size: lambda: None, 0, 1000).at(0) == (0.0, 0.0)
