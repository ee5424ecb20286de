"""Builds a component: the program gives positional arguments, a recipe keyword options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fewlabels.contracts import missing_members
from fewlabels.errors import ComponentError, FewLabelsError, component_failed
from fewlabels.registry.registry import REGISTRIES


def list_positional(component: Callable[..., Any]) -> list[str]:
    """The names of a component's positional parameters, which the program gives, not the recipe."""
    parameters = inspect.signature(component).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def build_component(plural: str, name: str, options: Mapping[str, Any], **program: Any) -> Any:
    """Build the component called ``name``, and check that it has what its contract requires.

    Args:
        plural: the registry, as in ``losses``.
        options: values of its keyword-only parameters.
        program: values that the program can give; the component gets those that its positional
            parameters name.

    Raises:
        FewLabelsError: raised by the component; any other exception becomes a ComponentError, which
            is also raised if the component breaks its contract.
    """
    registry = REGISTRIES[plural]
    component = registry.get(name)
    positional = [program[parameter] for parameter in list_positional(component)]
    what = f"{registry.kind} {name!r}"
    try:
        made = component(*positional, **options)
        missing = missing_members(registry.kind, made)  # a property of it may fail too
    except FewLabelsError:
        raise
    except Exception as error:  # a plugin may fail in any way; say which, and where
        raise component_failed(what, error) from error
    if missing:
        raise ComponentError(f"{what} breaks its contract: {missing}")
    return made
