"""ConvNet-13: the thirteen-layer network of the tables on semi-supervised learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Interval
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from fewlabels.components.backbones.heads import Heads, describe_stages
from fewlabels.registry import backbones


class ConvNet13(Heads):
    """Nine weight-normalised convolutions in three blocks; the feature is the pooled 128-d vector.

    The layers are those of the PyTorch code of Dual Student and fastSWA: 3,127,208 parameters with
    two heads and 10 classes. That code declares input noise and never adds it; here it is added in
    training. Weight norm is torch's parametrisation, since a module with the older implementation
    cannot be deep-copied, and moving averages are such copies.

    Args:
        drop_rate: dropout between blocks.
        width: factor of the channels.
        heads: 1 or 2 linear heads.
        noise: standard deviation of the noise that is added to normalised images in training.
        norm_momentum: share of a batch in the running statistics.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.5,
        *,
        width: float = 1.0,
        heads: int = 1,
        noise: float = 0.15,
        norm_momentum: float = 0.1,
    ) -> None:
        a, b, c, d = (max(1, round(width * n)) for n in (128, 256, 512, 128))
        super().__init__(d, heads, weight_norm)
        self.noise = noise
        self.block1 = nn.Sequential(
            *build_conv_layer(in_chans, a, 3, 1),
            *build_conv_layer(a, a, 3, 1),
            *build_conv_layer(a, a, 3, 1),
        )
        self.block2 = nn.Sequential(
            *build_conv_layer(a, b, 3, 1),
            *build_conv_layer(b, b, 3, 1),
            *build_conv_layer(b, b, 3, 1),
        )
        self.block3 = nn.Sequential(
            *build_conv_layer(b, c, 3, 0),
            *build_conv_layer(c, b, 1, 0),
            *build_conv_layer(b, d, 1, 0),
        )
        self.between = nn.Sequential(nn.MaxPool2d(2), nn.Dropout(drop_rate))
        self.feature_info = describe_stages({"block1": (a, 1), "block2": (b, 2), "block3": (d, 4)})
        self.set_norm_momentum(norm_momentum)
        self.reset_classifier(num_classes, global_pool)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map (B, 128, 6, 6) of images (B, 3, 32, 32)."""
        if self.training and self.noise:
            images = images + self.noise * torch.randn_like(images)
        maps: Tensor = self.block3(self.between(self.block2(self.between(self.block1(images)))))
        return maps


def build_conv_layer(before: int, after: int, kernel: int, padding: int) -> list[nn.Module]:
    """A weight-normalised convolution, batch norm and LeakyReLU."""
    return [
        weight_norm(nn.Conv2d(before, after, kernel, padding=padding)),
        nn.BatchNorm2d(after),
        nn.LeakyReLU(0.1),
    ]


# timm's register_model reads the name default_cfgs.
default_cfgs = generate_default_cfgs(
    {
        "convnet13": {
            "input_size": (3, 32, 32),
            "pool_size": (6, 6),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": (0.4914, 0.4822, 0.4465),  # of CIFAR-10
            "std": (0.2470, 0.2435, 0.2616),
            "num_classes": 10,
            "first_conv": "block1.0",
            "classifier": "fc",
        }
    }
)


@backbones.register("convnet13")
@register_model
def convnet13(
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
    noise: Annotated[float, Ge(0)] = 0.15,
    drop_rate: Annotated[float, Interval(ge=0, lt=1)] = 0.5,
    norm_momentum: Annotated[float, Interval(gt=0, le=1)] = 0.1,
) -> ConvNet13:
    """ConvNet-13, the network of Mean Teacher's and Snowball's tables; 3.13 million weights.

    Images (B, 3, 32, 32) become a map (B, 128, 6, 6).

    Args:
        width: factor of the channels, 128, 256, 512 and 128.
        heads: linear heads. With 2, Mean Teacher compares the second one with the teacher.
        noise: standard deviation of the noise that is added to normalised images in training.
        drop_rate: dropout between the blocks.
        norm_momentum: share of a batch in the running statistics; MixMatch's code has 0.001.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NIPS 2017, arXiv
    1703.01780; layers as in the PyTorch code of Dual Student (Ke et al., ICCV 2019).
    Recipe: `model: {backbone: convnet13, backbone_options: {heads: 2}}`
    """
    return build_model_with_cfg(ConvNet13, "convnet13", **locals())
