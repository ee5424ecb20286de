"""How a run's models are scored on the test images, by task; rows for metrics.jsonl and a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from fewlabels.data.pixels import Pixels
from fewlabels.data.splits import Split
from fewlabels.evaluation import against_frozen
from fewlabels.evaluation.bootstrap import ClassScores
from fewlabels.evaluation.classification import Rule, error_rate, summarize_error
from fewlabels.evaluation.extract import BACKBONE
from fewlabels.evaluation.retrieval_protocol import Examples, RetrievalTest, raw_pixels

Row = dict[str, Any]
NOTHING: Row = {"measure": "nothing scored", "score": float("nan")}
NO_TEST = "there are no test images; name some with data.test"
LABEL_THEM = (
    "put them into one folder a class, name a table of their labels (data.labels_csv), or widen "
    "data.test"
)
Extract = Callable[..., list[np.ndarray]]
"""``extract(model, fields)``: fields of its Output for the scored images; in every process."""


class Scoring(Protocol):
    """One task's test. ``rows`` are the data-set rows of the images that it looks at.

    ``run_models`` is called in every process; ``make_rows`` makes rows for the metrics of what it
    gave, and ``describe_row`` says one of them in words; ``format_table`` sums a run's rows up;
    ``make_final_row`` has its one number (``score``), what that measures, and the same on images
    held out (``validation``) if there are; ``find_examples`` gives what can be shown of the trained
    model, if anything, and is called in every process; after it ``score_classes`` gives the one
    number by class, if the task has that. ``explain_unscored`` says before training
    why there will be no test score, and what to do about it; None where there will be one.
    """

    rows: np.ndarray

    def explain_unscored(self) -> str | None: ...

    def can_score(self) -> bool: ...

    def run_models(
        self, when: str, discoveries: int, extract: Extract
    ) -> dict[str, np.ndarray]: ...

    def make_rows(self, given: dict[str, np.ndarray], when: str, pixels: Pixels) -> list[Row]: ...

    def describe_row(self, row: Row) -> str: ...

    def format_table(self, rows: Sequence[Row]) -> str: ...

    def make_final_row(self, rows: Sequence[Row]) -> Row: ...

    def find_examples(self, extract: Extract) -> Examples | None: ...

    def score_classes(self) -> ClassScores | None: ...


class RetrievalScoring:
    """Retrieval scores of the frozen backbone, the untrained and the trained embedder.

    The frozen backbone is without the blocks that a recipe puts into it.

    Args:
        before: whether to score the frozen backbone and the untrained embedder too.
        raw: also score raw pixels of images of this size; None: do not.
    """

    NAMES = {
        "pixels": "raw pixels",
        "frozen": "backbone before training",
        against_frozen.OWN: against_frozen.NAMES[against_frozen.OWN],
        "untrained": "embedder before training",
        "trained": "embedder after training",
    }

    def __init__(
        self,
        deployed: str,
        split: Split,
        truth: np.ndarray,
        ks: Sequence[int],
        all_against_all: bool,
        before: bool,
        raw: int | None,
    ) -> None:
        self.deployed, self.before, self.raw = deployed, before, raw
        self.test = RetrievalTest(split, truth, ks, all_against_all)
        self.rows = self.test.rows
        self.last: np.ndarray | None = None  # embeddings of the trained model

    def explain_unscored(self) -> str | None:
        """Nothing can be found among the test images, or nothing wrong."""
        if not len(self.rows):
            return NO_TEST
        return f"{self.test.unscored}; {LABEL_THEM}" if self.test.unscored else None

    def can_score(self) -> bool:
        """Whether something can be found."""
        return bool(len(self.rows) and self.test.searches)

    def run_models(self, when: str, discoveries: int, extract: Extract) -> dict[str, np.ndarray]:
        """Embeddings by the name under which they are scored."""
        names: tuple[str, ...] = ("trained",) if when == "trained" else ("frozen", "untrained")
        if not self.test.searches or (when == "before" and not self.before):
            return {}
        fields = ("embedding",) if when == "trained" else (BACKBONE, "embedding")
        found = dict(zip(names, extract(self.deployed, fields), strict=True))
        if when == "trained":
            self.last = found[when]
        return found

    def make_rows(self, given: dict[str, np.ndarray], when: str, pixels: Pixels) -> list[Row]:
        """One row for each model and search."""
        if when == "before" and self.raw and self.test.searches:
            given = {"pixels": raw_pixels(pixels, self.raw), **given}
        return [
            row
            for name, features in given.items()
            for row in self.test.score_features(name, features)
        ]

    def describe_row(self, row: Row) -> str:
        """The row's search and its Recall@1 in percent."""
        return f"{row['search']} recall@1 {100 * row['recall@1']:.1f}"

    def find_examples(self, extract: Extract) -> Examples | None:
        """Examples of the last evaluation; a run resumed after it computes the embeddings again."""
        if self.last is None:
            self.run_models("trained", 0, extract)
        return None if self.last is None else self.test.find_examples(self.last)

    def score_classes(self) -> ClassScores | None:
        """Recall@1 by class of the trained embedder in the first search."""
        return None if self.last is None else self.test.score_classes(self.last)

    def make_final_row(self, rows: Sequence[Row]) -> Row:
        """Recall@1 of the trained embedder in the first search, with its interval by class."""
        own = [row for row in rows if row["model"] == "trained"]
        last = [row for row in own if row["search"] == own[0]["search"]]
        if not last:
            return dict(NOTHING)
        keys = {end: f"{end}.recall@1" for end in ("low", "high")}
        ends = {end: last[-1][key] for end, key in keys.items() if key in last[-1]}
        frozen = against_frozen.choose_frozen(rows, last[-1]["search"])
        return {"measure": "recall@1", "score": last[-1]["recall@1"], **ends, **frozen}

    def format_table(self, rows: Sequence[Row]) -> str:
        """The last scores of each model, in percent."""
        last = {(row["search"], row["model"]): row for row in rows}
        if not last:
            return f"nothing was scored: {self.explain_unscored() or 'no evaluation took place'}"
        first = next(iter(last.values()))
        measures = [k for k in first if k.startswith(("recall", "map", "r_prec", "nmi"))]
        lines = []
        for search in dict.fromkeys(search for search, _ in last):
            lines.append(f"{search:26}" + "".join(f"{m:>13}" for m in measures))
            for model, name in self.NAMES.items():
                if (search, model) in last:
                    shown = last[search, model]
                    if model == against_frozen.OWN:
                        name = against_frozen.name_model(model, shown["image_size"])
                    values = "".join(f"{100 * shown[m]:13.1f}" for m in measures)
                    lines.append(f"  {name:24}{values}")
            row = last[search, "trained"]
            lines.append(
                f"  {row['queries']:.0f} queries; {row['lone']:.0f} more have nothing to find"
                f"{describe_interval(row)}"
            )
        return "\n".join(lines)


