"""Models whose training diverged, and images of which a model makes no finite numbers."""

import numpy as np
import pytest
import torch
from pictures import texture

from fewlabels import Classifier, Embedder, Index
from fewlabels.cli.main import main
from fewlabels.errors import FewLabelsError, ModelError
from fewlabels.models.load import load_model
from fewlabels.models.tensor_file import read_tensors, write_tensors

SMALL = {"image_size": 16, "backbone_options": {"width": 0.25}}


@pytest.fixture
def photos(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        texture(ord(name), 16).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


@pytest.fixture
def place(tmp_path):
    """Two models, of which a weight each is not finite, and a labelled folder."""
    for name, model in {
        "embedder": Embedder("convnet3", embedding_size=4, **SMALL),
        "classifier": Classifier("convnet3", classes=["cat", "dog"], **SMALL),
    }.items():
        model.save_pretrained(tmp_path / name)
        weights = read_tensors(tmp_path / name / "model.safetensors")
        first = next(key for key in weights if key.endswith("weight"))
        weights[first].view(-1)[3] = torch.nan if name == "embedder" else torch.inf
        write_tensors(tmp_path / name / "model.safetensors", weights, {"format": "pt"})
    for kind in ("cat", "dog"):
        for i in range(2):
            file = tmp_path / "labelled" / kind / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            texture(i, 16).save(file)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "embed {}/embedder {}/photos -o {}/out.parquet",
        "index {}/embedder {}/photos -o {}/out",
        "search {}/embedder {}/index {}/photos/a.png",
        "predict {}/classifier {}/photos -o {}/out.csv",
        "evaluate {}/classifier --data {}/labelled",
        "evaluate {}/embedder --data {}/labelled",
        "export {}/classifier --onnx {}/out.onnx",
        "export {}/embedder --onnx {}/out.onnx",
        "demo {}/embedder {}/index",
    ],
)
def test_no_command_uses_a_model_whose_training_diverged(place, photos, capsys, command):
    Index.build(Embedder("convnet3", embedding_size=4, **SMALL).eval(), photos).save(
        place / "index"
    )
    assert main(command.replace("{}", str(place)).split(" ")) == 2
    said = capsys.readouterr().err
    assert "weights that are not finite (backbone." in said
    assert "because the training diverged; " in said
    assert not list(place.glob("out*"))


def test_what_such_a_model_is_can_still_be_looked_at(place, capsys):
    assert main(["show", str(place / "embedder")]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["embedding", "size", "4"] in lines
    assert any(line[:2] == ["not", "finite"] and "diverged" in line[2] for line in lines)


@pytest.mark.parametrize("kind", [Embedder, Classifier])
def test_such_a_model_is_neither_saved_nor_loaded(place, tmp_path, kind):
    folder = place / kind.__name__.lower()
    with pytest.raises(ModelError, match="model.safetensors: weights that are not finite"):
        kind.from_pretrained(folder)
    with pytest.raises(ModelError, match="train with a lower optimizer.lr"):
        load_model(folder)
    more = {"classes": ["cat", "dog"]} if kind is Classifier else {}
    model = kind("convnet3", **more, **SMALL)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.inf
    with pytest.raises(ModelError, match="so it is not saved"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_infinite_statistics_of_which_all_features_are_zero_are_refused(tmp_path):
    model = Embedder("test_resnet", embedding_size=4, image_size=32)
    model.save_pretrained(tmp_path)
    weights = read_tensors(tmp_path / "model.safetensors")
    weights["backbone.conv1.1.running_var"].fill_(torch.inf)
    write_tensors(tmp_path / "model.safetensors", weights, {"format": "pt"})
    with pytest.raises(ModelError, match=r"not finite \(backbone.conv1.1.running_var\)"):
        load_model(tmp_path)


def make_overflowing(kind, **more):
    """A model with finite weights that are too large for what it computes."""
    model = kind("convnet3", **more, **SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e30)
    return model


def test_an_image_that_gets_no_finite_numbers_is_named(photos, tmp_path, capsys):
    model = make_overflowing(Embedder, embedding_size=4)
    said = r"a\.png: the model makes numbers of it that are not finite; use a model whose training"
    with pytest.raises(ModelError, match=said):
        model.encode(photos)
    with pytest.raises(ModelError, match=r"^image 0: "):
        model.encode([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    with pytest.raises(ModelError, match=r"^image 0 \(.*b\.png\): "):
        model.encode([photos / "b.png"])
    with pytest.raises(ModelError, match=said):
        make_overflowing(Classifier, classes=["cat", "dog"]).predict(photos)
    model.save_pretrained(tmp_path / "model")  # its weights are finite
    out = str(tmp_path / "out.parquet")
    assert main(["embed", str(tmp_path / "model"), str(photos), "-o", out]) == 2
    assert "a.png: the model makes numbers of it" in capsys.readouterr().err


def test_a_class_that_a_spreadsheet_would_compute_is_told(photos, tmp_path, capsys):
    Classifier("convnet3", classes=["=1+1", "=2"], **SMALL).save_pretrained(tmp_path / "model")
    out = tmp_path / "out.csv"
    assert main(["predict", str(tmp_path / "model"), str(photos), "-o", str(out)]) == 0
    assert "for a formula; open the file as text" in capsys.readouterr().err
    assert out.read_text().count(",=") == 3


def test_a_model_without_finite_outputs_is_not_exported(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    make_overflowing(Embedder, embedding_size=4).save_pretrained(tmp_path / "model")
    out = tmp_path / "model.onnx"
    assert main(["export", str(tmp_path / "model"), "--onnx", str(out)]) == 2
    assert "numbers of images that are not finite" in capsys.readouterr().err
    assert not out.exists()


def test_a_vector_too_long_for_float32_is_no_vector_of_zeros():
    model = Embedder("convnet3", embedding_size=4, **SMALL).eval()
    with torch.no_grad():
        model.head.weight.mul_(0)
        model.head.bias.copy_(torch.tensor([3e38, 3e38, 0.0, 0.0]))
    with pytest.raises(FewLabelsError, match="not finite"):
        model.encode([torch.ones(3, 16, 16)])
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([3e18, 4e18, 0.0, 0.0]))
    np.testing.assert_allclose(model.encode([torch.ones(3, 16, 16)]), [[0.6, 0.8, 0, 0]], atol=1e-6)
