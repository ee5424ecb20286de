import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from fewlabels.errors import ModelError
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder

CLASSES = ("ant", "bee", "cat")


def small(**more):
    torch.manual_seed(0)
    return Classifier(
        "convnet3", classes=CLASSES, image_size=16, backbone_options={"width": 0.25}, **more
    )


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(5)]


@pytest.mark.parametrize(
    "name",
    ["resnet10t", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "resnetv2_18", "dla34", "dpn48b",
     "sequencer2d_s"],
)  # fmt: skip
def test_logits_are_those_of_timm(name, images):
    torch.manual_seed(0)
    ours = Classifier(name, classes=CLASSES).eval()
    theirs = timm.create_model(name, num_classes=3).eval()
    theirs.load_state_dict(ours.backbone.state_dict())
    batch = torch.stack([ours.preprocess_image(image) for image in images[:2]]).float() / 255
    with torch.no_grad():
        output = ours(batch)
        pixels = (batch - ours.mean) / ours.std
        torch.testing.assert_close(output.logits, theirs(pixels))
        pooled = theirs.forward_head(theirs.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(output.features, pooled)


def test_probabilities_are_the_softmax_of_the_logits(images):
    model = small()
    batch = torch.stack([model.preprocess_image(image) for image in images]).float() / 255
    with torch.no_grad():
        expected = model.eval()(batch).logits.softmax(1).numpy()
    found = model.train().predict(images, batch_size=2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert model.training
    assert found.dtype == np.float32
    assert small().predict([]).shape == (0, 3)


def test_a_saved_classifier_predicts_the_same_bits(images, tmp_path):
    model = small()
    model.save_pretrained(tmp_path)
    again = Classifier.from_pretrained(tmp_path)
    assert again.classes == CLASSES
    assert (again.predict(images) == model.predict(images)).all()
    with pytest.raises(ModelError, match="of the kind 'classifier'; expected 'embedder'"):
        Embedder.from_pretrained(tmp_path)


def test_more_classes_than_the_weights_have_is_a_sentence_and_no_memory(tmp_path):
    small().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "classes": [str(n) for n in range(9999)]}))
    with pytest.raises(ModelError, match=r"describes a model of [0-9,]+ numbers, and the weights"):
        Classifier.from_pretrained(tmp_path)


def test_what_cannot_classify_is_refused():
    with pytest.raises(ModelError, match="two classes or more"):
        Classifier("convnet3", classes=["one"])


@pytest.mark.parametrize(
    "name",
    ["deit_tiny_distilled_patch16_224", "levit_128s", "crossvit_tiny_240", "efficientvim_m1"],
)
def test_a_backbone_without_one_last_layer_is_refused(name):
    with pytest.raises(ModelError, match="does not classify by a last layer"):
        Classifier(name, classes=CLASSES)
