"""Images from any place become batches of pixels: decoding, splits, order, view pipeline."""
