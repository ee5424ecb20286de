"""Registry: finds components by name.

There are two ways to register one: the decorator ``@losses.register("margin")`` for code in this
process, and the entry-point group ``fewlabels.losses`` for installed distributions, ours included.
Names are listed from package metadata alone, so listing imports no component (and no torch).

The module of an entry point may define ``fewlabels_api = 1``: the version of our contracts that it
is written for. Without that it is taken to be of version 1.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fewlabels.contracts import API_VERSION
from fewlabels.errors import ComponentError, shorten, suggest_nearest
from fewlabels.registry.known_plugins import OUR_PLUGINS
from fewlabels.registry.signature import check_signature

T = TypeVar("T", bound=Callable[..., Any])
OURS = "fewlabels"


class Offer(NamedTuple):
    """Which distribution offers a component under a name.

    For a name registered by the decorator ``entry`` is None and ``distribution`` is the module.
    """

    name: str
    distribution: str
    version: str
    entry: EntryPoint | None

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


def _find_installed(group: str) -> tuple[Offer, ...]:
    """What installed distributions offer, searched anew only where a folder of the path changed."""
    places = [place or "." for place in sys.path if os.path.exists(place or ".")]
    seen = tuple((place, os.stat(place).st_mtime_ns) for place in places)
    return _search_installed(group, seen)


@functools.lru_cache(maxsize=16)
def _search_installed(group: str, seen: tuple[tuple[str, int], ...]) -> tuple[Offer, ...]:
    return tuple(
        Offer(entry.name, dist.name if dist else "?", dist.version if dist else "?", entry)
        for entry in entry_points(group=group)
        for dist in [entry.dist]
    )


class Registry:
    """The components of one kind, by name.

    Args:
        kind: the singular used in messages, as in "no loss is called 'margn'".
        plural: the name of the entry-point group, after ``fewlabels.``.
        bridges: prefix -> ``module:function``, a function that makes a component of the rest of
            ``prefix:name``; used for classes of another library.
    """

    def __init__(self, kind: str, plural: str, bridges: Mapping[str, str] | None = None) -> None:
        self.kind, self.plural, self.group = kind, plural, f"fewlabels.{plural}"
        self.bridges = dict(bridges or {})
        self._registered: dict[str, dict[str, Callable[..., Any]]] = {}  # by name, by module

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers a class or factory under a name.

        Raises:
            ComponentError: the name has characters that are not allowed, another component of the
                module has it, or an option is not keyword-only, annotated and with a default.
        """
        if not re.fullmatch(r"[\w.-]+", name):
            raise ComponentError(
                f"{self.kind} {name!r}: a name has letters, digits, dots, dashes and underscores "
                "alone; choose another"
            )

        def add(component: T) -> T:
            check_signature(component, self.kind, repr(name))
            same = self._registered.setdefault(name, {})
            known = same.get(component.__module__)
            if known is not None and known.__qualname__ != component.__qualname__:
                raise ComponentError(
                    f"two {self.plural} are called {name!r}: {_format_address(known)} and "
                    f"{_format_address(component)}; register one under another name"
                )
            same[component.__module__] = component
            return component

        return add

    def list_offers(self) -> dict[str, list[Offer]]:
        """All names, sorted, with the distributions that offer them; imports nothing."""
        found: dict[str, list[Offer]] = {}
        for offer in _find_installed(self.group):
            same = found.setdefault(offer.name, [])
            if all(offer.distribution != other.distribution for other in same):
                same.append(offer)
        for name, components in self._registered.items():
            same = found.setdefault(name, [])
            installed = {_get_top_package(offer.entry.module) for offer in same if offer.entry}
            same += [  # what an entry point offers may stand under a decorator as well
                Offer(name, module, "", None)
                for module in components
                if _get_top_package(module) not in installed
            ]
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        """All names, sorted."""
        return list(self.list_offers())

    def find_offers(self, name: str) -> list[Offer]:
        """The offers of ``name``, or of ``distribution:name``."""
        distribution, _, bare = name.rpartition(":")
        return [o for o in self.list_offers().get(bare, []) if distribution in ("", o.distribution)]

    def find_plugin(self, name: str) -> Offer | None:
        """The offer of a plugin; None if ``name`` is unknown, built in, or reached by a bridge."""
        offers = self.find_offers(name)
        homes = {_get_top_package(o.entry.module if o.entry else o.distribution) for o in offers}
        return offers[0] if offers and OURS not in homes else None

    def get(self, name: str) -> Callable[..., Any]:
        """Import and return the component ``name``, or ``distribution:name``.

        Raises:
            ComponentError: the name is unknown, two distributions offer it, or the import fails.
        """
        distribution, _, bare = name.rpartition(":")
        if distribution in self.bridges:
            module, _, function = self.bridges[distribution].partition(":")
            component: Callable[..., Any] = getattr(importlib.import_module(module), function)(bare)
            return component
        found = self.find_offers(name)
        if not found:
            raise ComponentError(self.describe_unknown(name))
        if len(found) > 1 and not self._are_one_component(found):
            raise ComponentError(
                f"{self.kind} {name!r} is offered by {' and '.join(map(str, found))}; "
                f"{self.describe_choice(found)}"
            )
        return self.load_offer(found[0])

    def describe_choice(self, found: Sequence[Offer]) -> str:
        """The advice in a message if several distributions offer a name."""
        if self.kind == "backbone":
            return "uninstall one, since timm knows one network by a name"
        return f"write {' or '.join(repr(f'{o.distribution}:{o.name}') for o in found)}"

    def _are_one_component(self, found: Sequence[Offer]) -> bool:
        """Whether all offers are one object, as when a module re-exports another's component."""
        try:
            return len({self.load_offer(offer) for offer in found}) == 1
        except ComponentError:
            return False

    def load_offer(self, offer: Offer) -> Callable[..., Any]:
        """Import the component of an offer.

        Raises:
            ComponentError: it cannot be imported, or is for another version of our contracts.
        """
        name, entry = offer.name, offer.entry
        if entry is None:
            component = self._registered[name][offer.distribution]
            module = sys.modules.get(component.__module__)
            _check_api(getattr(module, "fewlabels_api", 1), self.kind, offer)
            return component
        # before the import, or a missing name is told first
        _check_api(_read_declared_api(entry.module), self.kind, offer)
        try:
            loaded: Callable[..., Any] = entry.load()
        except (Exception, SystemExit) as error:  # a plugin may fail in any way; say whose it is
            raise ComponentError(
                f"{self.kind} {name!r} of {offer} cannot be imported: "
                f"{type(error).__name__}: {error}; pip install --upgrade {offer.distribution}, or "
                "tell its authors"
            ) from error
        _check_api(getattr(sys.modules[entry.module], "fewlabels_api", 1), self.kind, offer)
        check_signature(loaded, self.kind, f"{name!r} of {offer}")
        return loaded

    def describe_unknown(self, name: str) -> str:
        """The message for an unknown name; it says what to install if that is known."""
        ours, name = OUR_PLUGINS.get(self.plural, {}), shorten(name)
        distribution, _, bare = name.rpartition(":")
        distribution = distribution or ours.get(bare, "")
        if distribution and not _is_installed(distribution):
            if distribution in ours.values():
                return (
                    f"{self.kind} {name!r} is of {distribution}, which is not installed; "
                    f"pip install plugins/{distribution}, in a clone of fewlabels"
                )
            close = suggest_nearest(distribution, [*self.bridges, *ours.values()])
            return (
                f"no {self.kind} is called {name!r}: no distribution {distribution!r} is installed"
                f"{close}; install it, if you know and trust it"
            )
        names = self.names()
        return (
            f"no {self.kind} is called {name!r}{suggest_nearest(name, [*names, *ours])} "
            f"(all: {', '.join(names) or 'none'}; fewlabels list {self.plural})"
        )


