"""Networks that timm lacks."""

from __future__ import annotations


def register_into_timm() -> list[str]:
    """Make timm know the backbones of this package, and give their names.

    ::

        from fewlabels.components.backbones import register_into_timm

        register_into_timm()
        model = timm.create_model("wrn28_2", num_classes=10)

    Those of plugins stay out. A recipe and :class:`Embedder` need no such call.
    """
    from fewlabels.registry import backbones

    names = [name for name in backbones.names() if backbones.find_plugin(name) is None]
    for name in names:
        backbones.get(name)
    return names
