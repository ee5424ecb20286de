"""How well a model does: retrieval now, classification later."""