def _check_api(version: Any, kind: str, offer: Offer) -> None:
    """Raise a ComponentError if a plugin's ``fewlabels_api`` is not our version."""
    if version == API_VERSION and type(version) is int:
        return
    said = f"{kind} {offer.name!r} of {offer} "
    if type(version) is not int or version < 1:
        raise ComponentError(
            f"{said}says fewlabels_api = {version!r}; its authors have to write a whole number, "
            f"as in fewlabels_api = {API_VERSION}"
        )
    old = "fewlabels" if version > API_VERSION else offer.distribution
    raise ComponentError(
        f"{said}is for version {version} of the plugin interface, and this fewlabels has version "
        f"{API_VERSION}; pip install --upgrade {old}"
    )


def _read_declared_api(module: str) -> int:
    """Read ``fewlabels_api = N`` from a module's source without importing it; else our version."""
    try:
        spec = importlib.util.find_spec(module)
        code = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
    except Exception:  # of a package around it; the import to come will say which
        return API_VERSION
    said = re.search(r"^fewlabels_api *= *(\d+)", code, re.MULTILINE)
    return int(said[1]) if said else API_VERSION


def _get_top_package(module: str) -> str:
    return module.partition(".")[0]


def _format_address(component: Callable[..., Any]) -> str:
    return f"{component.__module__}.{component.__qualname__}"


def _is_installed(distribution: str) -> bool:
    try:
        return bool(importlib.metadata.version(distribution))
    except (importlib.metadata.PackageNotFoundError, ValueError):  # the latter: an empty name
        return False


backbones = Registry("backbone", "backbones")
blocks = Registry("block", "blocks")
discovery = Registry("discovery", "discovery")
losses = Registry("loss", "losses", {"pml": "fewlabels.components.losses.pml:resolve_pml_loss"})
sources = Registry("source", "sources")
strategies = Registry("strategy", "strategies")
views = Registry("view", "views")

REGISTRIES: dict[str, Registry] = {
    r.plural: r for r in (backbones, blocks, discovery, losses, sources, strategies, views)
}


def find_registry(kind: str) -> Registry:
    """The registry of a kind of component, given in singular or plural."""
    for registry in REGISTRIES.values():
        if kind in (registry.kind, registry.plural):
            return registry
    known = sorted(REGISTRIES)
    raise ComponentError(
        f"no kind of component is called {kind!r}{suggest_nearest(kind, known)} "
        f"(all: {', '.join(known)})"
    )
