"""Functions on arrays: 3x3 maps, k-means, class centres, selection; random draws and seeds."""
