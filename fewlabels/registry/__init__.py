"""Finds and builds components by name: registries, entry points, ``--import``."""

from fewlabels.registry.registry import (
    REGISTRIES,
    Offer,
    Registry,
    backbones,
    blocks,
    discovery,
    find_registry,
    losses,
    sources,
    strategies,
    views,
)

__all__ = [
    "REGISTRIES",
    "Offer",
    "Registry",
    "backbones",
    "blocks",
    "discovery",
    "find_registry",
    "losses",
    "sources",
    "strategies",
    "views",
]
