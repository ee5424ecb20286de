"""Losses of embeddings and attention; ``pml:NAME`` is any loss of pytorch-metric-learning."""
