"""What a strategy's ``task`` means: the model's head, its test, and what discoveries look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fewlabels.contracts import Strategy
from fewlabels.errors import DataError
from fewlabels.evaluation.scoring import ClassificationScoring, RetrievalScoring, Scoring
from fewlabels.models.classifier import Classifier
from fewlabels.models.composition import Composition
from fewlabels.models.embedder import Embedder

if TYPE_CHECKING:
    from fewlabels.recipe.recipe import Recipe
    from fewlabels.runs.training_data import TrainingData
    from fewlabels.training.modules import TrainingModules


class Task(Protocol):
    """One task of strategies.

    Attributes:
        discovery_field: the field of a model's Output that discoveries look at.
        scored: what happens to the test images, for a sentence.
    """

    discovery_field: str
    scored: str

    def make_model(
        self, options: dict[str, Any], embedding_size: int | None, classes: tuple[str, ...]
    ) -> Embedder | Classifier:
        """The recipe's model with the head of this task."""

    def check_labels(self, labels: np.ndarray, strategy: str) -> None:
        """Refuse labels (N,) that the task cannot be learnt from."""

    def keeps_best(self, report: str) -> bool:
        """Whether the model of the smallest validation error is deployed."""

    def make_scoring(
        self,
        recipe: Recipe,
        strategy: Strategy,
        modules: TrainingModules,
        data: TrainingData,
        image_size: int,
    ) -> Scoring:
        """The test of a run's models."""


class Retrieval:
    """Embeddings, by which images of one class find each other."""

    discovery_field = "embedding"
    scored = "retrieved"

    def make_model(
        self, options: dict[str, Any], embedding_size: int | None, classes: tuple[str, ...]
    ) -> Embedder:
        """An embedder; classes are nothing to it."""
        return Embedder(**options, embedding_size=embedding_size)

    def check_labels(self, labels: np.ndarray, strategy: str) -> None:
        """Any labels will do, and none."""

    def keeps_best(self, report: str) -> bool:
        """No: an embedder is the last one."""
        return False

    def make_scoring(
        self,
        recipe: Recipe,
        strategy: Strategy,
        modules: TrainingModules,
        data: TrainingData,
        image_size: int,
    ) -> RetrievalScoring:
        """Recall and its kin, of raw pixels too where the recipe says so."""
        ask = recipe.evaluation
        raw = image_size if ask.pixels else None
        truth, every = data.records.truth, ask.all_against_all
        return RetrievalScoring(strategy.deploys, data.split, truth, ask.ks, every, ask.before, raw)


class Classification:
    """Scores of classes."""

    discovery_field = "features"
    scored = "classified"

    def make_model(
        self, options: dict[str, Any], embedding_size: int | None, classes: tuple[str, ...]
    ) -> Classifier:
        """A classifier of these classes."""
        return Classifier(**options, classes=classes)

    def check_labels(self, labels: np.ndarray, strategy: str) -> None:
        """Some labels are needed.

        Raises:
            DataError: there is none.
        """
        if labels.max() < 0:
            raise DataError(
                f"strategy {strategy!r} trains a classifier, which needs some labels; set "
                "data.labels to a number, or to all, of images whose classes are known"
            )

    def keeps_best(self, report: str) -> bool:
        """Where the recipe reports the best."""
        return report == "best"

    def make_scoring(
        self,
        recipe: Recipe,
        strategy: Strategy,
        modules: TrainingModules,
        data: TrainingData,
        image_size: int,
    ) -> ClassificationScoring:
        """The error of every classifier among the modules, the deployed one first."""
        kinds = (Classifier, Composition)
        names = [name for name, module in modules.modules.items() if isinstance(module, kinds)]
        names.sort(key=lambda name: name != strategy.deploys)

        def list_models(discoveries: int) -> list[str]:
            return [name for name in names if strategy.seen_through(name, discoveries) == name]

        return ClassificationScoring(
            strategy.deploys,
            list_models,
            data.split.test,
            data.validation,
            data.records.truth,
            data.train[data.labels >= 0],
            recipe.evaluation.report,
        )


TASKS: dict[str, Task] = {
    "classification": Classification(),
    "pretext": Retrieval(),  # a pretext task trains a backbone; its head is thrown away
    "retrieval": Retrieval(),
}
