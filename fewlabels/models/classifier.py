"""Classifier: images in, one score a class out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from timm.layers import ClassifierHead
from torch import Tensor, nn

from fewlabels.contracts import Output, collect_side, has_heads
from fewlabels.data.decode import Images
from fewlabels.errors import ModelError
from fewlabels.models.image_model import ImageModel
from fewlabels.models.modes import evaluating
from fewlabels.models.saved_folder import ClassifierConfig


class Classifier(ImageModel):
    """A timm backbone with its own kind of last layer; features are the input of that layer.

    A backbone with a second head (``backbone_options: {heads: 2}``) gives ``logits2`` too.

    Args:
        backbone: a name of timm, or of a plugin.
        classes: names of the classes, in the order of the logits.

    The other arguments are those of :class:`ImageModel`.

    Raises:
        ModelError: as there; fewer than two classes, or a backbone whose logits are not a function
            of its pooled features alone.
    """

    config = ClassifierConfig

    def __init__(
        self,
        backbone: str = "wrn28_2",
        *,
        classes: Sequence[str],
        pretrained: bool = False,
        weights: str | None = None,
        pooling: str | None = None,
        image_size: int | None = None,
        crop_pct: float | None = None,
        interpolation: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        backbone_options: dict[str, Any] | None = None,
        blocks: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        if len(classes) < 2:
            raise ModelError(f"a classifier needs two classes or more, got {list(classes)}")
        super().__init__(
            backbone,
            pretrained=pretrained,
            weights=weights,
            pooling=pooling,
            image_size=image_size,
            crop_pct=crop_pct,
            interpolation=interpolation,
            mean=mean,
            std=std,
            backbone_options=backbone_options,
            blocks=blocks,
        )
        self.classes = tuple(classes)
        self.heads: int = self.backbone.heads if has_heads(self.backbone) else 1
        self.backbone.reset_classifier(len(classes))
        self._check_head()

    @torch.no_grad()
    def _check_head(self) -> None:
        """Refuse a backbone whose logits depend on more than its pooled features."""
        images = torch.zeros(1, 3, self.image_size, self.image_size)
        why: Exception | None = None
        try:
            with evaluating(self.backbone):
                maps = self.backbone.forward_features(images)
                whole = self.backbone.forward_head(maps)
                pooled = self.backbone.forward_head(maps, pre_logits=True)
                fits = whole.shape == (1, len(self.classes))
                fits = fits and torch.allclose(whole, self._compute_logits(pooled)[0], atol=1e-5)
        except (AttributeError, IndexError, RuntimeError, TypeError) as error:  # a head of its own
            fits, why = False, error
        if not fits:
            raise ModelError(
                f"backbone {self.name!r} does not classify by a last layer on its pooled features; "
                "choose another"
            ) from why

    def _compute_logits(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (B, C) of features (B, F), and those of a second head or None."""
        if has_heads(self.backbone):
            both: tuple[Tensor, Tensor | None] = self.backbone.forward_heads(features)
            return both
        last = self.backbone.get_classifier()
        if isinstance(last, ClassifierHead):  # with the pooling before it
            last = last.fc
        if isinstance(last, nn.Conv2d):
            return last(features[:, :, None, None]).flatten(1), None
        return last(features), None

    def forward(self, images: Tensor) -> Output:
        """Features (B, F) and logits (B, C) of images (B, 3, H, W), floats in [0, 1]."""
        with collect_side() as side:
            features = self._extract_features(images)
            logits, logits2 = self._compute_logits(features)
        return Output(features=features, logits=logits, logits2=logits2, side=side)

    def predict(
        self,
        images: Images,
        batch_size: int = 32,
        device: str | torch.device | None = None,
    ) -> np.ndarray:
        """Probabilities of any number of images, in evaluation mode.

        Args:
            images: as :meth:`Embedder.encode` takes them.
            device: where to compute; the model stays there.

        Returns:
            (N, C) float32; column c is ``classes[c]``.
        """

        def probabilities(batch: Tensor) -> Tensor:
            return self._compute_logits(self._extract_features(batch))[0].float().softmax(1)

        return self._map_batches(images, probabilities, len(self.classes), batch_size, device)

    def _own_config(self) -> dict[str, Any]:
        return {"classes": list(self.classes)}
