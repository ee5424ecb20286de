"""Losses on embeddings and on attention; ``pml:NAME`` is a loss of pytorch-metric-learning."""
