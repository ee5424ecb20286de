"""Map agreement: what agrees costs nothing, what is flat costs all, and SAN wakes up by it."""

import pytest
import torch

from fewlabels.components.blocks.san import SAN
from fewlabels.components.losses.map_agreement import MapAgreement
from fewlabels.contracts import collect_side, collect_terms
from fewlabels.errors import ComponentError

PAIR = torch.tensor([3, 3])


def cost(one, two):
    return MapAgreement()({"san.maps": torch.stack([one, two])}, PAIR).item()


def test_it_is_one_less_the_correlation_over_channels_and_positions():
    one = torch.tensor([[[1.0, 2.0, 3.0]]])  # one channel, three positions
    assert cost(one, 5 * one + 7) == pytest.approx(0, abs=1e-6)
    assert cost(one, -one) == pytest.approx(2, abs=1e-6)
    # (-1, 0, 1) and (-1/3, 2/3, -1/3) have no correlation; nor has what is flat.
    assert cost(one, torch.tensor([[[0.0, 1.0, 0.0]]])) == pytest.approx(1, abs=1e-6)
    assert cost(one, torch.ones(1, 1, 3)) == pytest.approx(1, abs=1e-6)
    assert cost(torch.ones(1, 1, 3), torch.ones(1, 1, 3)) == pytest.approx(1, abs=1e-6)


def test_only_views_of_one_image_are_compared():
    torch.manual_seed(0)
    maps = torch.randn(4, 2, 3, 3)
    side = {"san.maps": torch.cat([maps, maps])}
    assert MapAgreement()(side, torch.arange(4).repeat(2)).item() == pytest.approx(0, abs=1e-6)
    assert MapAgreement()(side, torch.arange(8)).item() == 0
    with pytest.raises(ComponentError, match=r"needs the map 'san\.maps', and blocks hand over x"):
        MapAgreement()({"x": maps}, PAIR)


def test_it_brings_san_away_from_the_identity():
    """Views that lie two columns apart: their maps agree only where features have been moved."""
    torch.manual_seed(0)
    block = SAN(8, 4, 4, hidden=16)
    optimizer = torch.optim.Adam(block.parameters(), lr=0.02)
    found = []
    for _ in range(60):
        maps = torch.randn(8, 8, 4, 4)
        with collect_side() as side, collect_terms() as terms:
            block(torch.cat([maps, maps.roll(2, 3)]))
        loss = MapAgreement()(side, torch.arange(8).repeat(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append([loss.item(), terms["san.off_diagonal"][0].item()])
    assert found[-1][0] < found[0][0] - 0.15
    assert found[0][1] < 0.05
    assert found[-1][1] > 0.2
