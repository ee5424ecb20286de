"""Networks that timm lacks, registered into timm."""

from fewlabels.registry import backbones as _registry

register, get, names = _registry.register, _registry.get, _registry.names
