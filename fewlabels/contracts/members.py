"""What the program reads of a component, so that what is missing is told before anything runs."""

from __future__ import annotations

from typing import Any

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
"""By kind, the positional parameters that the program, or timm for it, can fill."""

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
"""By kind, the attributes and methods that the program reads."""

TASKS = ("retrieval", "classification", "pretext")


def lacks(kind: str, made: Any) -> str:
    """What a component, once made, lacks of the contract of its kind, in words; empty for nothing.

    Args:
        kind: block, discovery, loss, source, strategy or view; of others nothing is asked.
    """
    missing = [name for name in READ.get(kind, ()) if not _has(made, name)]
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


def _has(made: Any, name: str) -> bool:
    """Whether an attribute is there; that forward which every torch.nn.Module has is none."""
    if not hasattr(made, name):
        return False
    return getattr(getattr(made, name), "__name__", "") != "_forward_unimplemented"
