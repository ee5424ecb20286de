"""A saved model as an ONNX file, run by another program's runtime."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from pictures import texture
from torch import nn
from torch.torch_version import TorchVersion

from fewlabels import Classifier, Embedder
from fewlabels.cli.main import main
from fewlabels.models.fingerprint import fingerprint_model
from fewlabels.registry import blocks

SMALL = {"image_size": 16, "crop_pct": 0.8, "backbone_options": {"width": 0.25}}
TINY = {"depth": 1, "embed_dim": 32, "num_heads": 2, "patch_size": 4}
CURVE = {"images": 20, "points": [{"threshold": 0.7, "answered": 15, "right": 14}]}
MODELS = {
    "blocks": lambda: Embedder(
        "convnet3",
        embedding_size=8,
        blocks=[
            {"name": "san", "after": "conv2", "iterations": 3},
            {"name": "cbam", "after": "conv3"},
        ],
        **SMALL,
    ),
    "vit": lambda: Embedder(
        "vit_tiny_patch16_224",
        embedding_size=None,
        normalize=False,
        image_size=16,
        backbone_options=TINY,
    ),
    "classifier": lambda: Classifier(
        "convnet3", classes=["cat", "dog", "owl"], precision_curve=CURVE, **SMALL
    ),
}


def save(model, place):
    """A model whose blocks and norms do something, as after training."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.add_(torch.rand_like(buffer))
    model.eval().save_pretrained(place)
    return model


def export(place, out):
    return main(["export", str(place), "--onnx", str(out)])


@pytest.mark.parametrize("kind", MODELS)
def test_other_programs_get_the_answers_of_the_model(tmp_path, capsys, kind):
    model, out = save(MODELS[kind](), tmp_path / "model"), tmp_path / "new" / "model.onnx"
    assert export(tmp_path / "model", out) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{out}: images (batch, 3, 16, 16), float32 RGB in [0, 1]" in line
    assert f"the shorter side to {model.resize_size} ({model.interpolation})" in line
    assert [file.name for file in out.parent.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(out)
    pictures = [texture(i, 16) for i in range(3)]
    images = np.stack([np.asarray(p, np.float32).transpose(2, 0, 1) / 255 for p in pictures])
    answer = model.predict if kind == "classifier" else model.encode
    expected = answer(torch.from_numpy(images))  # of the model's own size: not resized
    for part in (slice(0, 1), slice(0, 3)):
        (found,) = session.run(None, {"images": images[part]})
        np.testing.assert_allclose(found, expected[part], atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    told = session.get_modelmeta().custom_metadata_map
    assert told["fewlabels"]
    assert told["fingerprint"] == fingerprint_model(model)
    if kind == "classifier":
        assert json.loads(told["classes"]) == ["cat", "dog", "owl"]
        assert json.loads(told["precision_curve"]) == CURVE
    else:
        assert told["embedding_size"] == str(expected.shape[1])


@pytest.fixture
def odd(built_in, monkeypatch):
    """Blocks that no export can follow: one looks at values, one knows that it is exported."""
    monkeypatch.setattr(blocks, "_registered", dict(blocks._registered))

    class Odd(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()

    @blocks.register("values")
    class Values(Odd):
        def forward(self, maps):
            return maps if maps.sum() > 0 else -maps

    @blocks.register("knows")
    class Knows(Odd):
        def forward(self, maps):
            return maps.relu() if torch.onnx.is_in_onnx_export() else maps.square()


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ("values", "backbone 'convnet3' cannot be exported: "),
        ("knows", "away from the model, more than 1e-04; it is not written"),
    ],
)
def test_what_does_not_answer_as_the_model_is_no_file(tmp_path, capsys, odd, block, sentence):
    placed = [{"name": block, "after": "conv1"}]
    Embedder("convnet3", blocks=placed, **SMALL).save_pretrained(tmp_path / "model")
    assert export(tmp_path / "model", tmp_path / "model.onnx") == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]  # behind what torch may warn of
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path, capsys, monkeypatch):
    Embedder("convnet3", **SMALL).save_pretrained(tmp_path / "model")
    (tmp_path / "mine.onnx").write_bytes(b"mine")
    assert export(tmp_path / "model", tmp_path / "mine.onnx") == 2
    assert "mine.onnx is there, and may hold something of yours" in capsys.readouterr().err
    assert (tmp_path / "mine.onnx").read_bytes() == b"mine"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", TorchVersion("2.8.1"))
        assert export(tmp_path / "model", tmp_path / "model.onnx") == 2
    assert "needs torch 2.9 or newer, and this is 2.8.1" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export(tmp_path / "model", tmp_path / "model.onnx") == 2
    assert "pip install 'fewlabels[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()
