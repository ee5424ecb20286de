"""Heads on pooled features, the part of a model above a frozen backbone, and its way back."""

import json

import pytest
import torch

from fewlabels import Classifier, Embedder
from fewlabels.errors import ModelError
from fewlabels.models.composition import Composition
from fewlabels.models.fingerprint import fingerprint_model
from fewlabels.models.frozen import attach_head, detach_head, pool_features
from fewlabels.models.load import load_model

SMALL = {"backbone": "convnet5", "image_size": 16, "hidden": 12}
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def make_classifier(head):
    torch.manual_seed(0)
    return Classifier(classes=list("abcd"), head=head, **SMALL).eval()


@pytest.mark.parametrize("head", ["linear", "cosine", "root", "mlp"])
def test_the_part_above_a_backbone_is_the_model_without_it(head, tmp_path):
    whole = make_classifier(head)
    part = detach_head(whole).eval()
    assert not any("trunk" in name for name in part.state_dict())
    features = pool_features(whole, IMAGES)[:, :, None, None]
    for one, two in zip(whole(IMAGES)[:3], part(features)[:3], strict=True):
        assert one is two is None or torch.allclose(one, two, atol=1e-6)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.1)
    assert not torch.allclose(whole(IMAGES).logits, part(features).logits, atol=1e-3)
    assert attach_head(whole, part) is whole
    assert torch.allclose(whole(IMAGES).logits, part(features).logits, atol=1e-6)
    whole.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(again(IMAGES).logits, whole(IMAGES).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["head"], config["hidden"]) == (head, 12)


def test_cosine_features_have_length_1_and_linear_ones_are_the_backbones():
    assert torch.allclose(make_classifier("cosine")(IMAGES).features.norm(dim=1), torch.ones(3))
    linear = make_classifier("linear")
    assert torch.equal(linear(IMAGES).features, pool_features(linear, IMAGES))
    assert make_classifier("mlp").feature_size == 12


def test_mirrored_features_are_the_mean_of_both_and_part_of_the_model(tmp_path):
    torch.manual_seed(0)
    both = Classifier(classes=list("abcd"), head="linear", mirror=True, **SMALL).eval()
    one = make_classifier("linear")
    one.load_state_dict(both.state_dict())
    turned = (one(IMAGES).features + one(IMAGES.flip(-1)).features) / 2
    assert torch.allclose(both(IMAGES).features, turned, atol=1e-6)
    assert torch.allclose(both(IMAGES).logits, both(IMAGES.flip(-1)).logits, atol=1e-5)
    assert fingerprint_model(both) != fingerprint_model(one)
    both.save_pretrained(tmp_path)
    assert torch.equal(load_model(tmp_path)(IMAGES).logits, both(IMAGES).logits)
    training = [model.train()(IMAGES).features for model in (both, one)]
    assert torch.equal(*training)  # a step sees each image once


def test_roots_count_large_numbers_less_and_keep_signs():
    maps = torch.tensor([[4.0, -9.0, 0.0, 36.0]])[:, :, None, None]
    found = make_classifier("root").backbone.head.forward_features(maps)
    assert torch.allclose(found[0, :, 0, 0], torch.tensor([2.0, -3.0, 0.0, 6.0]) / 7)


def test_an_embedder_keeps_its_own_head():
    torch.manual_seed(0)
    whole = Embedder(embedding_size=6, head="mlp", **SMALL).eval()
    part = detach_head(whole).eval()
    features = pool_features(whole, IMAGES)[:, :, None, None]
    assert torch.allclose(part(features).embedding, whole(IMAGES).embedding, atol=1e-6)
    with torch.no_grad():
        part.head.weight.mul_(-1)
        part.head.bias.mul_(-1)
    before = whole(IMAGES).embedding
    assert torch.allclose(attach_head(whole, part)(IMAGES).embedding, -before, atol=1e-6)


def test_a_composition_cuts_an_mlp_between_its_hidden_layers():
    part = detach_head(make_classifier("mlp"))
    master = Composition(part)
    assert (master.layer, master.affine) == ("hidden1", False)
    features = torch.rand(5, part.input_shape[0], 1, 1)
    assert torch.allclose(master.eval()(features).logits, part.eval()(features).logits, atol=1e-5)


def test_a_model_without_a_head_is_saved_as_before(tmp_path):
    model = Classifier("convnet5", classes=["a", "b"], image_size=16)
    model.save_pretrained(tmp_path)
    assert not {"head", "hidden"} & json.loads((tmp_path / "config.json").read_text()).keys()


def test_a_config_that_asks_for_a_huge_head_is_refused(tmp_path):
    make_classifier("mlp").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for hidden, says in [(60_000, "weights beside it"), (10**9, "hidden"), (0, "hidden")]:
        file.write_text(json.dumps({**config, "hidden": hidden}))
        with pytest.raises(ModelError, match=says):
            load_model(tmp_path)
