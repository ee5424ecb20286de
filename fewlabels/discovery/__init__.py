"""Finds labels for unlabelled samples; each discovery reads arrays and gives arrays."""
