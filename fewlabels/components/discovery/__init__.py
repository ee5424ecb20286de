"""Finds labels, clusters or pairs among images that nobody has labelled."""
