"""Embedder: images in, one vector each out; preprocessing lives inside the model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.functional import normalize as unit_length
from torchvision.transforms.functional import to_pil_image

from fewlabels.contracts import Output, collect_side
from fewlabels.data.pixels import centre
from fewlabels.errors import ModelError
from fewlabels.models import folder as folders
from fewlabels.models import images as pixels
from fewlabels.models.backbone import load_exactly, load_weights, make_backbone


class Embedder(nn.Module):
    """A timm backbone and a linear head; embeddings are L2-normalised, compared by cosine.

    Args:
        backbone: a name of timm, or of a plugin.
        pretrained: download timm's weights.
        weights: a local file of the backbone's weights instead.
        embedding_size: width of the head; None or 0 is no head, the pooled features themselves.
        pooling: timm's ``global_pool``; None is the backbone's own.
        image_size, crop_pct, interpolation, mean, std: None is what the backbone was trained with.
        normalize: L2-normalise in forward.
        backbone_options: passed on to the backbone's constructor.

    Raises:
        ModelError: an unknown backbone, options that it refuses, or weights that do not fit.
    """

    mean: Tensor
    std: Tensor

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
    ) -> None:
        super().__init__()
        self.name, self.pooling, self.normalize = backbone, pooling, normalize
        self.backbone_options = dict(backbone_options or {})
        self.backbone: Any = make_backbone(
            backbone,
            pretrained=pretrained,
            pooling=pooling,
            image_size=image_size,
            options=self.backbone_options,
        )
        if weights is not None:
            load_weights(self.backbone, weights)
        if any(values is not None and len(values) != 3 for values in (mean, std)):
            raise ModelError(f"mean {mean}, std {std}: expected three numbers each, for R, G and B")
        given = {"crop_pct": crop_pct, "interpolation": interpolation, "mean": mean, "std": std}
        known = resolve_model_data_config(self.backbone, args=given)
        self.image_size: int = image_size or known["input_size"][-1]
        self.crop_pct, self.interpolation = float(known["crop_pct"]), str(known["interpolation"])
        if not 0 < self.crop_pct <= 1:
            raise ModelError(f"crop_pct {self.crop_pct}: expected a share of the image, in (0, 1]")
        self.statistics = {n: tuple(float(v) for v in known[n]) for n in ("mean", "std")}
        for name, values in self.statistics.items():
            buffer = torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)
        self.feature_size = self._measure()
        self.embedding_size = embedding_size or self.feature_size
        self.head: nn.Module = nn.Identity()
        if embedding_size:
            linear = nn.Linear(self.feature_size, embedding_size)
            nn.init.kaiming_normal_(linear.weight, mode="fan_out")
            nn.init.zeros_(linear.bias)
            self.head = linear

    @torch.no_grad()
    def _measure(self) -> int:
        """The width of the features; what a backbone says of itself leaves its pooling out."""
        training = self.backbone.training
        self.backbone.eval()
        try:
            features = self._features(torch.zeros(1, 3, self.image_size, self.image_size))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ModelError(
                f"backbone {self.name!r} cannot see images of {self.image_size} pixels: {error}"
            ) from error
        self.backbone.train(training)
        if features.ndim != 2:
            raise ModelError(
                f"backbone {self.name!r} with pooling {self.pooling!r} gives "
                f"{tuple(features.shape[1:])} an image, not a vector; name a pooling, as in avg"
            )
        return features.shape[1]

    def _features(self, images: Tensor) -> Tensor:
        maps = self.backbone.forward_features((images - self.mean) / self.std)
        pooled: Tensor = self.backbone.forward_head(maps, pre_logits=True)
        return pooled

    def _project(self, features: Tensor) -> Tensor:
        # In half precision neighbours of an embedding would fall together.
        with torch.autocast(features.device.type, enabled=False):
            vectors: Tensor = self.head(features.float())
        return vectors

    def forward(self, images: Tensor) -> Output:
        """Features and embeddings of images (B, 3, H, W), floats in [0, 1]."""
        with collect_side() as side:
            features = self._features(images)  # (B, feature_size)
        embedding = self._project(features)  # (B, embedding_size) float32
        if self.normalize:
            embedding = unit_length(embedding)
        return Output(features=features, embedding=embedding, side=side)

    # ------------------------------------------------------------------------ images

    @property
    def resize_size(self) -> int:
        """The shorter side of an image before the centre is cut out."""
        return math.floor(self.image_size / self.crop_pct)

    def canvas(self, image: Image.Image) -> Tensor:
        """The middle square of an image at ``resize_size``: (3, R, R) uint8, to cut views from."""
        return pixels.canvas(image, self.resize_size, self.image_size, self.interpolation)

    def preprocess(self, image: Image.Image) -> Tensor:
        """timm's evaluation transform before normalisation: (3, S, S) uint8.

        An image is turned as its EXIF tag says. The crop is timm's "center" for every backbone, so
        that what is trained on, evaluated and encoded are the same pixels.
        """
        return centre(self.canvas(image), self.image_size)

    def _prepare(self, image: Image.Image | Tensor) -> Tensor:
        """(3, S, S) floats in [0, 1]; a tensor of that size already is taken as it is."""
        if isinstance(image, Tensor) and image.shape[1:] != (self.image_size,) * 2:
            if image.is_floating_point():
                square = pixels.canvas(image, self.resize_size, self.image_size, self.interpolation)
                return centre(square, self.image_size).clamp(0, 1).cpu()
            image = to_pil_image(image.cpu())
        ready = image.cpu() if isinstance(image, Tensor) else self.preprocess(image)
        return ready if ready.is_floating_point() else ready.float() / 255

    def encode(
        self,
        images: pixels.Images,
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
            ModelError: an item that cannot be read, named by its position.
        """
        if device is not None:
            self.to(device)
        training = {module: module.training for module in self.modules()}
        self.eval()
        rows = [np.empty((0, self.embedding_size), np.float32)]
        try:
            prepared = pixels.each(images, self._prepare)
            while batch := list(itertools.islice(prepared, batch_size)):
                # Not inference_mode: what a backbone caches in it could never be trained with.
                with torch.no_grad():
                    features = self._features(torch.stack(batch).to(self.mean.device))
                    vectors = self._project(features)
                rows.append((unit_length(vectors) if normalize else vectors).cpu().numpy())
        finally:
            for module, mode in training.items():
                module.training = mode
        return np.concatenate(rows)

    # ------------------------------------------------------------------------ saving

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder."""
        # The architecture where the name is a place: what is loaded must not be fetched.
        placed = ":" in self.name
        architecture = self.backbone.pretrained_cfg["architecture"] if placed else self.name
        config = folders.EmbedderConfig(
            backbone=architecture,
            embedding_size=self.embedding_size if isinstance(self.head, nn.Linear) else None,
            pooling=self.pooling,
            image_size=self.image_size,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,  # type: ignore[arg-type]
            **self.statistics,  # type: ignore[arg-type]
            normalize=self.normalize,
            backbone_options=self.backbone_options,
        )
        folders.write(Path(folder), config, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Embedder:
        """The embedder in a folder, in evaluation mode; downloads nothing and unpickles nothing.

        Raises:
            ModelError: no such folder, or one that does not hold an embedder.
        """
        folder = Path(folder)
        config, state = folders.read(folder)
        embedder = cls(**config.model_dump(exclude={"format", "kind"}))
        load_exactly(embedder, state, str(folder / folders.WEIGHTS))
        return embedder.eval()
