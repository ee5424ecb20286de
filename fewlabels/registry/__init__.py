"""A name becomes a component: registries, entry points, ``--import``, one ``build``."""

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
