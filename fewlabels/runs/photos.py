"""Photos: what a person gives to ``fewlabels classify``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BACKBONE = "tiny_vit_5m_224.dist_in22k"
"""Small (5 million weights, a sixteenth of a second an image and core), and distilled on the 21,841
classes of ImageNet-22k, so its features know more than a thousand kinds of things."""


@dataclass(frozen=True)
class Photos:
    """What a person gives: images, labels, and through which network they are seen.

    Attributes:
        labels: tables; without any, the folder's own ``labels.csv`` or its folders of classes.
        weights: a file of the backbone's; None: its pretrained weights are fetched.
        skip_unreadable: leave out images that cannot be read.
    """

    path: str
    labels: Sequence[str] = ()
    backbone: str = BACKBONE
    weights: str | None = None
    image_size: int | None = None
    skip_unreadable: bool = False
    seed: int = 0
