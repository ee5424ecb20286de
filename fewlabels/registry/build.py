"""A registered component, made: what the program gives by position, what a recipe sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from fewlabels.contracts import missing_members
from fewlabels.errors import ComponentError, FewLabelsError, component_failed
from fewlabels.registry.registry import REGISTRIES


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
    parameters = inspect.signature(component).parameters.values()
    positional = [program[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
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
