"""CBAM against a plain reading of its paper, and the map that it hands over."""

import pytest
import torch

from fewlabels.blocks.cbam import CBAM
from fewlabels.contracts import collect_side


def read_plainly(block, maps):
    """The two gates of each image, with loops over channels and positions."""
    first, _, second = block.channel
    conv, norm = block.spatial
    out, gates = torch.empty_like(maps), []
    for b, image in enumerate(maps):
        channels, height, width = image.shape
        score = torch.zeros(channels)
        for pooled in (
            torch.stack([c.mean() for c in image]),
            torch.stack([c.max() for c in image]),
        ):
            hidden = (first.weight[:, :, 0, 0] @ pooled + first.bias).clamp_min(0)
            score = score + second.weight[:, :, 0, 0] @ hidden + second.bias
        image = block.gain * image / (1 + (-score).exp()).view(-1, 1, 1)
        two = torch.stack([image.mean(0), image.max(0).values])
        gate, half = torch.zeros(height, width), conv.kernel_size[0] // 2
        for y in range(height):
            for x in range(width):
                for dy in range(-half, half + 1):
                    for dx in range(-half, half + 1):
                        if 0 <= y + dy < height and 0 <= x + dx < width:
                            weight = conv.weight[0, :, dy + half, dx + half]
                            gate[y, x] += weight @ two[:, y + dy, x + dx]
        gate = (gate - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        gate = 1 / (1 + (-(gate * norm.weight + norm.bias)).exp())
        out[b] = image * block.gain * gate
        gates.append(gate)
    return out, torch.stack(gates)[:, None]


@pytest.mark.parametrize(("kernel", "start"), [(3, "identity"), (7, "paper")])
def test_it_is_the_papers(kernel, start):
    torch.manual_seed(0)
    block = CBAM(8, reduction=2, kernel_size=kernel, start=start).eval()
    assert block.gain == (2 if start == "identity" else 1)
    norm = block.spatial[1]
    with torch.no_grad():
        for value in (norm.running_mean, norm.bias):
            value.normal_()
        for value in (norm.running_var, norm.weight):
            value.uniform_(0.5, 2)
        maps = torch.randn(2, 8, 5, 4)
        with collect_side() as side:
            out = block(maps)
        expected, gates = read_plainly(block, maps)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(side["cbam.map"], gates)


def test_outside_a_models_forward_the_map_goes_nowhere():
    block = CBAM(4)
    assert block(torch.rand(2, 4, 3, 3)).shape == (2, 4, 3, 3)
    with collect_side() as side:
        pass
    assert side == {}


def test_few_channels_have_one_hidden_unit():
    assert CBAM(3).channel[0].out_channels == 1


def test_it_begins_as_nearly_nothing_and_every_parameter_learns():
    torch.manual_seed(0)
    block, maps = CBAM(64), torch.randn(8, 64, 7, 7).relu()
    with collect_side() as side:
        out = block(maps)
    assert (out - maps).norm() < 0.1 * maps.norm()
    gate = side["cbam.map"].flatten(1)
    assert (gate.std(1) / gate.mean(1)).median() > 0.01  # not flat: that is reported as collapsed
    paper = CBAM(64, start="paper")
    assert (paper(maps) - maps).norm() > 0.5 * maps.norm()
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad.abs().max() > 0, name
