"""Global pooling and one or two linear heads, which the backbones of this package share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn
from torch.nn.functional import dropout


def describe_stages(ends: Mapping[str, tuple[int, int]]) -> list[dict[str, object]]:
    """Build timm's ``feature_info`` from the last module of each stage.

    Args:
        ends: by the module's name, its output channels and its reduction (image size by map size).
    """
    return [
        {"module": name, "num_chs": channels, "reduction": reduction}
        for name, (channels, reduction) in ends.items()
    ]


def filter_published_weights(state: dict[str, Tensor], model: Heads) -> dict[str, Tensor]:
    """Convert published weights to the names of ``model``: timm's ``pretrained_filter_fn``."""
    return model.published(state)


def keep_linear(linear: nn.Linear) -> nn.Linear:
    """Return a linear layer unchanged: the ``wrap`` of heads without weight norm."""
    return linear


class Heads(nn.Module):
    """Base of a backbone: the methods that timm asks of a model, with global pooling and heads.

    A subclass lists in ``trunk`` the modules that make the feature map, in forward order, or has a
    ``forward_features`` of its own.

    Args:
        features: channels of the last feature map.
        heads: 1 or 2 linear heads. With two, Mean Teacher trains the first one on labels and
            compares the second one with the teacher.
        wrap: called with each linear layer; gives the head, as with weight norm.
        drop_rate: dropout of the pooled vector in training.

    Raises:
        ValueError: another number of heads.
    """

    trunk: tuple[str, ...]

    def __init__(
        self,
        features: int,
        heads: int,
        wrap: Callable[[nn.Linear], nn.Module] = keep_linear,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if heads not in (1, 2):
            raise ValueError(f"heads is {heads}; expected 1 or 2")
        self.num_features = self.head_hidden_size = features
        self.heads, self.wrap, self.drop_rate = heads, wrap, drop_rate

    def set_norm_momentum(self, momentum: float) -> None:
        """Let batch norms move their running statistics by ``momentum`` of the way a batch."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum

    def get_classifier(self) -> nn.Module:
        """The first head."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the heads by new ones; with 0 classes there is no linear layer."""
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=True)
        self.num_classes = num_classes
        width = self.num_features * self.global_pool.feat_mult()
        made = [self._build_head(width, num_classes) for _ in range(self.heads)]
        self.fc: nn.Module = made[0]
        self.fc2: nn.Module | None = made[1] if self.heads == 2 else None

    def _build_head(self, width: int, classes: int) -> nn.Module:
        """A linear head, or the identity for 0 classes."""
        return self.wrap(nn.Linear(width, classes)) if classes > 0 else nn.Identity()

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert a published state dict to this network's names; here it is returned unchanged."""
        return state

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map (B, F, h, w) of images (B, 3, H, W): the ``trunk`` in order."""
        maps = images
        for name in self.trunk:
            maps = self.get_submodule(name)(maps)
        return maps

    def forward_heads(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (B, C) of pooled features (B, F) by each head; None where there is no second."""
        return self.fc(features), None if self.fc2 is None else self.fc2(features)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The first head's logits of a feature map; with ``pre_logits``, the pooled vector."""
        x = dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the pooled vector when there are no classes."""
        return self.forward_head(self.forward_features(images))
