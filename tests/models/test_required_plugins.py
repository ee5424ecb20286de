"""Models that need a plugin, installed in the way of real distributions."""

import json
import sys

import pytest
import torch

from fewlabels.errors import ModelError
from fewlabels.models.embedder import Embedder
from fewlabels.registry import blocks

CODE = """
from torch import nn


class Scale(nn.Module):
    def __init__(self, channels: int, *, by: float = 2.0) -> None:
        super().__init__()
        self.by = by

    def forward(self, maps):
        return maps * self.by
"""


def put(install, distribution):
    """Installs a distribution that offers the block ``scale``."""
    module = f"scale_of_{distribution.replace('-', '_')}"
    return install(distribution, {module: CODE}, "blocks", scale=f"{module}:Scale")


def make(**chosen):
    torch.manual_seed(0)
    block = {"name": "scale", "after": "conv2", "by": 3.0}
    return Embedder("convnet3", embedding_size=8, image_size=32, blocks=[block], **chosen)


def test_a_model_names_the_distribution_that_it_needs(install, tmp_path):
    site = put(install, "fewlabels-scale")
    model = make()
    model.save_pretrained(tmp_path / "m")
    told = json.loads((tmp_path / "m" / "config.json").read_text())["plugins"]
    assert told == [
        {"kind": "block", "name": "scale", "distribution": "fewlabels-scale", "version": "0.3"}
    ]
    x = torch.rand(2, 3, 32, 32)
    again = Embedder.from_pretrained(tmp_path / "m")
    assert torch.equal(again(x).embedding, model.eval()(x).embedding)
    sys.path.remove(site)
    with pytest.raises(
        ModelError,
        match=r"m: block 'scale' is of fewlabels-scale 0\.3, which is not installed; pip",
    ):
        Embedder.from_pretrained(tmp_path / "m")
    put(install, "other-scale")
    with pytest.raises(
        ModelError, match=r"the one offered here is of other-scale.*pip install few"
    ):
        Embedder.from_pretrained(tmp_path / "m")


def test_a_block_of_a_program_is_told_from_a_plugins(install, tmp_path, built_in, monkeypatch):
    monkeypatch.setattr(blocks, "_registered", dict(blocks._registered))

    @blocks.register("scale")
    class Scale(torch.nn.Module):
        def __init__(self, channels: int, *, by: float = 2.0) -> None:
            super().__init__()

        def forward(self, maps):
            return maps

    make().save_pretrained(tmp_path / "m")
    told = json.loads((tmp_path / "m" / "config.json").read_text())["plugins"]
    assert told == [{"kind": "block", "name": "scale", "distribution": None, "version": ""}]
    Embedder.from_pretrained(tmp_path / "m")
    del blocks._registered["scale"]
    with pytest.raises(ModelError, match="registered by a program of its author, not by a plugin"):
        Embedder.from_pretrained(tmp_path / "m")


def test_what_is_built_in_needs_no_plugin(tmp_path):
    Embedder("convnet3", blocks=[{"name": "cbam", "after": "conv2"}]).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["plugins"] == []
