"""Networks on the pooled features of a backbone, and a backbone with such a network on top."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize

from fewlabels.models.pooling import pool_features

Kind = Literal["linear", "cosine", "root", "mlp"]
"""Of a head: what it does to pooled features before the last linear layer."""


class Hidden(nn.Module):
    """A hidden layer on feature vectors (B, F, 1, 1): layer norm, linear, ReLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, hidden)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, hidden, 1, 1)."""
        vectors = maps.flatten(1)
        return self.linear(layer_norm(vectors, vectors.shape[1:])).relu()[:, :, None, None]


class HeadNetwork(nn.Module):
    """A network with timm's interface whose images are pooled features (B, F, 1, 1).

    ``linear``: nothing before the last layer; ``cosine``: features are scaled to length 1;
    ``root``: their square roots are, by which large numbers count less; ``mlp``: two hidden layers,
    between which a composition can cut.

    Args:
        width: of the features, F.
        hidden: width of the hidden layers of ``mlp``.
    """

    def __init__(self, width: int, kind: Kind, hidden: int) -> None:
        super().__init__()
        self.kind, self.width = kind, width
        self.stages: tuple[str, ...] = ()
        if kind == "mlp":
            self.hidden1, self.hidden2 = Hidden(width, hidden), Hidden(hidden, hidden)
            self.stages = ("hidden1", "hidden2")
        self.num_features = self.head_hidden_size = hidden if self.stages else width
        self.fc: nn.Module = nn.Identity()

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """timm's description of the stages."""
        return [{"module": s, "num_chs": self.num_features, "reduction": 1} for s in self.stages]

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one; with 0 classes there is none."""
        linear = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.fc = linear

    def forward_features(self, maps: Tensor) -> Tensor:
        """What stands before the last layer, (B, H, 1, 1)."""
        if self.kind == "root":
            maps = maps.sign() * maps.abs().sqrt()
        if self.kind in ("root", "cosine"):
            return normalize(maps)
        for stage in self.stages:
            maps = self.get_submodule(stage)(maps)
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of :meth:`forward_features`; with ``pre_logits``, the vector (B, H)."""
        vectors = maps.flatten(1)
        return vectors if pre_logits else self.fc(vectors)


class HeadedBackbone(nn.Module):
    """A timm backbone whose pooled features pass a :class:`HeadNetwork`; it has timm's interface.

    Args:
        trunk: the backbone, without a classifier.
        mirror: features are the mean of those of an image and of its mirror image; not in training
            mode, where views mirror images.
    """

    def __init__(
        self, trunk: Any, width: int, kind: Kind, hidden: int, mirror: bool = False
    ) -> None:
        super().__init__()
        self.trunk, self.head, self.mirror = trunk, HeadNetwork(width, kind, hidden), mirror
        self.num_features = self.head_hidden_size = self.head.num_features

    @property
    def pretrained_cfg(self) -> Any:
        """timm's facts of the trunk."""
        return self.trunk.pretrained_cfg

    @property
    def drop_rate(self) -> float:
        """Dropout of the trunk's pooled features in training."""
        return float(getattr(self.trunk, "drop_rate", 0.0))

    @drop_rate.setter
    def drop_rate(self, rate: float) -> None:
        self.trunk.drop_rate = rate

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """timm's description of the stages of both."""
        info: Any = getattr(self.trunk, "feature_info", None)
        both = {"trunk": getattr(info, "info", info) or (), "head": self.head.feature_info}
        return [
            {**stage, "module": f"{part}.{stage['module']}"}
            for part, stages in both.items()
            for stage in stages
        ]

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one; with 0 classes there is none."""
        self.head.reset_classifier(num_classes)

    def pool_features(self, images: Tensor) -> Tensor:
        """The trunk's pooled features (B, F) of normalised images (B, 3, H, W)."""
        features = pool_features(self.trunk, images)
        if self.mirror and not self.training:
            features = (features + pool_features(self.trunk, images.flip(-1))) / 2
        return features

    def forward_features(self, images: Tensor) -> Tensor:
        """What stands before the last layer, (B, H, 1, 1), of normalised images."""
        return self.head.forward_features(self.pool_features(images)[:, :, None, None])

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of :meth:`forward_features`; with ``pre_logits``, the vector (B, H)."""
        return self.head.forward_head(maps, pre_logits)
