"""What the backbone of a run gives as the run begins, without training: a baseline beside it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import timm
import torch
from accelerate.utils import gather_object
from timm.data import resolve_model_data_config
from torch import Tensor

from fewlabels.data.cached_features import CachedFeatures
from fewlabels.data.decode import resize_to_square
from fewlabels.data.feature_store import find_cache
from fewlabels.evaluation.evaluator import Frozen
from fewlabels.evaluation.extract import BACKBONE, Extractor
from fewlabels.models.embedder import Embedder
from fewlabels.models.image_model import ImageModel
from fewlabels.recipe.recipe import Recipe
from fewlabels.registry import backbones
from fewlabels.runs.frozen_features import FrozenBackbone
from fewlabels.runs.parts import RunParts, make_extractor

SETTINGS = ("image_size", "crop_pct", "interpolation", "mean", "std")
"""Keys of a recipe's model that change how images are prepared."""
OF_WEIGHTS = ("mean", "std")
"""Those that say what a file of weights was trained with, where a recipe has both."""


def has_own_images(recipe: Recipe) -> bool:
    """Whether the backbone begins as somebody else has trained it, on images as it wants them.

    Not one that a pretraining of the run has trained, on the images of the recipe; and of weights
    from a file only where the backbone is one that is published with weights.
    """
    model = recipe.model
    if recipe.pretrain is not None or "img_size" in model.backbone_options:
        return False
    if not (model.pretrained or model.weights):
        return False
    if (arch := model.backbone.split(".")[0]) in backbones.names():
        backbones.get(arch)  # which makes timm know it
    return ":" in model.backbone or bool(timm.models.is_model_pretrained(model.backbone))


def list_given_up(recipe: Recipe) -> list[str]:
    """The keys of a recipe's model in which the frozen backbone follows its own transform."""
    if not has_own_images(recipe):
        return []
    kept = OF_WEIGHTS if recipe.model.weights else ()
    return [key for key in SETTINGS if key not in kept and getattr(recipe.model, key) is not None]


def prepares_otherwise(recipe: Recipe, model: ImageModel) -> bool:
    """Whether the frozen backbone is scored on images that are prepared as a recipe's are not."""
    own = resolve_model_data_config(model.backbone)
    own["image_size"] = own["input_size"][-1]
    run = {**{key: getattr(model, key) for key in SETTINGS[:3]}, **model.statistics}
    changed = list_given_up(recipe)
    return [_plain(own[key]) for key in changed] != [_plain(run[key]) for key in changed]


def find_frozen_size(recipe: Recipe, model: ImageModel) -> int:
    """The side in pixels of the images that the frozen backbone of a recipe is scored on."""
    if not has_own_images(recipe):
        return model.image_size
    return int(resolve_model_data_config(model.backbone)["input_size"][-1])


def count_frozen(recipe: Recipe, parts: RunParts) -> int:
    """Images that the frozen backbone sees beside a run; 0 where it is not scored, or again."""
    if not recipe.evaluation.before or not parts.scoring.can_score():
        return 0
    if not parts.task.fits_frozen and not prepares_otherwise(recipe, parts.builder.model):
        return 0  # the task's own scoring has it
    return len(parts.scoring.rows) + len(find_labelled(parts))


def find_labelled(parts: RunParts) -> np.ndarray:
    """Positions of the training images whose labels the task wants for the frozen backbone."""
    if not parts.task.fits_frozen:
        return np.array([], np.int64)
    return np.flatnonzero(parts.data.labels >= 0)


