"""Finds which components of a saved model come from plugins, and checks these are installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from fewlabels.errors import ModelError
from fewlabels.models.saved_folder import Plugin
from fewlabels.registry import Registry, backbones, blocks

_REGISTRIES: dict[str, Registry] = {"backbone": backbones, "block": blocks}


def plugins_of(backbone: str, placed: Iterable[Mapping[str, Any]]) -> list[Plugin]:
    """The plugins that offer a backbone and blocks; those built in or of timm are left out."""
    used: dict[tuple[Literal["backbone", "block"], str], None] = {
        ("backbone", backbone.split(".")[0]): None
    }
    used |= {("block", str(block["name"])): None for block in placed}
    found = []
    for kind, name in used:
        if offer := _REGISTRIES[kind].find_plugin(name):
            by = offer.distribution if offer.entry is not None else None
            found.append(Plugin(kind=kind, name=name, distribution=by, version=offer.version))
    return found


def check_plugins(plugins: Sequence[Plugin], what: str) -> None:
    """Refuse a model whose plugin is missing; a component that this process registered will do.

    Args:
        what: the name of the model in errors.

    Raises:
        ModelError: naming the distribution to install.
    """
    for plugin in plugins:
        offers = _REGISTRIES[plugin.kind].find_offers(plugin.name)
        known = any(
            offer.entry is None or plugin.distribution in (None, offer.distribution)
            for offer in offers
        )
        if known:
            continue
        said = f"{what}: {plugin.kind} {plugin.name!r} "
        if plugin.distribution is None:
            raise ModelError(
                f"{said}was registered by a program of its author, not by a plugin; import the "
                "code that registers it first"
            )
        others = ", ".join(offer.distribution for offer in offers)
        instead = f" (the one offered here is of {others})" if others else ""
        raise ModelError(
            f"{said}is of {f'{plugin.distribution} {plugin.version}'.strip()}, which is not "
            f"installed{instead}; pip install {plugin.distribution}, if you trust it"
        )
