"""The attributes that the program reads of components; missing ones are reported before a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fewlabels.contracts.ramp import Ramp

GIVEN: dict[str, tuple[str, ...]] = {
    "backbone": (
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "cache_dir",
        "num_classes",
        "in_chans",
        "global_pool",
    ),
    "block": ("kind", "channels", "height", "width", "prefix"),
    "discovery": (),
    "loss": ("embedding_size", "classes"),
    "source": (),
    "strategy": (),
    "view": (),
}
"""By kind of component: the positional parameters that the program, or timm for it, can fill."""

READ: dict[str, tuple[str, ...]] = {
    "block": ("forward",),
    "discovery": ("classes", "needs", "discover"),
    "loss": ("forward",),
    "source": ("default_split", "load"),
    "strategy": (
        "task",
        "deploys",
        "weights",
        "modules",
        "seen_through",
        "start",
        "phases",
        "begin",
        "losses",
    ),
    "view": ("draws",),
}
"""By kind of component: the attributes and methods that the program reads."""

TASKS = ("retrieval", "classification", "pretext")


def missing_members(kind: str, made: Any) -> str:
    """Say in words how a component's instance breaks the contract of its kind; "" if it does not.

    Args:
        kind: block, discovery, loss, source, strategy or view; other kinds are not checked.
    """
    missing = [name for name in READ.get(kind, ()) if not _has_member(made, name)]
    if kind == "view" and not (hasattr(made, "matrix") or hasattr(made, "colour")):
        missing.append("matrix or colour")
    if missing:
        return f"it has no {', '.join(missing)}"
    bases = [f"{base.__module__}.{base.__name__}" for base in type(made).__mro__]
    if kind in ("block", "loss") and "torch.nn.modules.module.Module" not in bases:
        return "it is no torch.nn.Module"
    if kind == "strategy" and made.task not in TASKS:
        return f"its task is {made.task!r}, none of {', '.join(TASKS)}"
    kept = [hasattr(made, name) for name in ("state_dict", "load_state_dict")]
    if kind == "discovery" and any(kept) and not all(kept):
        return "it has one of state_dict and load_state_dict, which go together"
    return ""


def _has_member(made: Any, name: str) -> bool:
    """Whether the attribute exists; the default ``forward`` of torch.nn.Module does not count."""
    if not hasattr(made, name):
        return False
    return getattr(getattr(made, name), "__name__", "") != "_forward_unimplemented"


def remark_of(block: Any, losses: Mapping[str, float]) -> str | None:
    """A module's remark about the final values of its loss terms; None if it makes none.

    Args:
        losses: the last values of the loss terms of a phase, by name.
    """
    if not hasattr(block, "remark") or not losses.keys() >= set(block.terms):
        return None
    remark: str | None = block.remark(losses)
    return remark


def weights_of(component: Any) -> Mapping[str, Ramp]:
    """The weights that a strategy or a block declares for its loss terms."""
    declared: Mapping[str, Ramp] = getattr(component, "weights", {})
    return declared


def weighs_labels(strategy: type | Callable[..., Any]) -> bool | None:
    """Whether a strategy's losses count a label by its weight; None if its class does not say.

    What ``weighs_labels`` says goes for the ``losses`` that stand in the same class or above it: a
    subclass that writes ``losses`` of its own says it anew.
    """
    for base in getattr(strategy, "__mro__", ()):
        if "weighs_labels" in vars(base):
            return bool(base.weighs_labels)
        if "losses" in vars(base):
            return None
    return None


def weighs_found(discovery: Any) -> bool:
    """Whether a discovery, or its class, says by ``weigh`` that it weighs the labels it finds."""
    return bool(getattr(discovery, "weigh", False))


def recentre_loss(loss: Any, centres: Any) -> None:
    """Pass class centres to a loss that keeps one vector per class, if it has ``recentre``."""
    if hasattr(loss, "recentre"):
        loss.recentre(centres)


def state_of(component: Any) -> Mapping[str, Any]:
    """The state that a discovery keeps between rounds; empty if it keeps none."""
    return component.state_dict() if hasattr(component, "state_dict") else {}


def restore_state(component: Any, state: Mapping[str, Any]) -> None:
    """Restore what :func:`state_of` gave, if the discovery keeps state."""
    if hasattr(component, "load_state_dict"):
        component.load_state_dict(state)


def padding_of(view: Any) -> Any:
    """How a view wants to fill what lies outside the image; None if it does not say."""
    return getattr(view, "padding", None)


def matrix_of(view: Any) -> Callable[..., Any] | None:
    """A view's ``matrix(draws, side)``, which gives maps source -> view; None if it has none."""
    matrix: Callable[..., Any] | None = getattr(view, "matrix", None)
    return matrix


def colour_of(view: Any) -> Callable[..., Any] | None:
    """A view's ``colour(images, draws)``; None if it does not change colours."""
    colour: Callable[..., Any] | None = getattr(view, "colour", None)
    return colour


def is_exact(view: Any) -> bool:
    """Whether a view's maps, if it has any, send pixels to pixels."""
    return matrix_of(view) is None or bool(getattr(view, "exact", False))


def keeps_mean(block: Any) -> bool:
    """Whether a block keeps its input's mean over positions, so that average pooling undoes it."""
    return bool(getattr(block, "keeps_mean", False))


def rename_published(backbone: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Published weights renamed to a backbone's own names; unchanged if it renames none."""
    rename: Callable[..., dict[str, Any]] = getattr(backbone, "published", dict)
    return rename(state)


def has_heads(backbone: Any) -> bool:
    """Whether a backbone has several heads, whose logits ``forward_heads`` gives."""
    return hasattr(backbone, "forward_heads")


class Counts(NamedTuple):
    """What is published of a data set.

    Attributes:
        parts: images and classes of each part of its split, by name.
        disjoint: whether the classes of ``train`` are others than those of the test.
    """

    parts: Mapping[str, tuple[int, int]]
    disjoint: bool = False


def counts_of(source: Any) -> Counts | None:
    """The published counts of a source, None where it has none: ``counts``, and ``disjoint``."""
    parts = getattr(source, "counts", None)
    if not isinstance(parts, Mapping):
        return None
    return Counts(parts, bool(getattr(source, "disjoint", False)))
