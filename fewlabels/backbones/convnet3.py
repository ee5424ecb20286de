"""ConvNet3: three convolutions, for small images and for tests that must be quick."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt
from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from fewlabels.registry import backbones

WIDTHS = (32, 64, 128)


class ConvNet3(nn.Module):
    """Three blocks of 3x3 convolution, batch norm and ReLU; the map is halved after the first two.

    It has the methods that timm asks of a model.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        *,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = [in_chans, *(max(1, round(width * w)) for w in WIDTHS)]
        self.num_classes, self.num_features = num_classes, sizes[-1]
        self.head_hidden_size = sizes[-1]
        self.conv1, self.conv2, self.conv3 = (
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )
            for before, after in itertools.pairwise(sizes)
        )
        self.halve = nn.MaxPool2d(2)
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer; 0 classes is none."""
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=True)
        self.num_classes = num_classes
        width = self.num_features * self.global_pool.feat_mult()
        self.fc = nn.Linear(width, num_classes) if num_classes > 0 else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map (B, num_features, H // 4, W // 4)."""
        return self.conv3(self.halve(self.conv2(self.halve(self.conv1(images)))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of a feature map, or the pooled vector before them."""
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.fc(x)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the pooled vector when there are no classes."""
        return self.forward_head(self.forward_features(images))


# register_model reads this name.
default_cfgs = generate_default_cfgs(
    {
        "convnet3": {
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
    }
)


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
    drop_rate: float = 0.0,
    *,
    width: Annotated[float, Gt(0)] = 1.0,
) -> ConvNet3:
    """Three 3x3 convolutions of 32, 64 and 128 channels, times ``width``; 94 thousand weights."""
    # Every parameter is named in place of timm's **kwargs, so that a misspelt one is refused.
    model: ConvNet3 = build_model_with_cfg(
        ConvNet3,
        "convnet3",
        pretrained,
        pretrained_cfg=pretrained_cfg,
        pretrained_cfg_overlay=pretrained_cfg_overlay,
        cache_dir=cache_dir,
        num_classes=num_classes,
        in_chans=in_chans,
        global_pool=global_pool,
        drop_rate=drop_rate,
        width=width,
    )
    return model
