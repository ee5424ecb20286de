"""CBAM against a plain reading of its paper, and the map that it hands over."""

import pytest
import torch

from fewlabels.components.blocks.cbam import CBAM
from fewlabels.contracts import collect_side


def read_plainly(block, maps):
    """The two gates of each image, with loops over channels and positions."""
    first, _, second = block.channel
    conv, norm = block.spatial
    out, gates = torch.empty_like(maps), []
    for b, image in enumerate(maps):
        channels, height, width = image.shape
        gain = 2.0 if block.near else 1.0
        seen = image / image.square().mean().sqrt() if block.near else image
        score = torch.zeros(channels)
        for pooled in (
            torch.stack([c.mean() for c in seen]),
            torch.stack([c.max() for c in seen]),
        ):
            hidden = (first.weight[:, :, 0, 0] @ pooled + first.bias).clamp_min(0)
            score = score + second.weight[:, :, 0, 0] @ hidden + second.bias
        channel_gate = gain / (1 + (-score).exp()).view(-1, 1, 1)
        two = torch.stack([(seen * channel_gate).mean(0), (seen * channel_gate).amax(0)])
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
        out[b] = image * channel_gate * gain * gate
        gates.append(gate)
    return out, torch.stack(gates)[:, None]


@pytest.mark.parametrize(("kernel", "start"), [(3, "identity"), (7, "paper")])
def test_it_is_the_papers(kernel, start):
    torch.manual_seed(0)
    block = CBAM(8, reduction=2, kernel_size=kernel, start=start).eval()
    assert block.near == (start == "identity")
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


@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("scale", [0.1, 1, 100])
def test_it_begins_as_nearly_nothing_and_every_parameter_learns(scale, norms):
    torch.manual_seed(0)
    block, maps = CBAM(64), scale * torch.randn(8, 64, 7, 7).relu()
    block.spatial[1].train(norms)
    with collect_side() as side:
        out = block(maps)
    assert (out - maps).norm() < 0.1 * maps.norm()
    gate = side["cbam.map"].flatten(1)
    assert (gate.std(1) / gate.mean(1)).median() > (0.01 if norms else 0.002)
    paper = CBAM(64, start="paper")
    assert (paper(maps) - maps).norm() > 0.5 * maps.norm()
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_a_map_near_one_half_keeps_its_small_differences_in_bfloat16():
    torch.manual_seed(0)
    block, maps = CBAM(32).eval(), torch.randn(2, 32, 14, 14)
    with torch.autocast("cpu", torch.bfloat16), collect_side() as side:
        block(maps.bfloat16())
    gate = side["cbam.map"]
    assert gate.std() < 0.05
    assert len(gate.unique()) > 100  # of 392; rounded to bfloat16 they have about 20
