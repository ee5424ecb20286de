"""GoogLeNet with batch norm: torchvision's network with timm's interface."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval
from timm.layers import ConvNormAct
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from fewlabels.components.backbones.heads import Heads, describe_stages, filter_published_weights
from fewlabels.registry import backbones

# For each unit: input channels; channels of the 1x1 branch; reduced and output channels of the 3x3
# branch, and of the "5x5" branch; channels of the pooled branch (Szegedy et al., 2015, Table 1).
_SIZES = {
    "inception3a": (192, 64, (96, 128), (16, 32), 32),
    "inception3b": (256, 128, (128, 192), (32, 96), 64),
    "inception4a": (480, 192, (96, 208), (16, 48), 64),
    "inception4b": (512, 160, (112, 224), (24, 64), 64),
    "inception4c": (512, 128, (128, 256), (24, 64), 64),
    "inception4d": (512, 112, (144, 288), (32, 64), 64),
    "inception4e": (528, 256, (160, 320), (32, 128), 128),
    "inception5a": (832, 256, (160, 320), (32, 128), 128),
    "inception5b": (832, 384, (192, 384), (48, 128), 128),
}

# Convolution, batch norm, ReLU. Padding keeps the size of the map, divided by the stride.
Conv = partial(ConvNormAct, norm_kwargs={"eps": 1e-3})


class GoogLeNet(Heads):
    """Inception v1 as in torchvision: batch norms with eps 1e-3, 3x3 convolutions for the 5x5.

    Images (B, 3, 224, 224) become a map (B, 1024, 7, 7). Parameters have torchvision's names, so
    its weights load strictly. The two auxiliary classifiers are left out; torchvision too drops
    them once its weights are loaded.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.2,
    ) -> None:
        super().__init__(1024, 1, drop_rate=drop_rate)
        self.conv1 = Conv(in_chans, 64, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.conv3 = Conv(64, 64, 1), Conv(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        for name, sizes in _SIZES.items():
            self.add_module(name, Inception(*sizes))
            if name == "inception3b":
                self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
            elif name == "inception4e":
                self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.trunk = tuple(self._modules)  # in forward order
        ends = {"conv1": (64, 2), "conv3": (192, 4), "inception3b": (480, 8)}
        self.feature_info = describe_stages(
            {**ends, "inception4e": (832, 16), "inception5b": (1024, 32)}
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.01)
        self.reset_classifier(num_classes, global_pool)

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Drop the auxiliary classifiers' weights from those of torchvision."""
        return {n: value for n, value in state.items() if not n.startswith(("aux1.", "aux2."))}


class Inception(nn.Module):
    """Four parallel branches, whose maps are concatenated.

    Args:
        before: input channels.
        one: channels of the 1x1 branch.
        three, five: reduced and output channels of the 3x3 and of the "5x5" branch.
        pooled: channels of the pooled branch.
    """

    def __init__(
        self,
        before: int,
        one: int,
        three: tuple[int, int],
        five: tuple[int, int],
        pooled: int,
    ) -> None:
        super().__init__()
        self.branch1 = Conv(before, one, 1)
        self.branch2 = nn.Sequential(Conv(before, three[0], 1), Conv(*three, 3))
        self.branch3 = nn.Sequential(Conv(before, five[0], 1), Conv(*five, 3))
        pool = nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True)
        self.branch4 = nn.Sequential(pool, Conv(before, pooled, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """The concatenated maps of all branches."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(maps) for branch in branches], 1)


# Mean and standard deviation are .5, since torchvision's `transform_input` undoes the normalisation
# by ImageNet's statistics and applies these. timm's register_model reads the name default_cfgs.
default_cfgs = generate_default_cfgs(
    {
        "googlenet.tv_in1k": {
            "url": "https://download.pytorch.org/models/googlenet-1378be20.pth",
            "license": "bsd-3-clause",
            "origin_url": "https://github.com/pytorch/vision",
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 1000,
            "first_conv": "conv1.conv",
            "classifier": "fc",
        }
    }
)


@backbones.register("googlenet")
@register_model
def googlenet(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: str = "avg",
    *,
    drop_rate: Annotated[float, Interval(ge=0, lt=1)] = 0.2,
) -> GoogLeNet:
    """GoogLeNet with batch norm, as in torchvision; 5.6 million weights without its classifier.

    Images (B, 3, 224, 224) become a map (B, 1024, 7, 7). ``pretrained: true`` downloads
    torchvision's ImageNet weights.

    Args:
        drop_rate: dropout of the pooled vector; in an embedder 0 unless it is set.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, arXiv 1409.4842.
    Recipe: `model: {backbone: googlenet, pretrained: true, image_size: 227}`
    """
    return build_model_with_cfg(
        GoogLeNet, "googlenet", pretrained_filter_fn=filter_published_weights, **locals()
    )
