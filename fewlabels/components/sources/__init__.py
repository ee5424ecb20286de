"""Data sources: images with their labels and other columns."""