def describe_interval(row: Row) -> str:
    """The interval of Recall@1 in percent, as words that end a line; empty where it has none."""
    if "low.recall@1" not in row:  # written by a version before 0.2
        return ""
    low, high = (100 * row[f"{end}.recall@1"] for end in ("low", "high"))
    return f"; with other classes recall@1 {low:.1f} to {high:.1f} (95 %)"


class ClassificationScoring:
    """The error of every model that exists by then, on test and on validation images.

    Args:
        models: gives the names of the models that exist after so many discoveries.
        test, validation: data-set rows. Test images of unknown class, or that are in ``validation``
            or ``given``, are left out.
        given: data-set rows that people have labelled for training.
        rule: the rule by which the run's error is reported.
    """

    def __init__(
        self,
        deployed: str,
        models: Callable[[int], Sequence[str]],
        test: np.ndarray,
        validation: np.ndarray,
        truth: np.ndarray,
        given: np.ndarray,
        rule: Rule,
    ) -> None:
        self.deployed, self.models, self.rule = deployed, models, rule
        self.labels, self.held = len(given), len(validation)
        self.tested, known = len(test), test[truth[test] >= 0]
        self.known, test = len(known), np.setdiff1d(known, [*given, *validation])
        self.rows = np.concatenate([test, validation])
        self.truth, self.count = truth[self.rows], len(test)

    def explain_unscored(self) -> str | None:
        """No test image is of a known class, but for those that people have labelled."""
        if self.count:
            return None
        if self.known:
            return (
                f"the {self.known} test images of known classes are those that people labelled for "
                "training; test on others (data.test, or evaluate --data)"
            )
        return f"no test images of known classes; {LABEL_THEM}" if self.tested else NO_TEST

    def can_score(self) -> bool:
        """Whether there are test images, or ones that are held out."""
        return len(self.rows) > 0

    def run_models(self, when: str, discoveries: int, extract: Extract) -> dict[str, np.ndarray]:
        """Logits by model; nothing before training."""
        if when == "before" or not len(self.rows):
            return {}
        return {model: extract(model, ("logits",))[0] for model in self.models(discoveries)}

    def make_rows(self, given: dict[str, np.ndarray], when: str, pixels: Pixels) -> list[Row]:
        """One row per model."""
        rows = []
        for model, logits in given.items():
            row: Row = {"kind": "evaluation", "model": model, "search": "test images"}
            if self.held:
                held = error_rate(logits[self.count :], self.truth[self.count :])
                row["validation_error"] = held
            if self.count:
                error = error_rate(logits[: self.count], self.truth[: self.count])
                row["error"] = error
            rows.append(row)
        return rows

    def describe_row(self, row: Row) -> str:
        """The row's model and its error in percent; the validation error if there is no test."""
        if "error" in row:
            return f"{row['model']} error {100 * row['error']:.2f}"
        return f"{row['model']} validation error {100 * row['validation_error']:.2f}"

    def find_examples(self, extract: Extract) -> None:
        """Always None: this task has no examples to show."""

    def score_classes(self) -> None:
        """Always None: errors are not bootstrapped by class."""

    def make_final_row(self, rows: Sequence[Row]) -> Row:
        """The error of the deployed model, by the rule of the recipe."""
        if not any(row["model"] == self.deployed for row in rows):
            return dict(NOTHING)
        found = summarize_error(rows, self.deployed, self.rule)
        more = {"validation": found["validation"]} if "validation" in found else {}
        more |= against_frozen.report_lda(rows, self.count)
        if "error" not in found:
            return {**NOTHING, **more}
        return {"measure": "test error", "score": found["error"], **more}

    def format_table(self, rows: Sequence[Row]) -> str:
        """The error of each model by the rule of the recipe, in percent."""
        if not rows:
            return f"nothing was scored: {self.explain_unscored() or 'no evaluation took place'}"
        given = f"{self.labels} labels" + (f" and {self.held} for validation" if self.held else "")
        what = "error" if self.count else "validation"
        lines = [f"test error of {self.count} images; {given}"]
        if not self.count:
            lines = [f"no test image is of a known class: error on validation images; {given}"]
        for model in dict.fromkeys(row["model"] for row in rows):
            if model == against_frozen.LDA:
                continue
            found = summarize_error(rows, model, self.rule)
            how = {"last": "last", "median": f"median of {found['checkpoints']}", "best": "best"}
            lines.append(f"  {model:34}{100 * found[what]:8.2f}  ({how[self.rule]})")
        for row in rows:
            if row["model"] == against_frozen.LDA:
                name = against_frozen.name_model(row["model"], row["image_size"])
                error = row["error" if self.count else "validation_error"]
                lines.append(f"  {name:34}{100 * error:8.2f}  (same labels, nothing trained)")
        return "\n".join(lines)
