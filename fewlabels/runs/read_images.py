"""Has the images of a run ready before its first step: decoded, or their features known."""

from __future__ import annotations

from functools import partial

from fewlabels.contracts import Phase
from fewlabels.data.cached_features import CachedFeatures
from fewlabels.data.examine import examine_images
from fewlabels.errors import DataError
from fewlabels.runs.frozen_features import FrozenBackbone
from fewlabels.runs.parts import RunParts


def read_images(parts: RunParts) -> None:
    """Decode the images once where they fit the recipe's memory, or have their features ready.

    Raises:
        DataError: images that cannot be read, of all that train or are scored.
    """
    try:
        if parts.recipe.model.frozen:
            cache_features(parts)
        else:
            decode_images(parts)
    except DataError:
        quiet = not parts.accelerator.is_main_process
        examine_images(parts.data.records, parts.data.split, 0, False, quiet)
        raise


def cache_features(parts: RunParts) -> None:
    """Read the features of the frozen backbone, or compute them."""
    recipe, views = parts.recipe, parts.builder.known_views
    backbone = FrozenBackbone(
        parts.builder.model, parts.accelerator, recipe.train.precision, recipe.data.workers
    )
    for images in (parts.pixels, parts.searched):
        assert isinstance(images, CachedFeatures)
        if images.columns:  # they are ready
            continue
        pipelines = views.pipelines if images is parts.pixels else []
        images.read_features(partial(backbone.find_columns, images, pipelines, views.count))


def decode_images(parts: RunParts) -> None:
    """Decode the images once where they fit the recipe's memory."""
    budget = parts.recipe.data.memory * 2**30
    quiet = not parts.accelerator.is_main_process
    if parts.pixels.kept is None:
        parts.pixels.decode_all(budget, quiet)
    if parts.searched is not parts.pixels and parts.searched.kept is None:
        parts.searched.decode_all(budget - parts.pixels.nbytes, quiet)


def refuse_pairs(parts: RunParts, phases: list[Phase]) -> None:
    """Refuse matched sub-images with a frozen backbone, of which there are no kept features.

    Raises:
        DataError: so.
    """
    if not any(stream.of == "pairs" for phase in phases for stream in phase.streams.values()):
        return
    for name, discovery in parts.discoveries:
        if discovery.needs().images:
            raise DataError(
                f"discovery {name!r} finds pairs of parts of images, and a frozen backbone has "
                "kept features of whole ones alone; take it out, or set model.frozen: false"
            )
