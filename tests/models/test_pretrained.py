"""Pretrained backbones: fetched by timm where the Hub gives them out, and else a sentence at once."""

import json
import time

import pytest
import timm
import torch
from hub_client import started
from safetensors.torch import save

from fewlabels.errors import FewLabelsError
from fewlabels.models.embedder import Embedder

PRETRAINED = "timm/test_resnet.r160_in1k"  # where timm looks for the weights of test_resnet
MORE = "; or give weights: FILE, a local file of its weights, with "


def weight_of(name, pretrained):
    """The sum of the first weights of a backbone, or the sentence."""
    begin = time.monotonic()
    try:
        model = Embedder(name, pretrained=pretrained, embedding_size=4, image_size=64)
    except FewLabelsError as error:
        assert time.monotonic() - begin < 10
        return str(error)
    return model.backbone.conv1[0].weight.sum().item()


@pytest.fixture(scope="module")
def published():
    """The files of a backbone as timm publishes it, and the sum of its first weights."""
    torch.manual_seed(5)
    model = timm.create_model("test_resnet")
    config = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": {}}
    files = {
        "model.safetensors": save(model.state_dict()),
        "config.json": json.dumps(config).encode(),
    }
    return files, model.conv1[0].weight.sum().item()


ASK = [("test_resnet", True, PRETRAINED), ("hf-hub:lab/net", False, "lab/net")]
PASSES = (500, "cut", 4.0)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ((401, {"X_Error_Code": "RepoNotFound"}), "no such repository on the Hub, or a private"),
        ((403, {"X_Error_Code": "GatedRepo"}), "is gated: ask for access at"),
        ((404, {"X_Error_Code": "RepoNotFound"}), "no such repository on the Hub"),
        ((429, {}), "asked too often"),
        (PASSES[0], "the Hub has an error of its own (500)"),
        (PASSES[1], "or the line was cut"),
        (PASSES[2], "does not answer in time"),
    ],
)
def test_a_refusal_is_a_sentence_with_both_ways_out(hub, client, fault, sentence):
    for name, pretrained, repo in ASK[: 1 if fault in PASSES else 2]:  # those are waited for
        hub.add(repo, {"config.json": b"{}"})
        hub.fail(f"GET /api/models/{repo}", fault, times=3)
        told = client(weight_of, name, pretrained)
        assert told.startswith(f"backbone {name!r}: {repo}")
        assert sentence in told
        plain = "pretrained: false" if pretrained else "the backbone's plain name"
        assert told.endswith(MORE + plain)
        hub.faults.clear()


def test_a_name_that_cannot_be_one_on_the_hub_is_refused_unasked(hub, client):
    told = client(weight_of, "hf-hub:a/b/c/d", False)
    assert told.startswith("backbone 'hf-hub:a/b/c/d': 'a/b/c/d' cannot be a name on the Hub")
    assert hub.asked == []


def test_what_is_fetched_once_needs_no_network_after(hub, client, cache, published):
    files, expected = published
    for name, pretrained, repo in ASK:
        hub.add(repo, files)
        got = client(weight_of, name, pretrained)
        if pretrained:
            assert got == pytest.approx(expected)
        else:
            assert isinstance(got, float)  # its architecture alone
    with started("http://127.0.0.1:9", cache, HF_HUB_OFFLINE="1") as offline:
        assert offline(weight_of, "test_resnet", True) == pytest.approx(expected)
        sentence = "HF_HUB_OFFLINE is set, and main is not whole in the cache"
        for name, pretrained, repo in [
            ("resnet18", True, "timm/resnet18.a1_in1k"),
            ("hf-hub:lab/other", False, "lab/other"),
        ]:
            told = offline(weight_of, name, pretrained)
            assert told.startswith(f"backbone {name!r}: {repo}: {sentence}")
