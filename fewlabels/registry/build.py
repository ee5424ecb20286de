"""A registered component, made: what the program gives by position, what a recipe sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fewlabels.contracts import missing_members
from fewlabels.errors import ComponentError, FewLabelsError, component_failed
from fewlabels.registry.registry import REGISTRIES


def list_positional(component: Callable[..., Any]) -> list[str]:
    """The parameters of a component that the program gives, not the recipe."""
    parameters = inspect.signature(component).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def build_component(plural: str, name: str, options: Mapping[str, Any], **program: Any) -> Any:
    """The component of a registry that ``name`` means.

    Args:
        plural: the registry, as in ``losses``.
        options: its keyword-only parameters.
        program: what the program can give; a component gets those that its positional parameters
            name.

    Raises:
        FewLabelsError: the component's own, or a ComponentError for any other exception in it, and
            for what it lacks.
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