class FrozenBaseline:
    """Scores the images of a run by its backbone as it begins; called in every process.

    Weights from elsewhere see images as they were trained on, however the recipe prepares its
    own, and their features are kept on disk. A backbone of random or of pretrained weights of the
    run itself sees the run's images. It is without the recipe's blocks.

    Args:
        extract: of the run's models, for the scored images.
    """

    def __init__(self, parts: RunParts, extract: Extractor) -> None:
        self.parts, self.extract = parts, extract

    def __call__(self) -> Frozen | None:
        """What the task makes of the features.

        None where :func:`count_frozen` is 0, in all processes but the main one, or with a sentence
        where it cannot be had.

        Raises:
            UnreadableImageError, DataError: images that cannot be read.
        """
        parts = self.parts
        if not count_frozen(parts.recipe, parts):
            return None
        known, size = find_labelled(parts), find_frozen_size(parts.recipe, parts.builder.model)
        if not has_own_images(parts.recipe):
            found = self._extract_features(known)
        elif why := self._explain_no_cache():
            parts.say(f"the frozen backbone is not scored beside this run: {why}")
            return None
        else:
            found = self._read_features(known)
        if not all(np.isfinite(features).all() for features in found):
            parts.say(
                "the frozen backbone is not scored beside this run: its features are not finite"
            )
            return None
        if not parts.accelerator.is_main_process:
            return None  # the main process makes the rows
        scored, given = (_scale_to_unit_length(features) for features in found)
        classes = len(parts.data.records.classes)
        answers = parts.task.rate_frozen(scored, given, parts.data.labels[known], classes)
        return Frozen(parts.task.frozen_model, answers, size)

    def _make_own_model(self) -> ImageModel:
        """The recipe's backbone with its own evaluation transform."""
        model, given_up = self.parts.recipe.model, list_given_up(self.parts.recipe)
        with torch.random.fork_rng([]):  # the run draws as if this were not here
            return Embedder(
                model.backbone,
                pretrained=model.pretrained,
                weights=model.weights,
                embedding_size=None,
                pooling=model.pooling,
                backbone_options=model.backbone_options,
                head="linear",
                **{key: getattr(model, key) for key in SETTINGS if key not in given_up},
            )

    def _extract_features(self, known: np.ndarray) -> list[np.ndarray]:
        """Features of the scored images and of the training images at ``known``, by the run's."""
        modules = self.parts.modules
        name = next(n for n, m in modules.modules.items() if isinstance(m, ImageModel))
        trained = make_extractor(self.parts, modules, self.parts.pixels)
        return [*self.extract(name, (BACKBONE,)), *trained(name, (BACKBONE,), known)]

    def _read_features(self, known: np.ndarray) -> list[np.ndarray]:
        """The same by the backbone with its own images, from the store."""
        parts, recipe, own = self.parts, self.parts.recipe, self._make_own_model()
        backbone = FrozenBackbone(
            own, parts.accelerator, recipe.train.precision, recipe.data.workers
        )
        alike = not prepares_otherwise(recipe, parts.builder.model)
        found = []
        for rows, pixels, at in (
            (parts.scoring.rows, parts.searched, slice(None)),
            (parts.data.train[known], parts.pixels, torch.from_numpy(known)),
        ):
            images = CachedFeatures(parts.data.records.images, rows, _make_prepare(own))
            if alike and pixels.kept is not None:
                images.kept = pixels.kept[at]
            found.append(backbone.read_features(images))
        return found

    def _explain_no_cache(self) -> str | None:
        """Why features cannot be kept, in any of the processes."""
        why, place = "", find_cache() / "features"
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / ".lock").touch()
        except OSError as error:
            why = f"{place} cannot be written ({error.strerror}); set FEWLABELS_CACHE to a folder"
        processes = self.parts.accelerator.num_processes
        reasons: list[str] = gather_object([why]) if processes > 1 else [why]
        return next((reason for reason in reasons if reason), None)


def _make_prepare(model: ImageModel) -> partial[Tensor]:
    return partial(
        resize_to_square,
        resize_size=model.resize_size,
        image_size=model.image_size,
        interpolation=model.interpolation,
    )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _scale_to_unit_length(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: np.ndarray = features / length.clip(1e-12)
    return scaled
