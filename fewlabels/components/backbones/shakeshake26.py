"""Shake-Shake-26 2x96d: the ResNet of Mean Teacher's and Snowball's tables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Interval
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from fewlabels.components.backbones.heads import Heads, describe_stages
from fewlabels.registry import backbones


class Shake(torch.autograd.Function):
    """alpha a + (1 - alpha) b in the forward pass, with beta for alpha in the backward pass.

    Each image has an alpha and a beta of its own.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        """Mix branches (B, C, H, W) by gates ``alpha`` (B, 1, 1, 1); ``beta`` is kept."""
        ctx.save_for_backward(beta)
        return alpha * a + (1 - alpha) * b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients by ``beta``, not ``alpha``: the difference regularises."""
        (beta,) = ctx.saved_tensors
        return beta * grads[0], (1 - beta) * grads[0], None, None


def shake_branches(a: Tensor, b: Tensor, training: bool) -> Tensor:
    """Mix two branches (B, C, H, W) by random gates; in evaluation, take their mean."""
    if not training:
        return (a + b) / 2
    alpha, beta = torch.rand(2, len(a), 1, 1, 1, device=a.device, dtype=a.dtype)
    mixed: Tensor = Shake.apply(a, b, alpha, beta)
    return mixed


def build_conv(before: int, after: int, kernel: int, stride: int = 1, **more: Any) -> nn.Conv2d:
    """A convolution without bias, unless ``more`` says otherwise, with He's initialisation."""
    more = {"bias": False, **more}
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, **more)
    nn.init.normal_(conv.weight, 0, math.sqrt(2 / (kernel * kernel * after)))
    return conv


def build_branch(before: int, after: int, stride: int) -> nn.Sequential:
    """One branch of a block: ReLU, 3x3 convolution and batch norm, twice."""
    return nn.Sequential(
        nn.ReLU(),
        build_conv(before, after, 3, stride),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        build_conv(after, after, 3),
        nn.BatchNorm2d(after),
    )


class ShiftDownsample(nn.Module):
    """Halves the resolution: every second pixel, and every second pixel shifted by one in x and y.

    The two grids are concatenated in the channels; each makes half of the output's channels.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = build_conv(2 * before, after, 1, groups=2, bias=True)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, after, H / 2, W / 2) of a map (B, before, H, W); H and W are even."""
        grids = torch.cat([x[:, :, 0::2, 0::2], x[:, :, 1::2, 1::2]], 1)
        result: Tensor = self.norm(self.conv(grids.relu()))
        return result


class Block(nn.Module):
    """A residual block of two branches that are mixed by random gates."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = (
            build_branch(before, after, stride),
            build_branch(before, after, stride),
        )
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            self.skip = ShiftDownsample(before, after)
        elif before != after:
            self.skip = nn.Sequential(build_conv(before, after, 1), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, after, H / stride, W / stride) of a map (B, before, H, W)."""
        result: Tensor = self.skip(x) + shake_branches(self.one(x), self.two(x), self.training)
        return result


class ShakeShake26(Heads):
    """Three stages of four blocks with 96, 192 and 384 channels, gates drawn for each image.

    26,197,316 parameters with two heads and 10 classes.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        *,
        width: float = 1.0,
        heads: int = 1,
        norm_momentum: float = 0.1,
    ) -> None:
        channels = [max(2, 2 * round(width * n / 2)) for n in (96, 192, 384)]
        super().__init__(channels[-1], heads)
        self.conv = build_conv(in_chans, 16, 3)
        blocks, before = [], 16
        for stage, after in enumerate(channels):
            for number in range(4):
                blocks.append(Block(before, after, 2 if stage and not number else 1))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.feature_info = describe_stages(
            {f"blocks.{4 * i + 3}": (channels[i], 2**i) for i in range(3)}
        )
        self.set_norm_momentum(norm_momentum)
        self.reset_classifier(num_classes, global_pool)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map (B, 384, H / 4, W / 4)."""
        maps: Tensor = self.blocks(self.conv(images))
        return maps


# timm's register_model reads the name default_cfgs.
default_cfgs = generate_default_cfgs(
    {
        "shakeshake26_2x96d": {
            "input_size": (3, 32, 32),
            "pool_size": (8, 8),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": (0.4914, 0.4822, 0.4465),  # of CIFAR-10
            "std": (0.2470, 0.2435, 0.2616),
            "num_classes": 10,
            "first_conv": "conv",
            "classifier": "fc",
        }
    }
)


@backbones.register("shakeshake26_2x96d")
@register_model
def shakeshake26_2x96d(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    num_classes: int = 10,
    in_chans: int = 3,
    global_pool: str = "avg",
    *,
    width: Annotated[float, Gt(0)] = 1.0,
    heads: Literal[1, 2] = 1,
    norm_momentum: Annotated[float, Interval(gt=0, le=1)] = 0.1,
) -> ShakeShake26:
    """Shake-Shake ResNet-26 with two branches of 96 channels; 26.2 million weights.

    Images (B, 3, 32, 32) become a map (B, 384, 8, 8); sides are multiples of 4.

    Args:
        width: factor of the channels.
        heads: linear heads. With 2, Mean Teacher compares the second one with the teacher.
        norm_momentum: share of a batch in the running statistics; MixMatch's code has 0.001.

    Source: Gastaldi, "Shake-Shake regularization", 2017, arXiv 1705.07485; layers as in Mean
    Teacher's PyTorch code.
    Recipe: `model: {backbone: shakeshake26_2x96d, backbone_options: {heads: 2}}`
    """
    return build_model_with_cfg(ShakeShake26, "shakeshake26_2x96d", **locals())
