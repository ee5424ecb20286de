"""Folders of models that somebody made to hang or fill the machine that loads them."""

import json
import os
import struct
import time

import pytest
import torch
from children import run_in_child
from safetensors.torch import load_file, save_file

from fewlabels import Classifier, Embedder
from fewlabels.errors import ModelError
from fewlabels.models.load import load_model

SMALL = {"image_size": 16, "backbone_options": {"width": 0.25}}


@pytest.fixture
def saved(tmp_path):
    Embedder("convnet3", embedding_size=4, **SMALL).save_pretrained(tmp_path)
    return tmp_path


def load_in_a_child(folder):
    """The sentence with which a folder is refused, in little time and within 1 GiB of memory."""
    said = run_in_child(lambda: load_model(folder), memory=2**30)
    assert said.startswith("fewlabels.errors.ModelError: ")
    return said.removeprefix("fewlabels.errors.ModelError: ")


def put(folder, name, what):
    file = folder / name
    file.unlink()
    if what == "pipe":
        os.mkfifo(file)
    elif what == "device":
        file.symlink_to("/dev/zero")
    elif what == "folder":
        file.mkdir()
    else:
        file.touch()
        os.truncate(file, what)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("pipe", "no regular file, but a pipe or a device"),
        ("device", "no regular file, but a pipe or a device"),
        ("folder", "cannot be read (Is a directory)"),
        (20 * 2**30, ""),
        (8 * 2**40, ""),  # of which none is on the disk
    ],
)
def test_a_file_that_never_ends_is_a_sentence_that_names_it(saved, name, what, sentence):
    put(saved, name, what)
    said = load_in_a_child(saved)
    if not sentence:
        sentence = "more than 4,000,000 bytes"
        if name == "model.safetensors":
            sentence = "GiB of memory here" if what == 8 * 2**40 else "damaged: "
    assert said.startswith(f"{saved / name}: ")
    assert sentence in said


def test_weights_of_more_than_the_memory_that_their_header_owns_up_to(saved):
    count = 2**41
    header = {"a": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}
    text = json.dumps(header).encode()
    file = saved / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(file, 8 + len(text) + 4 * count)
    assert "8,192 GiB, more than the" in load_in_a_child(saved)


def edit(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"classes": [1] * 500_000}, "classes.0: Input should be a valid string, got 1"),
        ({"blocks": [{}] * 500_000}, "blocks.0.name: missing"),
        ({"plugins": [{}] * 500_000}, "plugins.0.kind: missing"),
        ({f"{i:x}": 1 for i in range(100_000)}, "unknown key\n{}: 99,990 more mistakes"),
        ({"backbone": "?" * 1_000_000}, "is no registered name"),
        ({"kind": "?" * 1_000_000}, "this is of the kind"),
    ],
)
def test_of_a_million_mistakes_a_few_are_told(tmp_path, changes, sentence):
    """They took half a minute, 4 GB, and 240 MB of sentences."""
    Classifier("convnet3", classes=["cat", "dog"], **SMALL).save_pretrained(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(ModelError) as caught:
        Classifier.from_pretrained(tmp_path)
    said = str(caught.value)
    assert sentence.format(tmp_path / "config.json") in said
    assert len(said) < 3_000


def test_a_link_into_the_cache_of_the_hub_is_followed(saved, tmp_path_factory):
    blobs = tmp_path_factory.mktemp("blobs")
    for number, file in enumerate(list(saved.iterdir())):
        file.rename(blobs / f"{number}")
        file.symlink_to(blobs / f"{number}")
    assert Embedder.from_pretrained(saved).embedding_size == 4


def test_a_link_to_nothing_is_not_called_missing(saved):
    (saved / "config.json").unlink()
    (saved / "config.json").symlink_to("nowhere")
    with pytest.raises(
        ModelError, match="cannot be read .No such file or directory.; copy it again"
    ):
        Embedder.from_pretrained(saved)


def test_a_model_of_many_classes_is_none_of_these(tmp_path):
    """ImageNet-21k has 21,841 of them, with names of up to 180 letters."""
    classes = [f"{number:05} {'x' * 100}" for number in range(22_000)]
    Classifier("convnet3", classes=classes, **SMALL).save_pretrained(tmp_path)
    assert len(Classifier.from_pretrained(tmp_path).classes) == 22_000


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [(1_000, "a far deeper model than the 1000 tensors"), (6_000, "at most 5,000 are read")],
)
def test_many_tiny_tensors_do_not_allow_for_a_model_of_many_layers(saved, tensors, sentence):
    """They took minutes."""
    more = {"layers": [16_384, 1, 1, 1], "base_width": 1, "channels": [1, 1, 1, 1]}
    edit(saved, backbone="resnet26", backbone_options=more)
    tiny = {f"{i}": torch.zeros(8, dtype=torch.uint8) for i in range(tensors)}
    save_file(tiny, saved / "model.safetensors")
    begin = time.process_time()
    with pytest.raises(ModelError, match=sentence):
        Embedder.from_pretrained(saved)
    assert time.process_time() - begin < 5


def test_a_header_of_names_alone_is_refused_before_they_are_made(saved):
    state = load_file(saved / "model.safetensors")
    more = {f"{number:07}": torch.zeros(0) for number in range(200_000)}
    save_file(state | more, saved / "model.safetensors")
    with pytest.raises(ModelError, match=r"damaged: a header of [0-9,]+ bytes"):
        Embedder.from_pretrained(saved)
