"""Builds components from their names, and moves a strategy's modules to the device."""

from __future__ import annotations

import copy
from collections.abc import Collection
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from fewlabels.contracts import ViewComponent, ViewFunction
from fewlabels.data.cached_features import KnownViews
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.errors import ComponentError, FewLabelsError
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder
from fewlabels.models.frozen import detach_head
from fewlabels.ops.seeds import derive_seed
from fewlabels.recipe.recipe import Recipe, Spec
from fewlabels.registry.build import build_component, list_positional
from fewlabels.runs.task import Task
from fewlabels.training.modules import TrainingModules

ALONE = ("strategy", "discovery", "source", "view", "loss")
"""The kinds of component that can be built without a model."""


def build_spec(plural: str, spec: Spec, **program: Any) -> Any:
    """Build the component that a spec names, with its options; see :func:`build_component`."""
    return build_component(plural, spec.name, spec.options, **program)


class Builder:
    """Gives a strategy the model, views and losses of a recipe (contracts.Build)."""

    def __init__(
        self, recipe: Recipe, task: Task, size: int, classes: int | None, names: tuple[str, ...]
    ) -> None:
        self.recipe, self.size, self.classes = recipe, size, classes
        torch.manual_seed(derive_seed(recipe.seed, "weights"))
        same, width = _model_options(recipe), recipe.model.embedding_size
        self.model = task.make_model(same, width, names)
        self.trained = detach_head(self.model) if recipe.model.frozen else self.model
        self.image_size = self.model.image_size
        self.embedding_size = width or self.model.feature_size
        self.known_views = KnownViews(recipe.data.cached_views if recipe.model.frozen else 0)

    def begin_again(self) -> Builder:
        """Another that gives a strategy the trained part as it is now, and no view yet."""
        again = copy.copy(self)
        again.trained = copy.deepcopy(self.trained)
        if self.trained is self.model:
            again.model = again.trained
        again.known_views = KnownViews(self.known_views.count)
        vars(again).pop("view", None)
        return again

    @cached_property
    def view(self) -> ViewFunction:
        """The recipe's views, one after the other."""
        return self.view_with()

    def view_with(self, *more: ViewComponent) -> ViewFunction:
        """A pipeline of the recipe's views followed by ``more``, made by the strategy.

        Where the backbone is frozen, it draws from features of known views.
        """
        views = [build_spec("views", spec) for spec in self.recipe.views]
        pipeline = Pipeline([*views, *more], self.image_size)
        return self.known_views.add_pipeline(pipeline) if self.recipe.model.frozen else pipeline

    def embedder(self) -> Embedder:
        """The recipe's model, for a strategy whose task is retrieval."""
        assert isinstance(self.trained, Embedder)
        return self.trained

    def classifier(self) -> Classifier:
        """The recipe's model, for a strategy whose task is classification."""
        assert isinstance(self.trained, Classifier)
        return self.trained

    def losses(self) -> dict[str, nn.Module]:
        """The recipe's losses by name."""
        torch.manual_seed(derive_seed(self.recipe.seed, "losses"))
        sizes = {"embedding_size": self.embedding_size, "classes": self.classes}
        return {spec.name: build_spec("losses", spec, **sizes) for spec in self.recipe.losses}


def _model_options(recipe: Recipe) -> dict[str, Any]:
    same = recipe.model.model_dump(exclude={"embedding_size", "freeze_batchnorm", "frozen"})
    if recipe.model.frozen:
        same["head"] = recipe.model.head or "linear"
    return {**same, "blocks": [{"name": spec.name, **spec.options} for spec in recipe.blocks]}


def check_plugins_made(recipe: Recipe, kinds: Collection[str] = ALONE) -> None:
    """Try to build each plugin component of a recipe, except those that need sizes of the data.

    Args:
        kinds: the kinds of component to build.

    Raises:
        ComponentError: the messages of :func:`build_spec` for all that fail, one per line.
    """
    mistakes = []
    for registry, spec in recipe.components:
        if registry.kind not in kinds or not registry.find_plugin(spec.name):
            continue
        if list_positional(registry.get(spec.name)):
            continue  # the sizes that it wants are known once images are read
        try:
            build_spec(registry.plural, spec)
        except FewLabelsError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ComponentError("\n".join(mistakes))


def place_modules(
    modules: dict[str, nn.Module], accelerator: Accelerator, channels_last: bool
) -> TrainingModules:
    """Move a strategy's modules to the accelerator's device and wrap them for training."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for module in modules.values():
        module.to(accelerator.device).to(memory_format=memory_format)
    return TrainingModules(modules, accelerator)
