"""Registry: the one way in which a name becomes a component.

Two doors lead in: the decorator ``@losses.register("margin")`` for code in this process, and the
entry-point group ``fewlabels.losses`` for installed distributions, ours included. Names are listed
from package metadata alone, so listing imports no component (and no torch).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, TypeVar

from fewlabels.errors import ComponentError, nearest

T = TypeVar("T", bound=Callable[..., Any])


class Offer(NamedTuple):
    """Where a name comes from; ``entry`` is None for a decorator's name."""

    name: str
    distribution: str
    version: str
    entry: EntryPoint | None


class Registry:
    """Names of one kind of component.

    Args:
        kind: what one is called in a sentence, as in "no loss is called 'margn'".
        plural: the name of the entry-point group, after ``fewlabels.``.
        bridges: by prefix, ``module:function`` that turns the rest of ``prefix:name`` into a
            component; how another library's classes are reached.
    """

    def __init__(self, kind: str, plural: str, bridges: Mapping[str, str] | None = None) -> None:
        self.kind, self.plural, self.group = kind, plural, f"fewlabels.{plural}"
        self.bridges = dict(bridges or {})
        self._registered: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that gives a class or factory its recipe name.

        Raises:
            ComponentError: the name is taken, or the signature breaks the rule that what a
                recipe sets is keyword-only, annotated and has a default.
        """

        def add(component: T) -> T:
            known = self._registered.get(name)
            if known is not None and _address(known) != _address(component):
                raise ComponentError(
                    f"two {self.plural} are called {name!r}: {_address(known)} and "
                    f"{_address(component)}; register one under another name"
                )
            check_signature(component, f"{self.kind} {name!r}")
            self._registered[name] = component
            return component

        return add

    def offers(self) -> dict[str, list[Offer]]:
        """All names with the distributions that offer them, sorted by name; imports nothing."""
        found: dict[str, list[Offer]] = {}
        for entry in entry_points(group=self.group):
            dist = entry.dist
            offer = Offer(
                entry.name, dist.name if dist else "?", dist.version if dist else "?", entry
            )
            same = found.setdefault(entry.name, [])
            if all(offer.distribution != other.distribution for other in same):
                same.append(offer)
        for name, component in self._registered.items():
            found.setdefault(name, [Offer(name, component.__module__, "", None)])
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        """All names, sorted."""
        return list(self.offers())

    def get(self, name: str) -> Callable[..., Any]:
        """The component behind ``name``, or behind ``distribution:name``.

        Raises:
            ComponentError: unknown name, two distributions with one name, or a failing import.
        """
        distribution, _, bare = name.rpartition(":")
        if distribution in self.bridges:
            module, _, function = self.bridges[distribution].partition(":")
            component: Callable[..., Any] = getattr(importlib.import_module(module), function)(bare)
            return component
        if not distribution and name in self._registered:
            return self._registered[name]
        offers = self.offers()
        found = [o for o in offers.get(bare, []) if distribution in ("", o.distribution)]
        if not found:
            raise ComponentError(self.unknown(name, offers))
        if len(found) > 1:
            both = " and ".join(f"{o.distribution} {o.version}" for o in found)
            raise ComponentError(
                f"{self.kind} {name!r} is offered by {both}; "
                f"write '{found[0].distribution}:{name}' to pick one"
            )
        entry = found[0].entry
        if entry is None:
            return self._registered[bare]
        try:
            loaded: Callable[..., Any] = entry.load()
        except Exception as error:  # a plugin may fail in any way; its origin must be named
            raise ComponentError(
                f"{self.kind} {name!r} of {found[0].distribution} {found[0].version} cannot be "
                f"imported: {type(error).__name__}: {error}"
            ) from error
        check_signature(loaded, f"{self.kind} {name!r}")
        return loaded

    def unknown(self, name: str, known: Any = None) -> str:
        """The sentence for a name that nobody offers."""
        names = list(self.names() if known is None else known)
        return (
            f"no {self.kind} is called {name!r}{nearest(name, names)} "
            f"(all: {', '.join(names) or 'none'}; fewlabels list {self.plural})"
        )


def _address(component: Callable[..., Any]) -> str:
    return f"{component.__module__}.{component.__qualname__}"


def options(component: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What a recipe may set: the keyword-only parameters."""
    return {
        name: parameter
        for name, parameter in inspect.signature(component).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def check_signature(component: Callable[..., Any], what: str) -> None:
    """Raise ComponentError unless each option is annotated and has a default; no ``**kwargs``."""
    for name, parameter in inspect.signature(component).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            raise ComponentError(
                f"{what} takes **{name}; name each option, so that it can be checked"
            )
        if parameter.kind is parameter.KEYWORD_ONLY and (
            parameter.default is parameter.empty or parameter.annotation is parameter.empty
        ):
            raise ComponentError(f"{what}: option {name!r} needs an annotation and a default")


backbones = Registry("backbone", "backbones")
blocks = Registry("block", "blocks")
discovery = Registry("discovery", "discovery")
losses = Registry("loss", "losses", {"pml": "fewlabels.losses.pml:pml_loss"})
sources = Registry("source", "sources")
strategies = Registry("strategy", "strategies")
views = Registry("view", "views")

REGISTRIES: dict[str, Registry] = {
    r.plural: r for r in (backbones, blocks, discovery, losses, sources, strategies, views)
}
