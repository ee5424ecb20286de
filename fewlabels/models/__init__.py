"""Embedder, Classifier and Composition; how they are saved and loaded."""
