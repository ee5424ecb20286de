"""WRN-28-2: the wide residual network of the MixMatch tables."""

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
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.001)


def build_conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    nn.init.normal_(conv.weight, 0, math.sqrt(2 / (kernel * kernel * after)))
    return conv


class Unit(nn.Module):
    """A pre-activation unit: its first convolution always sees the normalised, activated input.

    The known PyTorch ports hand the raw input to the first convolution where a stage begins, so
    that a norm there is computed and thrown away; here every parameter learns.

    Args:
        activate_skip: the skip path too sees the activated input: in the network's first unit.
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
        """(B, after, H / stride, W / stride)."""
        active = self.activation(self.norm1(x))
        y = self.conv2(self.activation(self.norm2(self.conv1(active))))
        result: Tensor = self.skip(active if self.activate_skip else x) + y
        return result


class WideResNet28(Heads):
    """Three stages of four units, 32, 64 and 128 channels (Zagoruyko and Komodakis, BMVC 2016).

    1,467,610 parameters with 10 classes. LeakyReLU 0.1, running statistics that move by 0.001 a
    step, eps 1e-3, as in MixMatch's own code.
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
        """A new last layer, Glorot normal; 0 classes is none."""
        super().reset_classifier(num_classes, global_pool)
        if isinstance(self.fc, nn.Linear):
            nn.init.xavier_normal_(self.fc.weight)
            nn.init.zeros_(self.fc.bias)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map (B, 128, H / 4, W / 4)."""
        maps: Tensor = self.activation(self.norm(self.stages(self.conv(images))))
        return maps


# register_model reads this name.
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
    """Wide ResNet of 28 layers and factor 2, times ``width``; 1.47 million weights."""
    return build_model_with_cfg(WideResNet28, "wrn28_2", **locals())
