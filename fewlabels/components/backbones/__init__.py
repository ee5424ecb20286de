"""Backbones that timm does not have."""

from __future__ import annotations


def register_into_timm() -> list[str]:
    """Register the backbones of this package with timm.

    A recipe and :class:`Embedder` need no such call; it is for code that calls timm itself. The
    backbones of plugins are not registered.

    ::

        from fewlabels.components.backbones import register_into_timm

        register_into_timm()
        model = timm.create_model("wrn28_2", num_classes=10)

    Returns:
        The names of the backbones, sorted.
    """
    from fewlabels.registry import backbones

    names = [name for name in backbones.names() if backbones.find_plugin(name) is None]
    for name in names:
        backbones.get(name)
    return names
