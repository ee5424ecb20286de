"""BN-Inception: Inception with batch norm (Ioffe and Szegedy, ICML 2015)."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.layers import ConvNormAct
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from fewlabels.components.backbones.heads import Heads, describe_stages, filter_published_weights
from fewlabels.registry import backbones

# For each unit: input channels; channels of the 1x1 path (None: a unit of stride 2, which halves
# the map and has no such path); reduced and output channels of the 3x3 path, and of the double 3x3
# path; channels of the pooled path; kind of pooling.
_SIZES = {
    "inception_3a": (192, 64, (64, 64), (64, 96), 32, "avg"),
    "inception_3b": (256, 64, (64, 96), (64, 96), 64, "avg"),
    "inception_3c": (320, None, (128, 160), (64, 96), None, "max"),
    "inception_4a": (576, 224, (64, 96), (96, 128), 128, "avg"),
    "inception_4b": (576, 192, (96, 128), (96, 128), 128, "avg"),
    "inception_4c": (576, 160, (128, 160), (128, 160), 128, "avg"),
    "inception_4d": (608, 96, (128, 192), (160, 192), 128, "avg"),
    "inception_4e": (608, None, (128, 192), (192, 256), None, "max"),
    "inception_5a": (1056, 352, (192, 320), (160, 224), 128, "avg"),
    "inception_5b": (1024, 352, (192, 320), (192, 224), 128, "max"),
}

# Convolution with bias, batch norm, ReLU. Padding keeps the size of the map, divided by the stride.
Conv = partial(ConvNormAct, bias=True)


class BNInception(Heads):
    """Three convolutions and ten inception units, each layer with bias, batch norm and ReLU.

    Images (B, 3, 224, 224) become a map (B, 1024, 7, 7). Layers have the names of the weights that
    are published for this network.
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg"
    ) -> None:
        super().__init__(1024, 1)
        self.conv1_7x7_s2 = Conv(in_chans, 64, 7, stride=2)
        self.pool1_3x3_s2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2_3x3_reduce, self.conv2_3x3 = Conv(64, 64, 1), Conv(64, 192, 3)
        self.pool2_3x3_s2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        for name, sizes in _SIZES.items():
            self.add_module(name, Inception(*sizes))
        self.trunk = tuple(self._modules)  # in forward order
        ends = {"conv1_7x7_s2": (64, 2), "conv2_3x3": (192, 4), "inception_3b": (320, 8)}
        self.feature_info = describe_stages(
            {**ends, "inception_4d": (608, 16), "inception_5b": (1024, 32)}
        )
        self.reset_classifier(num_classes, global_pool)

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert the common published weights: this network's names, first filters RGB, not BGR.

        A state dict that is in this network's names already is returned unchanged.
        """
        if "conv1_7x7_s2.weight" not in state:
            return state
        own = {}
        for name, value in state.items():
            layer, kind = re.sub(r"^(inception_\d[a-e])_", r"\1.", name).rsplit(".", 1)
            if layer == "last_linear":
                own[f"fc.{kind}"] = value
            elif layer.endswith("_bn"):
                own[f"{layer[:-3]}.bn.{kind}"] = value.flatten() if value.ndim else value
            else:
                own[f"{layer}.conv.{kind}"] = value
        own["conv1_7x7_s2.conv.weight"] = own["conv1_7x7_s2.conv.weight"].flip(1)
        return own


class Inception(nn.Module):
    """Up to four parallel paths, whose maps are concatenated; layers have the published names.

    Args:
        before: input channels.
        one: channels of the 1x1 path; None: there is none, and the unit halves the map.
        three, double: reduced and output channels of the 3x3 path and of the double 3x3 path.
        pooled: channels after the pooled path; None: as many as before.
        pooling: ``avg`` or ``max``.
    """

    def __init__(
        self,
        before: int,
        one: int | None,
        three: tuple[int, int],
        double: tuple[int, int],
        pooled: int | None,
        pooling: str,
    ) -> None:
        super().__init__()
        stride = 1 if one else 2
        pool = nn.AvgPool2d if pooling == "avg" else nn.MaxPool2d
        paths: list[dict[str, nn.Module]] = [
            {"1x1": Conv(before, one, 1)} if one else {},
            {"3x3_reduce": Conv(before, three[0], 1), "3x3": Conv(*three, 3, stride)},
            {
                "double_3x3_reduce": Conv(before, double[0], 1),
                "double_3x3_1": Conv(*double, 3),
                "double_3x3_2": Conv(double[1], double[1], 3, stride),
            },
            {"pool": pool(3, stride, 1 if stride == 1 else 0, ceil_mode=True)},
        ]
        if pooled:
            paths[3]["pool_proj"] = Conv(before, pooled, 1)
        self.paths = [list(path) for path in paths if path]
        for path in paths:
            for name, layer in path.items():
                self.add_module(name, layer)

    def forward(self, maps: Tensor) -> Tensor:
        """The concatenated maps of all paths."""
        ends = []
        for path in self.paths:
            end = maps
            for name in path:
                end = self.get_submodule(name)(end)
            ends.append(end)
        return torch.cat(ends, 1)


# The weights are Caffe's, for BGR images of 0 to 255 from which (104, 117, 128) is subtracted. For
# RGB images of 0 to 1 this is a mean of (128, 117, 104) / 255 and a deviation of 1 / 255.
# timm's register_model reads the name default_cfgs.
default_cfgs = generate_default_cfgs(
    {
        "bninception.caffe_in1k": {
            "url": "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-239d2248.pth",
            "license": "bsd-3-clause",
            "origin_url": "https://github.com/Cadene/pretrained-models.pytorch",
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (128 / 255, 117 / 255, 104 / 255),
            "std": (1 / 255, 1 / 255, 1 / 255),
            "num_classes": 1000,
            "first_conv": "conv1_7x7_s2.conv",
            "classifier": "fc",
        }
    }
)


@backbones.register("bninception")
@register_model
def bninception(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: str = "avg",
) -> BNInception:
    """BN-Inception: Inception with batch norm; 10.3 million weights without its classifier.

    Images (B, 3, 224, 224) become a map (B, 1024, 7, 7). ``pretrained: true`` downloads the weights
    that were trained on ImageNet with Caffe.

    Source: Ioffe and Szegedy, "Batch normalization: Accelerating deep network training by reducing
    internal covariate shift", ICML 2015, arXiv 1502.03167.
    Recipe: `model: {backbone: bninception, pretrained: true}`
    """
    return build_model_with_cfg(
        BNInception, "bninception", pretrained_filter_fn=filter_published_weights, **locals()
    )
