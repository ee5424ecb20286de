"""Find labels, clusters or pairs of unlabelled images."""
