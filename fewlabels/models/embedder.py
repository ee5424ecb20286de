"""Embedder: images in, one vector each out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as divide_by_length

from fewlabels.contracts import Output, collect_side
from fewlabels.contracts.outputs import LARGEST_EMBEDDING
from fewlabels.data.decode import Images
from fewlabels.errors import ModelError
from fewlabels.models.head import Kind
from fewlabels.models.image_model import ImageModel
from fewlabels.models.saved_folder import EmbedderConfig


class Embedder(ImageModel):
    """A timm backbone and a linear head; embeddings are L2-normalised, compared by cosine.

    Dropout before the head, as GoogLeNet has it for its classifier, is off unless
    ``backbone_options`` sets ``drop_rate``: with .2 two embeddings of one image have a cosine of
    about .8, and a memory keeps the noise.

    Args:
        backbone: a name of timm, or of a plugin.
        pretrained: download timm's weights.
        weights: a local file of the backbone's weights, instead of ``pretrained``.
        embedding_size: width of the head; None or 0: no head, embeddings are the pooled features.
        pooling: timm's ``global_pool``; None is the backbone's own.
        image_size, crop_pct, interpolation, mean, std: None: as the backbone was trained.
        normalize: L2-normalise in forward.
        backbone_options: passed on to the backbone's constructor.
        blocks: blocks to insert into the backbone: each a mapping of ``name`` (a registered block),
            ``after`` (a module's path), and the block's options.

    Raises:
        ModelError: an unknown backbone, options that it refuses, or weights that do not fit.
    """

    config = EmbedderConfig

    def __init__(
        self,
        backbone: str = "resnet50",
        *,
        pretrained: bool = False,
        weights: str | None = None,
        embedding_size: int | None = 512,
        pooling: str | None = None,
        image_size: int | None = None,
        crop_pct: float | None = None,
        interpolation: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        normalize: bool = True,
        backbone_options: dict[str, Any] | None = None,
        blocks: Sequence[Mapping[str, Any]] = (),
        head: Kind | None = None,
        hidden: int = 512,
        mirror: bool = False,
    ) -> None:
        if embedding_size is not None and not 0 <= embedding_size <= LARGEST_EMBEDDING:
            raise ModelError(
                f"embedding_size {embedding_size}: expected 0 (no head) to {LARGEST_EMBEDDING}"
            )
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
        if "drop_rate" not in self.backbone_options and hasattr(self.backbone, "drop_rate"):
            self.backbone.drop_rate = 0.0
        self.normalize = normalize
        self.embedding_size = embedding_size or self.feature_size
        self.head: nn.Module = nn.Identity()
        if embedding_size:
            linear = nn.Linear(self.feature_size, embedding_size)
            nn.init.kaiming_normal_(linear.weight, mode="fan_out")
            nn.init.zeros_(linear.bias)
            self.head = linear

    def _project_features(self, features: Tensor) -> Tensor:
        # In half precision neighbours of an embedding would fall together.
        with torch.autocast(features.device.type, enabled=False):
            vectors: Tensor = self.head(features.float())
        return vectors

    def forward(self, images: Tensor) -> Output:
        """Features and embeddings of images (B, 3, H, W), floats in [0, 1]."""
        with collect_side() as side:
            features = self._extract_features(images)  # (B, feature_size)
        embedding = self._project_features(features)  # (B, embedding_size) float32
        if self.normalize:
            embedding = scale_to_unit_length(embedding)
        return Output(features=features, embedding=embedding, side=side)

    def encode(
        self,
        images: Images,
        batch_size: int = 32,
        normalize: bool = True,
        device: str | torch.device | None = None,
    ) -> np.ndarray:
        """Embeddings of any number of images, in evaluation mode.

        Args:
            images: a file, a folder (its images in sorted order, subfolders too), a PIL image, a
                uint8 array (H, W, 3), a tensor (B, 3, H, W) of uint8 or of floats in [0, 1], a
                sequence of any of these, or an image column of the datasets library. Tensors of
                the model's own size are taken as preprocessed.
            normalize: L2-normalise the rows.
            device: where to compute; the model stays there.

        Returns:
            (N, D) float32.

        Raises:
            ModelError: an item that cannot be read, named by its position; or the model gives it no
                finite vector.
        """

        def embed(batch: Tensor) -> Tensor:
            vectors = self._project_features(self._extract_features(batch))
            return scale_to_unit_length(vectors) if normalize else vectors

        return self._map_batches(images, embed, self.embedding_size, batch_size, device)

    def _own_config(self) -> dict[str, Any]:
        headed = isinstance(self.head, nn.Linear)
        size = self.embedding_size if headed else None
        return {"embedding_size": size, "normalize": self.normalize}


def scale_to_unit_length(vectors: Tensor) -> Tensor:
    """Rows of unit length; those of zeros stay zero, and those beyond float32's lengths are NaN."""
    endless = vectors.norm(dim=1, keepdim=True).isinf()  # divided by it, they would be zero too
    return divide_by_length(vectors).masked_fill(endless, torch.nan)
