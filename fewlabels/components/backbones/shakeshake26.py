"""Shake-Shake-26 2x96d: the residual network of Mean Teacher's and Snowball's ResNet rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from fewlabels.components.backbones.heads import Heads, describe_stages
from fewlabels.registry import backbones


class Shake(torch.autograd.Function):
    """a * alpha + b * (1 - alpha) forward, the same with beta backward; one gate an image."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        """Gates are (B, 1, 1, 1)."""
        ctx.save_for_backward(beta)
        return alpha * a + (1 - alpha) * b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Another gate than forward's: that is what regularises."""
        (beta,) = ctx.saved_tensors
        return beta * grads[0], (1 - beta) * grads[0], None, None


def shake_branches(a: Tensor, b: Tensor, training: bool) -> Tensor:
    """Two branches (B, C, H, W) mixed by random gates, half and half in evaluation."""
    if not training:
        return (a + b) / 2
    alpha, beta = torch.rand(2, len(a), 1, 1, 1, device=a.device, dtype=a.dtype)
    mixed: Tensor = Shake.apply(a, b, alpha, beta)
    return mixed


def build_conv(before: int, after: int, kernel: int, stride: int = 1, **more: Any) -> nn.Conv2d:
    more = {"bias": False, **more}
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, **more)
    nn.init.normal_(conv.weight, 0, math.sqrt(2 / (kernel * kernel * after)))
    return conv


def build_branch(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        build_conv(before, after, 3, stride),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        build_conv(after, after, 3),
        nn.BatchNorm2d(after),
    )


class ShiftDownsample(nn.Module):
    """Half the resolution, from two grids of pixels that are shifted by one."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = build_conv(2 * before, after, 1, groups=2, bias=True)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(B, after, H / 2, W / 2); both sides have to be even."""
        grids = torch.cat([x[:, :, 0::2, 0::2], x[:, :, 1::2, 1::2]], 1)
        result: Tensor = self.norm(self.conv(grids.relu()))
        return result


class Block(nn.Module):
    """A residual block of two shaken branches."""

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
        """(B, after, H / stride, W / stride)."""
        result: Tensor = self.skip(x) + shake_branches(self.one(x), self.two(x), self.training)
        return result


class ShakeShake26(Heads):
    """Three stages of four blocks, 96, 192 and 384 channels (Gastaldi, 2017), shaken an image.

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
        self.reset_classifier(num_classes, global_pool)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map (B, 384, H / 4, W / 4)."""
        maps: Tensor = self.blocks(self.conv(images))
        return maps


# register_model reads this name.
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
) -> ShakeShake26:
    """Shake-Shake ResNet-26 with two branches of 96 channels, times ``width``."""
    return build_model_with_cfg(ShakeShake26, "shakeshake26_2x96d", **locals())
