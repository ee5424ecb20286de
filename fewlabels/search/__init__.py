"""Embeddings files, and an index of images that is searched by image."""
