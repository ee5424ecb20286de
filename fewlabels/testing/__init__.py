"""Conformance checks: each requirement on a kind of component is one pytest case.

::

    from fewlabels.testing import conformance

    @conformance("discovery", "my_idea")
    def test_my_idea(check):
        check()

The name of a check says what is true of a component that passes it. The components of this package
are tested by the same checks.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from fewlabels.errors import ComponentError, suggest_nearest
from fewlabels.registry import find_registry
from fewlabels.testing.subject import Checks, Subject

KINDS = ("backbones", "blocks", "discovery", "losses", "sources", "strategies")


def conformance(
    kind: str,
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    after: str | Mapping[str, Any] | None = None,
    exempt: Mapping[str, str] | None = None,
) -> Any:
    """Parametrise a test function, whose one argument is ``check``, with the checks of a kind.

    Args:
        kind: discovery, loss, block, backbone, source or strategy.
        name: the component's name in a recipe.
        options: the component's options in a recipe; small numbers make tests quick.
        recipe: for a strategy, other keys that its recipe needs, as in ``{"blocks": ...}``.
        inputs: for a loss, inputs that no strategy of this package gives, by their names in
            ``forward``: a tensor of 12 rows, or a dict of them, as in ``{"side": {"gaze": ...}}``.
        after: for a discovery, the one before it in a recipe's list, written as there:
            ``{"name": "kmeans", "clusters": 4}``; the test pool then has what that one found.
        exempt: check name -> reason, for checks that cannot pass; these cases are skipped.

    Raises:
        ComponentError: the kind or a check in ``exempt`` is unknown, or its reason is missing;
            ``inputs`` or ``after`` is given for another kind.
    """
    import pytest

    registry = find_registry(kind)
    if registry.plural not in KINDS:
        raise ComponentError(f"no checks are known for {kind!r} (all: {', '.join(KINDS)})")
    module = importlib.import_module(f"fewlabels.testing.{registry.plural}")
    checks: Checks = module.CHECKS
    exempt = exempt or {}
    _check_exempt(exempt, checks, f"conformance of {registry.kind} {name!r}: exempt: ")
    for word, value, plural in (("inputs", inputs, "losses"), ("after", after, "discovery")):
        if value is not None and registry.plural != plural:
            raise ComponentError(f"{registry.kind} {name!r}: {word} is for {plural} alone")
    before = None
    if after is not None:
        spec = {"name": after} if isinstance(after, str) else dict(after)
        before = Subject(registry, spec.pop("name"), spec)
    subject = Subject(
        registry, name, dict(options or {}), dict(recipe or {}), dict(inputs or {}), before
    )
    cases = []
    for check, run in checks.items():
        marks = [pytest.mark.skip(reason=exempt[check])] if check in exempt else []
        if not marks:
            checks.expected.setdefault(check, []).append(subject)
        cases.append(pytest.param(partial(run, subject), id=check, marks=marks))
    return pytest.mark.parametrize("check", cases)


def _check_exempt(exempt: Mapping[str, str], checks: Checks, said: str) -> None:
    for check, reason in exempt.items():
        if check not in checks:
            raise ComponentError(
                f"{said}no check is called {check!r}{suggest_nearest(check, checks)} "
                f"(all: {', '.join(checks)})"
            )
        if not isinstance(reason, str) or not reason.strip():
            raise ComponentError(f"{said}{check} needs its reason, as a sentence")
