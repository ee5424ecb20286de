"""Modes of modules come back as they were."""

import pytest
from torch import nn

from fewlabels.models.modes import evaluating, keeping_modes


@pytest.fixture
def mixed():
    """A network that trains, but for its norm."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    network[1][0].eval()
    return network


def modes_of(network):
    return [module.training for module in network.modules()]


def test_a_model_evaluates_for_a_while_and_every_part_is_as_before(mixed):
    before = modes_of(mixed)
    assert len(set(before)) == 2
    with evaluating(mixed):
        assert not any(modes_of(mixed))
    assert modes_of(mixed) == before


@pytest.mark.parametrize("manage", [evaluating, keeping_modes])
def test_the_modes_come_back_after_an_error(mixed, manage):
    before = modes_of(mixed)

    def fail():
        mixed.eval()
        raise KeyError

    with pytest.raises(KeyError), manage(mixed):
        fail()
    assert modes_of(mixed) == before


def test_modes_can_be_put_back_in_between(mixed):
    before = modes_of(mixed)
    with keeping_modes(mixed) as restore_modes:
        assert modes_of(mixed) == before
        mixed.eval()
        restore_modes()
        assert modes_of(mixed) == before
        mixed[1].train()
    assert modes_of(mixed) == before


def test_evaluating_within_evaluating_leaves_the_outer_alone(mixed):
    before = modes_of(mixed)
    with evaluating(mixed):
        with evaluating(mixed[1]):
            pass
        assert not any(modes_of(mixed))
    assert modes_of(mixed) == before
