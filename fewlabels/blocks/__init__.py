"""Blocks that go inside a backbone, and the one way in: :func:`fewlabels.blocks.insert.insert`."""

from fewlabels.registry import blocks as _registry

register, get, names = _registry.register, _registry.get, _registry.names
