"""Starts a run as far as that needs no image: what it would refuse then, a check tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from fewlabels.errors import FewLabelsError, component_failed
from fewlabels.models.backbone import refuse_unknown_weights
from fewlabels.recipe.recipe import Recipe
from fewlabels.runs.assemble import prepare_loop
from fewlabels.runs.build import check_plugins_made
from fewlabels.runs.expected_data import expect_data
from fewlabels.runs.make_loop import make_pretraining
from fewlabels.runs.parts import RunParts, fit_parts, make_components
from fewlabels.runs.training_data import TrainingData
from fewlabels.training.loop import Loop


def check_start(recipe: Recipe) -> None:
    """Make all that a run makes before its first image, on expected data and random weights.

    It goes the way of a run (:func:`fit_parts`, :func:`prepare_loop`), writes nothing and asks
    nothing of the network.

    Raises:
        FewLabelsError: what a run would refuse.
    """
    check_plugins_made(recipe)
    name, model = recipe.model.backbone, recipe.model
    if model.pretrained:
        refuse_unknown_weights(name)
    if ":" in name:  # of the Hub: what it is, is known once it is fetched
        make_components(recipe)
        return
    try:
        with plain_accelerator() as accelerator:
            start_without_images(without_download(recipe), accelerator, expect_data(recipe))
    except FewLabelsError:
        raise
    except Exception as error:  # a plugin may fail in any way; say where
        raise component_failed("a start without images", error) from error


def without_download(recipe: Recipe) -> Recipe:
    """The recipe with random weights where it asks for pretrained ones."""
    return replace(recipe, model=recipe.model.model_copy(update={"pretrained": False}))


@contextmanager
def plain_accelerator() -> Iterator[Accelerator]:
    """An Accelerator of this process alone on the CPU, as no run leaves or finds one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        yield Accelerator(cpu=True, mixed_precision="no", step_scheduler_with_optimizer=False)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def start_without_images(
    recipe: Recipe, accelerator: Accelerator, data: TrainingData
) -> tuple[RunParts, list[Loop]]:
    """The parts and loops of a run on data of which only the counts are known.

    Returns:
        The loop of the run, and that of its pretraining, if it has one.

    Raises:
        FewLabelsError: what a run would refuse.
    """
    parts = fit_parts(recipe, accelerator, make_components(recipe), data, say=lambda sentence: None)
    loop, _ = prepare_loop(parts)
    pretraining = make_pretraining(parts)
    return parts, [loop, *([pretraining.loop] if pretraining else [])]
