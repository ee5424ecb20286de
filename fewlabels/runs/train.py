""":func:`train` runs a recipe and writes a run folder."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabels.errors import FewLabelsError
from fewlabels.recipe.recipe import Recipe, load_recipe, recipe_from
from fewlabels.runs.provenance import refuse_other_plugins
from fewlabels.runs.resume import refuse_edited_recipe, refuse_ended
from fewlabels.training.processes import leave_processes
from fewlabels.training.run_folder import RunFolder

if TYPE_CHECKING:
    from fewlabels.models.classifier import Classifier
    from fewlabels.models.embedder import Embedder


@dataclass(frozen=True)
class Result:
    """The run folder and scores of a finished run."""

    folder: Path
    scores: list[dict[str, Any]]  # rows of metrics.jsonl of the kind "evaluation"

    def embedder(self) -> Embedder:
        """The trained embedder, loaded from the run folder."""
        from fewlabels.models.embedder import Embedder

        return Embedder.from_pretrained(RunFolder(self.folder).model)

    def classifier(self) -> Classifier:
        """The trained classifier, loaded from the run folder."""
        from fewlabels.models.classifier import Classifier

        return Classifier.from_pretrained(RunFolder(self.folder).model)

    def score(self, model: str = "trained", metric: str = "recall@1") -> float:
        """The last score of the model ``pixels``, ``frozen``, ``untrained`` or ``trained``."""
        rows = [row for row in self.scores if row["model"] == model]
        if not rows:
            known = ", ".join(dict.fromkeys(row["model"] for row in self.scores)) or "none"
            raise FewLabelsError(f"this run has no scores of {model!r} (it has: {known})")
        last = [row for row in rows if row["search"] == rows[0]["search"]][-1]
        return float(last[metric])


def train(
    recipe: str | Path | dict[str, Any] | Recipe | None = None,
    overrides: Sequence[str] = (),
    out: str | Path = "runs",
    resume: str | Path | None = None,
    imports: Sequence[str] = (),
) -> Result:
    """Run a recipe, and write a run folder under ``out``.

    Args:
        recipe: a YAML file, its content as a dict, or a loaded recipe; not given with ``resume``.
        overrides: ``key=value``, as on the command line.
        resume: the folder of a stopped run to continue; it ends with the same weights as a run
            that was not stopped.
        imports: modules that register components of yours; see :func:`load_recipe`.

    Raises:
        FewLabelsError: mistakes in the recipe or the data, one sentence each.
    """
    if resume is not None:
        if not RunFolder(resume).recipe.is_file():
            raise FewLabelsError(
                f"{resume} is no run folder: it has no recipe.yaml; check --resume"
            )
        if recipe is not None or overrides:
            raise FewLabelsError("a resumed run keeps its own recipe; give --resume alone")
        loaded = load_recipe(RunFolder(resume).recipe, imports=imports)
        refuse_edited_recipe(loaded, Path(resume))
        refuse_other_plugins(
            loaded, Path(resume), "install the earlier one again, or run the recipe anew"
        )
        refuse_ended(RunFolder(resume))
    elif isinstance(recipe, Recipe):
        if overrides or imports:
            raise FewLabelsError("a loaded recipe is what it is; give load_recipe the overrides")
        loaded = recipe
    elif isinstance(recipe, dict):
        loaded = recipe_from(recipe, overrides, imports)
    elif recipe is not None:
        loaded = load_recipe(recipe, overrides, imports)
    else:
        raise FewLabelsError("no recipe given; name a YAML file, or a run folder to resume")
    from fewlabels.runs.assemble import assemble_run  # imports torch: only once the recipe stands

    atexit.unregister(leave_processes)  # after a mistake nobody waits for the others
    result = Result(*assemble_run(loaded, Path(out), None if resume is None else Path(resume)))
    atexit.register(leave_processes)
    return result
