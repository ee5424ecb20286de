"""A fingerprint tells models apart by what they compute."""

import torch

from fewlabels.models.embedder import Embedder
from fewlabels.models.fingerprint import fingerprint_model


def small(**chosen):
    torch.manual_seed(0)
    return Embedder(**{"backbone": "convnet3", "embedding_size": 8, "image_size": 16, **chosen})


def test_one_weight_or_setting_makes_another_model():
    model = small()
    models = [
        model,
        small(pooling="max"),
        small(image_size=20),
        small(crop_pct=0.5),
        small(std=(1, 1, 1)),
    ]
    touched = small()
    with torch.no_grad():
        touched.head.weight[0, 0] += 1e-6
    models += [touched, small().bfloat16(), small().half()]
    assert len({fingerprint_model(one) for one in models}) == len(models)


def test_a_saved_model_or_its_mode_is_the_same_model(tmp_path):
    model = small(backbone_options={"width": 0.5}, mean=(0.1, 0.2, 0.3))
    own = fingerprint_model(model)
    model.save_pretrained(tmp_path)
    assert fingerprint_model(Embedder.from_pretrained(tmp_path)) == own
    assert fingerprint_model(model.train()) == own == fingerprint_model(model.eval())
