"""WRN-28-2: the wide residual network of MixMatch's tables."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from fewlabels.components.backbones.heads import Heads, describe_stages
from fewlabels.registry import backbones


def build_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm as in MixMatch's TensorFlow code, whose momentum of 0.999 is torch's 0.001."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.001)


def build_conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, with He's initialisation."""
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    nn.init.normal_(conv.weight, 0, math.sqrt(2 / (kernel * kernel * after)))
    return conv


class Unit(nn.Module):
    """A pre-activation residual unit; its first convolution sees the normalised, activated input.

    The known PyTorch ports give the raw input to the first convolution of a stage, so the norm
    before it gets no gradient. Here every parameter is trained.

    Args:
        activate_skip: whether the skip path sees the activated input too, as in the network's
            first unit.
    """

    def __init__(self, before: int, after: int, stride: int, activate_skip: bool = False) -> None:
        super().__init__()
        self.norm1, self.conv1 = build_norm(before), build_conv(before, after, 3, stride)
        self.norm2, self.conv2 = build_norm(after), build_conv(after, after, 3)
        self.activation = nn.LeakyReLU(0.1)
        self.activate_skip = activate_skip
        same = before == after and stride == 1
        self.skip = nn.Identity() if same else build_conv(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, after, H / stride, W / stride) of a map (B, before, H, W)."""
        active = self.activation(self.norm1(x))
        y = self.conv2(self.activation(self.norm2(self.conv1(active))))
        result: Tensor = self.skip(active if self.activate_skip else x) + y
        return result


class WideResNet28(Heads):
    """Three stages of four units with 32, 64 and 128 channels.

    1,467,610 parameters with 10 classes. As in MixMatch's own code, the slope of LeakyReLU is 0.1,
    and batch norms have eps 1e-3 and move their running statistics by 0.001 a step.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        *,
        width: float = 1.0,
    ) -> None:
        sizes = [max(1, round(width * n)) for n in (16, 32, 64, 128)]
        super().__init__(sizes[-1], 1)
        self.conv = build_conv(in_chans, sizes[0], 3)
        self.stages = nn.Sequential()
        for stage, (before, after) in enumerate(itertools.pairwise(sizes)):
            units = [Unit(before, after, 1 if stage == 0 else 2, activate_skip=stage == 0)]
            units += [Unit(after, after, 1) for _ in range(3)]
            self.stages.append(nn.Sequential(*units))
        self.feature_info = describe_stages({f"stages.{i}": (sizes[i + 1], 2**i) for i in range(3)})
        self.norm, self.activation = build_norm(sizes[-1]), nn.LeakyReLU(0.1)
        self.reset_classifier(num_classes, global_pool)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one, Glorot normal; with 0 classes there is none."""
        super().reset_classifier(num_classes, global_pool)
        if isinstance(self.fc, nn.Linear):
            nn.init.xavier_normal_(self.fc.weight)
            nn.init.zeros_(self.fc.bias)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map (B, 128, H / 4, W / 4)."""
        maps: Tensor = self.activation(self.norm(self.stages(self.conv(images))))
        return maps


# timm's register_model reads the name default_cfgs.
default_cfgs = generate_default_cfgs(
    {
        "wrn28_2": {
            "input_size": (3, 32, 32),
            "pool_size": (8, 8),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 10,
            "first_conv": "conv",
            "classifier": "fc",
        }
    }
)


@backbones.register("wrn28_2")
@register_model
def wrn28_2(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    num_classes: int = 10,
    in_chans: int = 3,
    global_pool: str = "avg",
    *,
    width: Annotated[float, Gt(0)] = 1.0,
) -> WideResNet28:
    """Wide ResNet of 28 layers and width factor 2; 1.47 million weights.

    Images (B, 3, 32, 32) become a map (B, 128, 8, 8).

    Args:
        width: further factor of the channels.

    Source: Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016, arXiv 1605.07146; norms
    and activations as in the code of MixMatch.
    Recipe: `model: {backbone: wrn28_2}`
    """
    return build_model_with_cfg(WideResNet28, "wrn28_2", **locals())
