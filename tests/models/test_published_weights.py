"""Weights as self-supervised tools publish them fill a backbone, or it is said why not."""

import random
from contextlib import suppress

import pytest
import timm
import torch

from fewlabels.errors import ModelError
from fewlabels.models.backbone import load_weights
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return timm.create_model("test_resnet").state_dict()


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def load(content, tmp_path, suffix=".pth", backbone="test_resnet", **options):
    file = tmp_path / f"w{suffix}"
    torch.save(content, file)
    model = timm.create_model(backbone, num_classes=0, **options)
    load_weights(model, str(file))
    return model.state_dict()


PUBLISHED = {
    "as it is": lambda s: s,
    "of two processes": lambda s: under("module.", s),
    "compiled": lambda s: under("_orig_mod.", s),
    "of a trainer, with its settings": lambda s: {
        "state_dict": under("model.", s),
        "epoch": 3,
        "hyper_parameters": {"lr": 0.1},
    },
    "under model": lambda s: {"model": s, "epoch": 3},
    "under net": lambda s: {"net": s, "acc": 93.1},
    "under backbone": lambda s: {"backbone": s, "arch": "resnet"},
    "moco": lambda s: {
        "state_dict": {
            **under("module.encoder_q.", s),
            **under("module.encoder_k.", {k: v + 1 for k, v in s.items()}),
            "module.queue": torch.zeros(4, 4),
        }
    },
    "moco, third version": lambda s: {
        "state_dict": {
            **under("module.base_encoder.", s),
            **under("module.momentum_encoder.", {k: v + 1 for k, v in s.items()}),
            "module.predictor.0.weight": torch.zeros(4, 4),
        }
    },
    "simsiam": lambda s: {
        "state_dict": {**under("module.encoder.", s), "module.predictor.0.weight": torch.zeros(4)}
    },
    "byol": lambda s: {
        **under("online_encoder.net.", s),
        **under("target_encoder.net.", {k: v + 1 for k, v in s.items()}),
    },
    "dino": lambda s: {
        "teacher": {**under("backbone.", s), "head.mlp.0.weight": torch.zeros(4, 4)},
        "student": under("module.backbone.", {k: v + 1 for k, v in s.items()}),
        "epoch": 99,
    },
    "a name of their own": lambda s: under("trainer.wrapped.", s),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_file_that_holds_the_backbone_fills_it(kind, state, tmp_path):
    got = load(PUBLISHED[kind](state), tmp_path)
    assert all(torch.equal(got[name], state[name]) for name in got)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth.tar"])
def test_it_may_have_any_of_the_usual_suffixes(suffix, state, tmp_path):
    assert torch.equal(load(state, tmp_path, suffix)["conv1.0.weight"], state["conv1.0.weight"])


def test_a_model_of_ours_gives_its_backbone(tmp_path):
    embedder = Embedder("test_resnet", embedding_size=4, image_size=64)
    classifier = Classifier("test_resnet", classes=["a", "b"], image_size=64)
    for model in (embedder, classifier):
        model.save_pretrained(tmp_path)
        weights = str(tmp_path / "model.safetensors")
        again = Embedder("test_resnet", embedding_size=8, image_size=64, weights=weights)
        expected = model.backbone.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in again.backbone.state_dict().items())


def hold_itself(name):
    content = {}
    content[name] = content
    return content


def change_all(state, change):
    return {name: change(v) if v.is_floating_point() else v for name, v in state.items()}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda s: {**under("a.", s), **under("b.", s)},
            "holds a backbone under 'a.' and under 'b.'; save one of them alone",
        ),
        (lambda s: {**s, "prototypes.weight": torch.zeros(1)}, "prototypes.weight not expected"),
        (lambda s: {**under("model.", s), "model.extra": torch.zeros(1)}, "extra not expected"),
        (
            lambda s: under("model.", {k: v for k, v in s.items() if k != "conv1.0.weight"}),
            "conv1.0.weight",
        ),
        (lambda s: {"state_dict": {"epoch": 3}}, "expected a state dict"),
        (lambda s: {"a": {"b": s}}, "expected a state dict"),
        (lambda s: {}, "expected a state dict"),
        (lambda s: [1, 2], "not a file of plain tensors"),
        (lambda s: hold_itself("teacher"), "expected a state dict"),
        (lambda s: {"teacher": {5: torch.zeros(1)}}, "expected a state dict"),
        (lambda s: {b"a": torch.zeros(1)}, "not a file of plain tensors"),
        (lambda s: torch.nn.Linear(1, 1), "); copy it again, or save its state_dict alone"),
        (lambda s: change_all(s, torch.Tensor.to_sparse), "torch.sparse_coo, cpu)"),
        (lambda s: change_all(s, lambda v: v.to("meta")), "torch.strided, meta)"),
        (lambda s: change_all(s, lambda v: v * 1j), "without plain real numbers"),
        (lambda s: change_all(s, lambda v: v / 0), "not finite (conv1.0.weight and"),
        (lambda s: {**s, "conv1.1.running_var": torch.full((16,), torch.inf)}, "running_var)"),
    ],
)
def test_a_file_that_does_not_hold_it_is_a_sentence(change, sentence, state, tmp_path):
    with pytest.raises(ModelError) as caught:
        load(change(state), tmp_path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_a_sentence_wherever_the_damage_is(zipped, state, tmp_path):
    file, model = tmp_path / "w.pth", timm.create_model("test_resnet", num_classes=0)
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    whole, draws = file.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(draws.randrange(1, 6)):
            damaged[draws.randrange(3000)] = draws.randrange(256)
        file.write_bytes(damaged)
        with suppress(ModelError):
            load_weights(model, str(file))


def test_what_is_no_file_is_not_called_missing(tmp_path):
    with pytest.raises(ModelError, match="a folder, a pipe or a device; name a file"):
        load_weights(timm.create_model("test_resnet"), str(tmp_path))


def test_position_embeddings_of_another_image_size_are_resampled_as_timm_does(tmp_path):
    larger = timm.create_model("test_vit", img_size=160)
    got = load(larger.state_dict(), tmp_path, backbone="test_vit", img_size=96)
    there = {"file": str(tmp_path / "w.pth")}
    expected = timm.create_model(
        "test_vit", img_size=96, pretrained=True, pretrained_cfg_overlay=there
    )
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in got.items())
    assert got["pos_embed"].shape != larger.pos_embed.shape


def test_nothing_but_positions_is_resampled(tmp_path):
    other = timm.create_model("test_vit", img_size=160, patch_size=32)
    with pytest.raises(ModelError, match=r"patch_embed\.proj\.weight .* of another shape"):
        load(other.state_dict(), tmp_path, backbone="test_vit", img_size=96)
    odd = {**timm.create_model("test_vit").state_dict(), "pos_embed": torch.zeros(3)}
    with pytest.raises(ModelError, match=r"pos_embed \(3,\) for .* of another shape"):
        load(odd, tmp_path, backbone="test_vit", img_size=96)
