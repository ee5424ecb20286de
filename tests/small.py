"""A recipe's data and model, small enough to be trained in a test."""

DIGITS = {
    "data": {"source": "digits", "split": "official"},
    "model": {
        "backbone": "convnet3",
        "image_size": 16,
        "embedding_size": 16,
        "backbone_options": {"width": 0.25},
    },
    "discovery": {"name": "kmeans", "clusters": 12},
}
