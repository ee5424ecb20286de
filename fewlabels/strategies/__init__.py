"""How a run trains: each strategy declares its modules, phases and losses; the one loop does."""

from fewlabels.registry import strategies as _registry

register, get, names = _registry.register, _registry.get, _registry.names
