"""ConvNet3 and ConvNet5: a few convolutions, for small images and for quick tests."""

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
    """Blocks of 3x3 convolutions with batch norm and ReLU; maps are halved between two blocks.

    Args:
        blocks: output channels of the convolutions of each block, before the factor ``width``.
        width: factor of the channels.
        heads: 1 or 2 linear heads.
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
    """A 3x3 convolution, batch norm and ReLU."""
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
# timm's register_model reads the name default_cfgs.
default_cfgs = generate_default_cfgs({"convnet3": _SMALL, "convnet5": _SMALL})


# Every parameter is named, unlike timm's **kwargs, so that a misspelt option is refused.
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
    """Three 3x3 convolutions of 32, 64 and 128 channels; 94 thousand weights.

    Images (B, 3, H, W) become a map (B, 128, H // 4, W // 4).

    Args:
        width: factor of the channels.
        drop_rate: dropout of the pooled vector.

    Source: this project, for tests and small data sets.
    Recipe: `model: {backbone: convnet3, image_size: 24, backbone_options: {width: 0.5}}`
    """
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
    """Five 3x3 convolutions, two of 32 channels and three of 64; for small images.

    Images (B, 3, H, W) become a map (B, 64, H // 4, W // 4).

    Args:
        width: factor of the channels.
        drop_rate: dropout of the pooled vector.
        heads: linear heads. With 2, Mean Teacher compares the second one with the teacher.

    Source: this project, for tests and small data sets.
    Recipe: `model: {backbone: convnet5, image_size: 32}`
    """
    return build_model_with_cfg(ConvNet, "convnet5", blocks=((32, 32), (64, 64), (64,)), **locals())
