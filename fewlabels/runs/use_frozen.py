"""How to have what the frozen backbone gives, where a run's training is not worth it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from fewlabels.evaluation.against_frozen import LDA, OWN, describe_loss
from fewlabels.recipe.recipe import Recipe
from fewlabels.runs.frozen_baseline import SETTINGS, list_given_up
from fewlabels.training.run_folder import Row, RunFolder

BETTER_START = "begin from pretrained weights (model.pretrained, model.weights), or train longer"


class Loss(NamedTuple):
    """That training has made things worse, what to do instead, and the code for it or nothing."""

    said: str
    instead: str
    code: str = ""

    def __str__(self) -> str:
        return f"{self.said}; {self.instead}{f': {self.code}' if self.code else ''}"


def find_loss(recipe: Recipe, ends: Sequence[Row], folder: RunFolder | None) -> Loss | None:
    """Whether training has made things worse than the frozen backbone; None where it has not.

    Args:
        ends: last rows of the metrics of runs that differ in their seed alone.
        folder: the run's, as it is named in commands; None: it is not here, only its recipe.
    """
    said = describe_loss(ends)
    if said is None:
        return None
    if ends[0]["frozen_model"] == LDA:
        words = list_lda_overrides(recipe, folder)
        if words is None:
            return Loss(said, BETTER_START)
        place = str(folder.recipe) if folder else "recipe.yaml"
        imports = [word for module in recipe.imports for word in ("--import", module)]
        command = shlex.join(["fewlabels", "run", place, *words, *imports])
        return Loss(said, "to have LDA instead", command)
    code = write_frozen_embedder(recipe, ends[0]["frozen_model"] == OWN, folder)
    if code is None:
        return Loss(said, BETTER_START)
    return Loss(said, "to have the backbone as it is", f'{code}.save_pretrained("frozen")')


def list_lda_overrides(recipe: Recipe, folder: RunFolder | None) -> list[str] | None:
    """Overrides of a recipe that make it LDA on the frozen backbone, with the given labels alone.

    None where the backbone is that of a pretraining, with blocks in it or in another place.
    """
    words = []
    if recipe.pretrain is not None:
        if recipe.blocks or folder is None:
            return None
        words = ["pretrain=null", f"model.weights={folder.pretrain.backbone}"]
    words += ["strategy=lda", "model.frozen=true", "model.head=cosine"]
    words += [f"model.{key}=null" for key in list_given_up(recipe)]
    if recipe.model.backbone_options.get("heads", 1) != 1:
        words += ["model.backbone_options.heads=1"]
    words += [
        f"{key}=[]" for key in ("discovery", "blocks", "losses") if getattr(recipe, key, None)
    ]
    words += ["weights=null"] if recipe.weights else []
    for key in ("factors", "frozen_epochs"):
        words += [f"optimizer.{key}=null"] if getattr(recipe.optimizer, key) else []
    return words + (["optimizer.no_decay=[]"] if recipe.optimizer.no_decay else [])


def write_frozen_embedder(recipe: Recipe, own: bool, folder: RunFolder | None) -> str | None:
    """Python that makes an Embedder of a recipe's backbone as it begins; None of random weights.

    Args:
        own: with its own evaluation transform, not with that of the recipe.
    """
    model, weights = recipe.model, recipe.model.weights
    if recipe.pretrain is not None:
        if recipe.blocks or folder is None:
            return None
        weights = str(folder.pretrain.backbone)
    elif not weights and not model.pretrained:
        return None
    if weights and folder is None:  # where a file lies on this machine is nobody's business
        weights = PurePath(weights).name
    options: dict[str, Any] = {"weights": weights} if weights else {"pretrained": True}
    options["embedding_size"] = None
    given_up = list_given_up(recipe) if own else []
    more = ("pooling", "backbone_options", *(key for key in SETTINGS if key not in given_up))
    options |= {key: value for key in more if (value := getattr(model, key)) not in (None, {})}
    told = "".join(f", {key}={value!r}" for key, value in options.items())
    return f"fewlabels.Embedder({model.backbone!r}{told})"
