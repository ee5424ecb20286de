"""Computes the features of a frozen backbone once, and keeps them for later runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from fewlabels.data.cached_features import CachedFeatures, Column
from fewlabels.data.feature_store import (
    FeatureStore,
    find_cache,
    hash_images,
    make_room,
    read_limit,
)
from fewlabels.data.pixels import Pixels, crop_centre
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.models.fingerprint import fingerprint_model
from fewlabels.models.frozen import TRUNK, pool_features
from fewlabels.models.image_model import ImageModel
from fewlabels.models.modes import evaluating

FORMAT = 1
"""Changes whenever features, views or their seeds are made in another way."""
BATCH = 32


class FrozenBackbone:
    """The backbone of a model, whose features are read from a store or computed into it.

    Args:
        model: whole, with a ``head``.
        precision: in which the backbone computes, as its features depend on it.
        workers: processes that decode what is not kept in memory.
    """

    def __init__(
        self, model: ImageModel, accelerator: Accelerator, precision: str, workers: int
    ) -> None:
        self.model, self.accelerator, self.workers = model, accelerator, workers
        made = f"{FORMAT} {precision} {fingerprint_model(model, TRUNK)}"
        name = hashlib.sha256(made.encode()).hexdigest()[:16]
        self.root = find_cache() / "features"
        self.folder = self.root / f"{model.name.split('/')[-1]}-{name}"
        self.width: int = model.backbone.head.width

    def find_columns(
        self, images: CachedFeatures, pipelines: Sequence[Pipeline], count: int
    ) -> list[Column]:
        """The features of images, and those of ``count`` views by each pipeline.

        Called in every process; each computes a share of what is not in the store.

        Raises:
            UnreadableImageError, DataError: images that cannot be read.
        """
        keys = hash_images(images.images, images.rows)
        views: list[tuple[Pipeline | None, int]] = [(None, 0)]
        views += [(pipeline, number) for pipeline in pipelines for number in range(count)]
        stores = [
            FeatureStore(self.folder / name_view(pipeline, number), self.width)
            for pipeline, number in views
        ]
        lacking = np.zeros((len(keys), len(stores)), bool)
        for column, store in enumerate(stores):
            lacking[:, column] = store.find_rows(keys) < 0
        _, first = np.unique(keys, return_index=True)  # copies of an image are computed once
        rows = np.intersect1d(np.flatnonzero(lacking.any(1)), first)
        self.accelerator.wait_for_everyone()
        self._compute(images, keys, rows, lacking, views, stores)
        self.accelerator.wait_for_everyone()
        columns = [(store.map_rows(), store.find_rows(keys)) for store in stores]
        if self.accelerator.is_main_process:
            make_room(self.root, read_limit(), {store.folder for store in stores})
        return columns

    def read_features(self, images: CachedFeatures) -> np.ndarray:
        """Features (N, F) float32 of images without a view."""
        ((mapped, at),) = self.find_columns(images, [], 0)
        return mapped[at].astype(np.float32)

    def _compute(
        self,
        images: CachedFeatures,
        keys: np.ndarray,
        rows: np.ndarray,
        lacking: np.ndarray,
        views: Sequence[tuple[Pipeline | None, int]],
        stores: Sequence[FeatureStore],
    ) -> None:
        mine = np.array_split(rows, self.accelerator.num_processes)[self.accelerator.process_index]
        batches = [mine[i : i + BATCH].tolist() for i in range(0, len(mine), BATCH)]
        hidden = True if not self.accelerator.is_main_process else None
        self.model.backbone.to(self.accelerator.device)
        pixels = Pixels(images.images, images.rows, images.prepare)
        pixels.kept = images.kept
        loader = pixels.iterate_batches(batches, self.workers)
        with evaluating(self.model), torch.no_grad():
            for at, squares in tqdm(loader, "features", len(batches), disable=hidden, leave=False):
                chosen = at.numpy()
                for column, (view, store) in enumerate(zip(views, stores, strict=True)):
                    wanted = np.flatnonzero(lacking[chosen, column])
                    if len(wanted):
                        own = keys[chosen[wanted]]
                        inputs = self._draw_view(squares[wanted], own, *view)
                        store.add_rows(own, self._pool(inputs))

    def _draw_view(
        self, squares: Tensor, keys: np.ndarray, pipeline: Pipeline | None, number: int
    ) -> Tensor:
        """Floats (B, 3, S, S): the middle, or a view that depends on the image's content alone."""
        if pipeline is None:
            return crop_centre(squares, self.model.image_size).float() / 255
        drawn = []
        for square, key in zip(squares, keys, strict=True):
            seed = int.from_bytes(bytes(key)[:7], "little") + number
            generator = torch.Generator().manual_seed(seed)
            drawn.append(pipeline(square[None], generator).images)
        return torch.cat(drawn)

    def _pool(self, inputs: Tensor) -> np.ndarray:
        moved = inputs.to(self.accelerator.device, memory_format=torch.channels_last)
        with self.accelerator.autocast():
            found = pool_features(self.model, moved)
        return found.float().cpu().numpy()


def name_view(pipeline: Pipeline | None, number: int) -> Path:
    """The folder in the store of an image itself, or of a view by its pipeline and number."""
    if pipeline is None:
        return Path("plain")
    made = [[type(view).__qualname__, _describe(view)] for view in pipeline.views]
    text = json.dumps([made, pipeline.size], sort_keys=True, default=str)
    return Path(f"view-{hashlib.sha256(text.encode()).hexdigest()[:16]}") / str(number)


def _describe(view: Any) -> dict[str, Any]:
    return vars(view) if hasattr(view, "__dict__") else {}
