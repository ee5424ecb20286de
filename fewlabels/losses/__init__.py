"""Losses, one a file; pml.py bridges every loss of pytorch-metric-learning."""
