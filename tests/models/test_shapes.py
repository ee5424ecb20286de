"""How large images change what it takes to make a model: not at all, until there is one."""

import json
import resource
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fewlabels import Classifier, Embedder
from fewlabels.models import shapes
from fewlabels.models.backbone import make_backbone
from fewlabels.models.shapes import computing_nothing, trace_blank_image

PATCHES = {"embed_dim": 8, "depth": 1, "patch_size": 4, "num_heads": 2}


def pool(network, image):
    return network.forward_head(network.forward_features(image), pre_logits=True)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convnet3", 32), ("wrn28_2", 32), ("googlenet", 64), ("resnet18", 64),
        ("vit_tiny_patch16_224", 224), ("levit_128s", 224), ("convnext_atto", 64),
        ("mobilevit_xxs", 64), ("swinv2_tiny_window8_256", 256), ("tf_efficientnet_lite0", 64),
    ],
)  # fmt: skip
def test_shapes_are_those_that_are_computed(name, size):
    network = make_backbone(name).eval()
    with torch.no_grad():
        computed = pool(network, torch.zeros(1, 3, size, size)).shape
    assert trace_blank_image(network, pool, size).shape == computed


def test_nothing_is_left_behind_in_a_network():
    """LeViT keeps a table of what it has looked up, while in evaluation mode."""
    network = make_backbone("levit_128s")
    states = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    trace_blank_image(network, pool, 224)
    kept = [getattr(module, "attention_bias_cache", {}) for module in network.modules()]
    assert not any(kept)
    assert network.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(states[name], tensor) for name, tensor in network.state_dict().items())


class LooksAtValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.sides = nn.Conv2d(3, 5, 1), []

    def forward(self, images):
        self.sides.append(len(images[0, 0]))
        return self.layer(images) if images.sum() >= 0 else images


def test_a_network_that_looks_at_values_is_computed_unless_a_stranger_wants_a_large_image():
    network = LooksAtValues()
    for size in (16, 600):
        found = trace_blank_image(network, lambda copy, image: copy(image), size)
        assert found.shape == (1, 5, size, size)
    with computing_nothing():
        assert trace_blank_image(network, lambda copy, image: copy(image), 512).shape[1] == 5
        with pytest.raises(RuntimeError):
            trace_blank_image(network, lambda copy, image: copy(image), 513)
    assert shapes.may_compute()
    assert network.sides == []  # its copies have seen them


def test_what_is_refused_is_said_in_one_place(capfd):
    """And not by torch's log, with a traceback, beside it."""
    with pytest.raises(RuntimeError, match="Output size is too small"):
        trace_blank_image(make_backbone("convnet3"), pool, 2)
    assert capfd.readouterr() == ("", "")


def enlarge(folder, size):
    """Change a saved model's config, and the weights that follow from it."""
    config = json.loads((folder / "config.json").read_text()) | {"image_size": size}
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    with torch.device("meta"):
        options = config["backbone_options"]
        large = make_backbone(config["backbone"], image_size=size, options=options).state_dict()
    for name in state:
        if (shape := large.get(name.removeprefix("backbone."))) is not None:
            state[name] = torch.zeros(shape.shape)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("kind", "backbone", "more"),
    [
        (Embedder, "convnet3", {"blocks": [{"name": "cbam", "after": "conv2"}]}),
        (Embedder, "vit_tiny_patch16_224", {"backbone_options": PATCHES}),  # would take an hour
        (Classifier, "resnet18", {"classes": ["cat", "dog"]}),
    ],
)
def test_a_config_that_asks_for_large_images_costs_nothing_to_load(tmp_path, kind, backbone, more):
    size = {"embedding_size": None} if kind is Embedder else {}
    model = kind(backbone, image_size=64, **size, **more)
    model.save_pretrained(tmp_path)
    enlarge(tmp_path, 4096)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    loaded = kind.from_pretrained(tmp_path)
    assert loaded.image_size == 4096
    assert loaded.feature_size == model.feature_size
    assert time.monotonic() - start < 5
    more_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert more_memory < 300_000  # kB; the weights of the second have 34 MB
