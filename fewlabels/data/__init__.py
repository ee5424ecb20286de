"""From images in files, arrays or data sets to batches: decoding, splits, order, view pipeline."""
