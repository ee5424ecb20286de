"""A component's signature: positional parameters by the program, keyword-only ones by a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fewlabels.contracts import GIVEN
from fewlabels.errors import ComponentError


def list_options(component: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a component, which a recipe may set, by name."""
    return {
        name: parameter
        for name, parameter in inspect.signature(component).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def check_signature(component: Callable[..., Any], kind: str, called: str) -> None:
    """Check that the program or a recipe can set each parameter, and that options can be checked.

    Raises:
        ComponentError: the program does not give a positional parameter, an option has no
            annotation or default, or there is ``**kwargs``.
    """
    what, given = f"{kind} {called}", GIVEN.get(kind)
    try:
        parameters = inspect.signature(component).parameters
    except (TypeError, ValueError) as error:
        raise ComponentError(f"{what} is no class or function with a signature: {error}") from error
    for name, parameter in parameters.items():
        if (
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and given is not None
            and name not in given
        ):
            gives = f" (it gives {', '.join(given)})" if given else ""
            raise ComponentError(
                f"{what}: the program does not give {name!r}{gives}; write * before what a recipe "
                "sets"
            )
        if parameter.kind is parameter.VAR_KEYWORD:
            raise ComponentError(
                f"{what} takes **{name}; name each option, so that it can be checked, or write "
                "def __init__(self) where there is none"
            )
        if parameter.kind is parameter.KEYWORD_ONLY and (
            parameter.default is parameter.empty or parameter.annotation is parameter.empty
        ):
            raise ComponentError(f"{what}: option {name!r} needs an annotation and a default")
