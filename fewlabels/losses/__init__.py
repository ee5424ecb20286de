"""Losses, one a file; pml.py bridges every loss of pytorch-metric-learning."""

from fewlabels.registry import losses as _registry

register, get, names = _registry.register, _registry.get, _registry.names
