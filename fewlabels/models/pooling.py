"""The pooled features of a backbone, before its classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fewlabels.errors import ModelError
from fewlabels.models.shapes import trace_blank_image


def pool_features(backbone: Any, images: Tensor) -> Tensor:
    """Features (B, F) of normalised images (B, 3, H, W)."""
    pooled: Tensor = backbone.forward_head(backbone.forward_features(images), pre_logits=True)
    return pooled


def measure_width(backbone: Any, name: str, pooling: str | None, image_size: int) -> int:
    """Measure the width of the features; the backbone's own figure ignores its pooling.

    Raises:
        ModelError: a backbone that cannot see images of this size, or gives them no vector.
    """
    try:
        features = trace_blank_image(backbone, pool_features, image_size)
    except Exception as error:  # options can make a network fail in any way
        raise ModelError(
            f"backbone {name!r} cannot see images of {image_size} pixels: "
            f"{type(error).__name__}: {error}"
        ) from error
    if features.ndim != 2:
        raise ModelError(
            f"backbone {name!r} with pooling {pooling!r} gives "
            f"{tuple(features.shape[1:])} an image, not a vector; name a pooling, as in avg"
        )
    return features.shape[1]
