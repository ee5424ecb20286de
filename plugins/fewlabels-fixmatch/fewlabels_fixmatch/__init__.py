"""FixMatch and its strong view, for fewlabels."""
