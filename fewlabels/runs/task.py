"""The tasks of strategies: each decides the model's head, its scoring and discovery's features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fewlabels.contracts import Strategy
from fewlabels.errors import DataError
from fewlabels.evaluation.against_frozen import LDA, OWN
from fewlabels.evaluation.scoring import ClassificationScoring, RetrievalScoring, Scoring
from fewlabels.models.classifier import Classifier
from fewlabels.models.composition import Composition
from fewlabels.models.embedder import Embedder
from fewlabels.ops.linear_rules import fit_lda, measure_moments

if TYPE_CHECKING:
    from fewlabels.recipe.recipe import Recipe
    from fewlabels.runs.training_data import TrainingData
    from fewlabels.training.modules import TrainingModules


class Task(Protocol):
    """What a strategy's ``task`` decides.

    Attributes:
        discovery_field: the field of a model's Output that discoveries get as features.
        scored: the word for what is done with test images, used in a message: "retrieved".
        frozen_model: the name in the metrics of the frozen backbone with its own images.
        fits_frozen: whether given labels are needed to score the frozen backbone. Where not, the
            task's own scoring has it too, with the images of the run.
    """

    discovery_field: str
    scored: str
    frozen_model: str
    fits_frozen: bool

    def make_model(
        self, options: dict[str, Any], embedding_size: int | None, classes: tuple[str, ...]
    ) -> Embedder | Classifier:
        """Make the recipe's model with the head of this task."""

    def check_labels(self, labels: np.ndarray, strategy: str) -> None:
        """Raise a DataError if the task cannot be learnt from these labels (N,), -1 = none."""

    def keeps_best(self, report: str) -> bool:
        """Whether the model with the smallest validation error is deployed, not the last one."""

    def make_scoring(
        self,
        recipe: Recipe,
        strategy: Strategy,
        modules: TrainingModules,
        data: TrainingData,
        image_size: int,
    ) -> Scoring:
        """Make the object that scores a run's models."""

    def rate_frozen(
        self, scored: np.ndarray, given: np.ndarray, labels: np.ndarray, classes: int
    ) -> np.ndarray:
        """What the scoring takes, from features of length 1 by the frozen backbone.

        Args:
            scored: (N, F) of the scored images.
            given, labels: (M, F) of labelled training images and their classes (M,).
        """


class Retrieval:
    """Embeddings, scored by whether nearest neighbours have the same class."""

    discovery_field = "embedding"
    scored = "retrieved"
    frozen_model = OWN
    fits_frozen = False

    def make_model(
        self, options: dict[str, Any], embedding_size: int | None, classes: tuple[str, ...]
    ) -> Embedder:
        """An embedder; ``classes`` are not used."""
        return Embedder(**options, embedding_size=embedding_size)

    def check_labels(self, labels: np.ndarray, strategy: str) -> None:
        """Accept any labels, also none."""

    def keeps_best(self, report: str) -> bool:
        """False: the last embedder is deployed."""
        return False

    def make_scoring(
        self,
        recipe: Recipe,
        strategy: Strategy,
        modules: TrainingModules,
        data: TrainingData,
        image_size: int,
    ) -> RetrievalScoring:
        """Retrieval measures such as recall, for raw pixels too if ``evaluation.pixels`` is set."""
        ask = recipe.evaluation
        raw = image_size if ask.pixels else None
        truth, every = data.records.truth, ask.all_against_all
        return RetrievalScoring(strategy.deploys, data.split, truth, ask.ks, every, ask.before, raw)

    def rate_frozen(
        self, scored: np.ndarray, given: np.ndarray, labels: np.ndarray, classes: int
    ) -> np.ndarray:
        """The features themselves."""
        return scored


class Classification:
    """A classifier, scored by its test error."""

    discovery_field = "features"
    scored = "classified"
    frozen_model = LDA
    fits_frozen = True

    def make_model(
        self, options: dict[str, Any], embedding_size: int | None, classes: tuple[str, ...]
    ) -> Classifier:
        """A classifier of these classes."""
        return Classifier(**options, classes=classes)

    def check_labels(self, labels: np.ndarray, strategy: str) -> None:
        """Check that at least one image is labelled.

        Raises:
            DataError: no image has a label.
        """
        if labels.max() < 0:
            raise DataError(
                f"strategy {strategy!r} trains a classifier, which needs some labels; set "
                "data.labels to a number, or to all, of images whose classes are known"
            )

    def keeps_best(self, report: str) -> bool:
        """True if ``evaluation.report`` is "best"."""
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

    def rate_frozen(
        self, scored: np.ndarray, given: np.ndarray, labels: np.ndarray, classes: int
    ) -> np.ndarray:
        """Scores (N, C) by LDA with shrinkage .5, all classes equally likely."""
        return fit_lda(measure_moments(given, labels, classes)).score_features(scored)


TASKS: dict[str, Task] = {
    "classification": Classification(),
    "pretext": Retrieval(),  # a pretext task trains a backbone; its head is thrown away
    "retrieval": Retrieval(),
}
