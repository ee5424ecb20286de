"""Model folders that version 0.1.0 wrote still load, and give the numbers that it gave."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fewlabels.errors import ModelError
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder

SHARED = {
    "format": 1,
    "backbone": "convnet3",
    "pooling": None,
    "image_size": 8,
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "backbone_options": {"width": 0.0625},
    "plugins": [],
}
EMBEDDER = {**SHARED, "kind": "embedder", "blocks": [], "embedding_size": 3, "normalize": True}
CBAM = {"name": "cbam", "after": "conv2", "reduction": 2}
CLASSIFIER = {**SHARED, "kind": "classifier", "blocks": [CBAM], "classes": ["cat", "dog"]}


def norm_shapes(place, size):
    names = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{place}.{name}": (size,) for name in names}, f"{place}.num_batches_tracked": ()}


def layer_shapes(place, inputs, outputs):
    return {f"{place}.0.weight": (outputs, inputs, 3, 3), **norm_shapes(f"{place}.1", outputs)}


EMBEDDER_SHAPES = {
    **layer_shapes("backbone.conv1", 3, 2),
    **layer_shapes("backbone.conv2", 2, 4),
    **layer_shapes("backbone.conv3", 4, 8),
    "head.weight": (3, 8),
    "head.bias": (3,),
}
CLASSIFIER_SHAPES = {
    **layer_shapes("backbone.conv1", 3, 2),
    **layer_shapes("backbone.conv2.module", 2, 4),
    "backbone.conv2.block.channel.0.weight": (2, 4, 1, 1),
    "backbone.conv2.block.channel.0.bias": (2,),
    "backbone.conv2.block.channel.2.weight": (4, 2, 1, 1),
    "backbone.conv2.block.channel.2.bias": (4,),
    "backbone.conv2.block.spatial.0.weight": (1, 2, 7, 7),
    **norm_shapes("backbone.conv2.block.spatial.1", 1),
    **layer_shapes("backbone.conv3", 4, 8),
    "backbone.fc.weight": (2, 8),
    "backbone.fc.bias": (2,),
}


def write_old_model(folder, config, shapes):
    """The two files of a model of version 0.1.0, with weights that anybody can draw again."""
    rng = np.random.default_rng(0)
    state = {
        name: torch.from_numpy(rng.uniform(0.1, 1, shape).astype(np.float32))
        if shape
        else torch.tensor(7)
        for name, shape in shapes.items()
    }
    for name in state:
        if name.endswith(("0.weight", "head.weight", "fc.weight")):
            state[name] = state[name] - 0.5
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(state, folder / "model.safetensors")


def picture():
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_an_embedder_of_version_0_1_is_read(tmp_path):
    write_old_model(tmp_path / "model", EMBEDDER, EMBEDDER_SHAPES)
    embedder = Embedder.from_pretrained(str(tmp_path / "model"))
    expected = [-0.683364, 0.617356, 0.389723]  # as version 0.1.0 computes it
    assert embedder.encode([picture()])[0] == pytest.approx(expected, abs=1e-5)


def test_a_classifier_with_a_block_of_version_0_1_is_read(tmp_path):
    write_old_model(tmp_path / "model", CLASSIFIER, CLASSIFIER_SHAPES)
    classifier = Classifier.from_pretrained(str(tmp_path / "model"))
    assert classifier.classes == ("cat", "dog")
    expected = [0.977226, 0.022774]  # as version 0.1.0 computes it
    assert classifier.predict([picture()])[0] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(
        ModelError, match=r"train it with data\.validation \(precision 0\.95 takes 45"
    ):
        classifier.find_threshold(0.95)
    classifier.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text("utf-8")) == CLASSIFIER
