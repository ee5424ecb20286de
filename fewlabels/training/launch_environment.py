"""Accelerate's variables: they must not say something else than a recipe, whose run they are of."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from fewlabels.errors import FewLabelsError, shorten

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

T = TypeVar("T", "Accelerator", "PartialState")
PREFIX = "ACCELERATE_"
_NEVER = {
    "USE_DEEPSPEED": "false",
    "USE_FSDP": "false",
    "USE_MEGATRON_LM": "false",
    "USE_PARALLELISM_CONFIG": "false",
    "DYNAMO_BACKEND": "no",
}
"""What shards or compiles a model, with the value of those who do not ask for it."""


def start_accelerate(
    make: Callable[[], T], precision: str | None = None, accumulate: int | None = None
) -> T:
    """What ``make`` gets of accelerate, once its variables are seen to want nothing else.

    Args:
        precision: the recipe's; None where there is none.
        accumulate: the recipe's batches per step; None where nothing is trained.

    Raises:
        FewLabelsError: a variable says otherwise, or accelerate cannot start with what they say.
    """
    for name, plain in _NEVER.items():
        if _read_variable(name) not in ("", plain, "0"):
            raise FewLabelsError(
                f"{PREFIX}{name} is {_show_variable(name)}, which no recipe asks for and no run "
                f"here can do; unset it, or set it to {plain} (accelerate launch sets it as its "
                "options and its config say)"
            )
    for name, key, value in [
        ("MIXED_PRECISION", "precision", precision),
        ("GRADIENT_ACCUMULATION_STEPS", "accumulate", accumulate),
    ]:
        # "no" is what accelerate launch sets where nobody asks for a precision.
        if value is not None and _read_variable(name) not in ("", "no", str(value)):
            raise FewLabelsError(
                f"{PREFIX}{name} is {_show_variable(name)}, and the recipe says train.{key}: "
                f"{value}; change the recipe, or unset the variable (accelerate launch sets it as "
                "its options and its config say)"
            )
    import torch

    try:
        started = make()
        torch.empty(1, device=started.device)  # it believes what a variable says of the device
        return started
    except (AssertionError, ImportError, RuntimeError, ValueError) as error:
        given = [f"{name}={_show_variable(name.removeprefix(PREFIX))}" for name in _list_set()]
        here = f"; set here: {', '.join(given)}" if given else ""
        raise FewLabelsError(f"accelerate cannot start: {error}{here}") from error


def _list_set() -> list[str]:
    return sorted(name for name in os.environ if name.startswith(PREFIX))


def _read_variable(name: str) -> str:
    return os.environ.get(PREFIX + name, "").strip().lower()


def _show_variable(name: str) -> str:
    return shorten(os.environ[PREFIX + name])
