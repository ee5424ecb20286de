"""Pooling and one or two linear heads: the end of the small classifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn
from torch.nn.functional import dropout


def describe_stages(ends: Mapping[str, tuple[int, int]]) -> list[dict[str, object]]:
    """timm's ``feature_info``: the last module of each stage, with its channels and reduction."""
    return [
        {"module": name, "num_chs": channels, "reduction": reduction}
        for name, (channels, reduction) in ends.items()
    ]


def filter_published_weights(state: dict[str, Tensor], model: Heads) -> dict[str, Tensor]:
    """timm's ``pretrained_filter_fn``, for published weights."""
    return model.published(state)


def keep_linear(linear: nn.Linear) -> nn.Linear:
    """A linear layer as it is."""
    return linear


class Heads(nn.Module):
    """The methods that timm asks of a model, of which a network adds its ``trunk``.

    Args:
        features: channels of the last feature map.
        heads: 1 or 2; Mean Teacher's second head answers the teacher, the first one the labels.
        wrap: changes each linear layer, as weight norm does.
        drop_rate: of the pooled vector, while it trains.
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

    def get_classifier(self) -> nn.Module:
        """The first head."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New heads; 0 classes is none."""
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=True)
        self.num_classes = num_classes
        width = self.num_features * self.global_pool.feat_mult()
        made = [self._build_head(width, num_classes) for _ in range(self.heads)]
        self.fc: nn.Module = made[0]
        self.fc2: nn.Module | None = made[1] if self.heads == 2 else None

    def _build_head(self, width: int, classes: int) -> nn.Module:
        return self.wrap(nn.Linear(width, classes)) if classes > 0 else nn.Identity()

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict as others publish it, in this network's names; one of its own unchanged."""
        return state

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map: the modules that ``trunk`` names, one after the other.

        A network that is no chain of modules has its own.
        """
        maps = images
        for name in self.trunk:
            maps = self.get_submodule(name)(maps)
        return maps

    def forward_heads(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of pooled features (B, F) by each head; None for one that is not there."""
        return self.fc(features), None if self.fc2 is None else self.fc2(features)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The first head's logits of a feature map, or the pooled vector before them."""
        x = dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the pooled vector when there are no classes."""
        return self.forward_head(self.forward_features(images))
