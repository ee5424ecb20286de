"""ConvNet3 and ConvNet5: a few convolutions, for small images and for tests that must be quick."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Interval
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from fewlabels.components.backbones.heads import Heads, describe_stages
from fewlabels.registry import backbones


class ConvNet(Heads):
    """Blocks of 3x3 convolution, batch norm and ReLU; the map is halved between two blocks.

    Args:
        blocks: the channels of each block's convolutions, before they are multiplied by ``width``.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[int]],
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        *,
        width: float = 1.0,
        heads: int = 1,
    ) -> None:
        sizes = [[max(1, round(width * size)) for size in block] for block in blocks]
        super().__init__(sizes[-1][-1], heads, drop_rate=drop_rate)
        self.halve = nn.MaxPool2d(2)
        self.blocks: list[list[str]] = []
        number, before = 0, in_chans
        for block in sizes:
            self.blocks.append([])
            for after in block:
                number += 1
                self.blocks[-1].append(f"conv{number}")
                self.add_module(f"conv{number}", build_conv_layer(before, after))
                before = after
        ends = {
            names[-1]: (own[-1], 2**i)
            for i, (names, own) in enumerate(zip(self.blocks, sizes, strict=True))
        }
        self.feature_info = describe_stages(ends)
        self.reset_classifier(num_classes, global_pool)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map (B, num_features, H // 4, W // 4) of three blocks."""
        maps = images
        for number, block in enumerate(self.blocks):
            maps = self.halve(maps) if number else maps
            for name in block:
                maps = self.get_submodule(name)(maps)
        return maps


def build_conv_layer(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


_SMALL = {
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "num_classes": 1000,
    "first_conv": "conv1.0",
    "classifier": "fc",
}
# register_model reads this name.
default_cfgs = generate_default_cfgs({"convnet3": _SMALL, "convnet5": _SMALL})


# Every parameter is named in place of timm's **kwargs, so that a misspelt one is refused.
@backbones.register("convnet3")
@register_model
def convnet3(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: str = "avg",
    *,
    width: Annotated[float, Gt(0)] = 1.0,
    drop_rate: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
) -> ConvNet:
    """Three 3x3 convolutions of 32, 64 and 128 channels, times ``width``; 94 thousand weights."""
    return build_model_with_cfg(ConvNet, "convnet3", blocks=((32,), (64,), (128,)), **locals())


@backbones.register("convnet5")
@register_model
def convnet5(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: str = "avg",
    *,
    width: Annotated[float, Gt(0)] = 1.0,
    drop_rate: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    heads: Literal[1, 2] = 1,
) -> ConvNet:
    """Five 3x3 convolutions: two of 32 channels, two and one of 64, times ``width``."""
    return build_model_with_cfg(ConvNet, "convnet5", blocks=((32, 32), (64, 64), (64,)), **locals())
