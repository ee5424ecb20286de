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
from fewlabels.models.head import Kind
from fewlabels.models.image_model import ImageModel
from fewlabels.models.modes import evaluating
from fewlabels.models.precision_curve import PrecisionCurve, check_precision, count_needed
from fewlabels.models.saved_folder import ClassifierConfig
from fewlabels.models.shapes import may_compute, trace_blank_image


class Classifier(ImageModel):
    """A timm backbone with its own kind of last layer; features are the input of that layer.

    A backbone with a second head (``backbone_options: {heads: 2}``) gives ``logits2`` too.

    Args:
        backbone: a name of timm, or of a plugin.
        classes: names of the classes, in the order of the logits.
        precision_curve: how often its answers are right on held-out images; a run notes it.

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
        head: Kind | None = None,
        hidden: int = 512,
        mirror: bool = False,
        precision_curve: PrecisionCurve | Mapping[str, Any] | None = None,
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
            head=head,
            hidden=hidden,
            mirror=mirror,
        )
        self.classes = tuple(classes)
        self.precision_curve = (
            None if precision_curve is None else PrecisionCurve.model_validate(precision_curve)
        )
        self.heads: int = self.backbone.heads if has_heads(self.backbone) else 1
        self.backbone.reset_classifier(len(classes))
        self._check_head()

    def _check_head(self) -> None:
        """Refuse a backbone whose logits depend on more than its pooled features.

        Of a model that is loaded only their shapes are compared.
        """
        why: Exception | None = None
        try:
            whole, logits = trace_blank_image(self.backbone, _classify_twice, self.image_size)
            fits = whole.shape == logits.shape == (1, len(self.classes))
            if fits and may_compute():
                images = torch.zeros(1, 3, self.image_size, self.image_size)
                with evaluating(self.backbone), torch.no_grad():
                    fits = torch.allclose(*_classify_twice(self.backbone, images), atol=1e-5)
        except Exception as error:  # a head of its own
            fits, why = False, error
        if not fits:
            raise ModelError(
                f"backbone {self.name!r} does not classify by a last layer on its pooled features; "
                "choose another"
            ) from why

    def forward(self, images: Tensor) -> Output:
        """Features (B, F) and logits (B, C) of images (B, 3, H, W), floats in [0, 1]."""
        with collect_side() as side:
            features = self._extract_features(images)
            logits, logits2 = _compute_logits(self.backbone, features)
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
            return (
                _compute_logits(self.backbone, self._extract_features(batch))[0].float().softmax(1)
            )

        return self._map_batches(images, probabilities, len(self.classes), batch_size, device)

    def find_threshold(self, min_precision: float) -> float:
        """The lowest of the largest probabilities at which at least this share of answers is right.

        It is chosen on labelled images that were held out in training (``data.validation``), so it
        holds for images of the known classes; of others it says nothing.

        Args:
            min_precision: the share, above 0 and below 1.

        Raises:
            ModelError: no image was held out, or too few to bear out such a precision.
        """
        check_precision(min_precision)
        if self.precision_curve is None:
            raise ModelError(
                "this model notes no labelled images that were held out in its training, by which "
                "to choose a threshold; train it with data.validation (precision "
                f"{min_precision:g} takes {count_needed(min_precision)} images or more), or give a "
                "threshold of your own"
            )
        return self.precision_curve.find_point(min_precision).threshold

    def name_classes(self, probabilities: np.ndarray, none_below: float = 0.0) -> list[str | None]:
        """The name of each image's most probable class.

        ::

            probabilities = classifier.predict(photos)
            names = classifier.name_classes(probabilities, classifier.find_threshold(0.95))

        Args:
            probabilities: (N, C), as :meth:`predict` gives them.
            none_below: images whose largest probability is below this get None.
        """
        return [
            self.classes[best] if sure >= none_below else None
            for best, sure in zip(probabilities.argmax(1), probabilities.max(1), strict=True)
        ]

    def _own_config(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "precision_curve": self.precision_curve}


def _compute_logits(backbone: Any, features: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits (B, C) of features (B, F), and those of a second head or None."""
    if has_heads(backbone):
        both: tuple[Tensor, Tensor | None] = backbone.forward_heads(features)
        return both
    last = backbone.get_classifier()
    if isinstance(last, ClassifierHead):  # with the pooling before it
        last = last.fc
    if isinstance(last, nn.Conv2d):
        return last(features[:, :, None, None]).flatten(1), None
    return last(features), None


def _classify_twice(backbone: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, C) by the backbone's own head, and by its last layer on its pooled features."""
    maps = backbone.forward_features(images)
    pooled = backbone.forward_head(maps, pre_logits=True)
    return backbone.forward_head(maps), _compute_logits(backbone, pooled)[0]
