"""Scores of a model on labelled images, and tables and pictures of them."""
