"""Search in images by their embeddings: the index, its two ways to search, its folder."""
