"""ConvNet-13, WRN-28-2 and Shake-Shake-26: their sizes, and what others got wrong in them."""

import pytest
import timm
import torch
from torch import nn

from fewlabels.components.backbones import convnet13, shakeshake26, wrn28_2
from fewlabels.registry import backbones

NAMES = ("convnet13", "shakeshake26_2x96d", "wrn28_2")


def small(name, classes=10, **more):
    torch.manual_seed(0)
    backbones.get(name)
    width = {"convnet13": 0.1, "shakeshake26_2x96d": 0.1, "wrn28_2": 0.25}[name]
    return timm.create_model(name, num_classes=classes, width=width, **more)


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: convnet13.ConvNet13(10, heads=2), 3_127_208),
        (lambda: convnet13.ConvNet13(10), 3_125_908),
        (lambda: convnet13.ConvNet13(100, heads=2), 3_150_608),
        (lambda: shakeshake26.ShakeShake26(10, heads=2), 26_197_316),
        (lambda: wrn28_2.WideResNet28(10), 1_467_610),
    ],
)
def test_each_has_its_number_of_parameters(build, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == count


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name):
    more = {} if name == "wrn28_2" else {"heads": 2}
    model = small(name, **more).train()
    features = model.forward_head(model.forward_features(torch.rand(6, 3, 32, 32)), pre_logits=True)
    logits, second = model.forward_heads(features)
    target = torch.arange(6)
    loss = nn.functional.cross_entropy(logits, target)
    if second is not None:
        loss = loss + nn.functional.cross_entropy(second, target)
    loss.backward()
    for path, p in model.named_parameters():
        assert p.grad is not None, path
        assert torch.isfinite(p.grad).all(), path
        # What a norm's statistics take away again gets a gradient of nothing but rounding.
        before_a_norm = path.endswith("bias") and name == "convnet13" and path.startswith("block")
        assert before_a_norm or p.grad.abs().max() > 0, path


def test_noise_and_dropout_are_there_in_training_only():
    model = small("convnet13", drop_rate=0.0).train()
    images = torch.zeros(2, 3, 32, 32)
    model.block1 = nn.Identity()
    model.block2 = model.block3 = model.between = nn.Identity()
    noisy = model.forward_features(images)
    assert noisy.std() == pytest.approx(0.15, rel=0.1)
    assert torch.equal(model.eval().forward_features(images), images)
    assert any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in small("convnet13").modules())


def test_gates_are_an_images_own_and_others_on_the_way_back():
    torch.manual_seed(0)
    a, b = (
        torch.ones(500, 2, 3, 3, requires_grad=True),
        torch.zeros(500, 2, 3, 3, requires_grad=True),
    )
    mixed = shakeshake26.shake_branches(a, b, training=True)
    alpha = mixed[:, 0, 0, 0]
    torch.testing.assert_close(mixed, alpha.view(-1, 1, 1, 1).expand_as(mixed))
    mixed.sum().backward()
    beta = a.grad[:, 0, 0, 0]
    torch.testing.assert_close(a.grad + b.grad, torch.ones_like(a))
    for gate in (alpha.detach(), beta):
        assert gate.mean() == pytest.approx(0.5, abs=0.05)
        assert gate.std() == pytest.approx(12**-0.5, rel=0.1)
    assert abs(torch.corrcoef(torch.stack([alpha.detach(), beta]))[0, 1]) < 0.15
    torch.testing.assert_close(
        shakeshake26.shake_branches(a, b, training=False), torch.full_like(a, 0.5)
    )


def test_downsampling_looks_at_both_grids():
    layer = shakeshake26.ShiftDownsample(2, 4).eval()
    image = torch.zeros(1, 2, 4, 4)
    image[0, :, 1, 1] = 1.0  # seen by the shifted grid alone
    with torch.no_grad():
        moved = (layer(image) - layer(torch.zeros_like(image))).abs().sum((0, 2, 3))
    assert (moved[:2] == 0).all()
    assert (moved[2:] > 0).all()


def test_the_first_convolution_of_every_unit_sees_an_activated_input():
    model = small("wrn28_2").train()
    seen = []
    for module in model.modules():
        if isinstance(module, wrn28_2.Unit):
            module.conv1.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
            nn.init.constant_(module.norm1.bias, 0.0)
    model(torch.randn(8, 3, 32, 32))
    assert len(seen) == 12
    for x in seen:  # LeakyReLU 0.1 of something normalised: much less below zero than above
        assert (x.clamp(max=0).abs().mean() / x.clamp(min=0).mean()) < 0.2
        assert x.std() < 1.2
