"""Where LMCS cuts a network, and whether what follows can be more than a linear layer."""

import logging

import pytest
import torch

from fewlabels.cli.main import main
from fewlabels.errors import ModelError
from fewlabels.models.classifier import Classifier
from fewlabels.models.composition import Composition
from fewlabels.models.cut import find_layer, replace_output

SMALL = {
    "convnet3": {"width": 0.25},
    "convnet5": {"width": 0.25},
    "convnet13": {"width": 0.125},
    "wrn28_2": {"width": 0.25},
    "shakeshake26_2x96d": {"width": 0.0625},
}


def classifier(name):
    torch.manual_seed(0)
    return Classifier(name, classes=["a", "b", "c"], backbone_options=SMALL.get(name, {}))


def bend(master, like):
    """How far master(a/2 + b/2) is from master(a)/2 + master(b)/2, by the length of the latter."""
    torch.manual_seed(1)
    one, two = torch.randn(2, 8, *like.shape[1:])

    def answer(maps):
        with replace_output(master.average, master.layer, lambda own: maps.clone()):
            return master.average(torch.zeros(8, 3, *[master.average.image_size] * 2)).logits

    with torch.no_grad():
        ends = (answer(one) + answer(two)) / 2
        return float((answer((one + two) / 2) - ends).norm() / ends.norm())


def map_of(model, layer):
    maps = []
    handle = model.backbone.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: maps.append(output.detach())
    )
    with torch.no_grad():
        model.eval()(torch.rand(1, 3, model.image_size, model.image_size))
    handle.remove()
    return maps[0]


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("convnet3", "conv2"),
        ("convnet5", "conv4"),
        ("convnet13", "block2"),
        ("shakeshake26_2x96d", "blocks.7"),
        ("wrn28_2", "stages.1"),
        ("resnet10t", "layer3"),
        ("test_vit", "blocks.4"),
        ("test_efficientnet", "blocks.3"),
    ],
)
def test_by_default_a_whole_stage_follows_the_cut_and_the_master_is_not_affine(name, cut, caplog):
    model = classifier(name)
    master = Composition(model).eval()
    assert master.layer == cut
    assert bend(master, map_of(model, cut)) > 0.02
    assert not caplog.records


@pytest.mark.parametrize("name", ["convnet3", "convnet5", "convnet13", "shakeshake26_2x96d"])
def test_a_master_that_is_affine_is_warned_of(name, caplog):
    model = classifier(name)
    master = Composition(model, -1).eval()
    assert bend(master, map_of(model, master.layer)) < 1e-5
    assert "followed by an affine map alone" in caplog.text


def test_after_the_last_stage_of_wrn_a_nonlinearity_follows(caplog):
    model = classifier("wrn28_2")
    master = Composition(model, None).eval()
    assert master.layer == "stages.2"
    assert bend(master, map_of(model, "stages.2")) > 0.02
    assert not caplog.records


def test_check_tells_of_an_affine_master_and_of_a_stage_that_is_not_there(tmp_path, caplog, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "data: {source: digits, labels: 20}\n"
        "model: {backbone: convnet5, image_size: 16}\n"
        "strategy: {name: lmcs}\noptimizer: {lr: 1e-3}\n"
    )
    with caplog.at_level(logging.WARNING):
        assert main(["check", str(recipe)]) == 0
        assert not caplog.records
        assert main(["check", str(recipe), "strategy.layer=null"]) == 0
        assert "followed by an affine map alone" in caplog.text
    assert main(["check", str(recipe), "strategy.layer=-4"]) == 2
    assert "has no stage -4, for it has 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layer", "path"), [(0, "conv2"), (-3, "conv2"), (2, "conv5"), (-1, "conv5")]
)
def test_stages_are_numbered_from_both_ends(layer, path):
    assert find_layer(classifier("convnet5"), layer) == path


@pytest.mark.parametrize("layer", [3, -4])
def test_a_stage_that_is_not_there_is_a_sentence(layer):
    with pytest.raises(ModelError, match=r"has no stage .*, for it has 3 \(conv2, conv4, conv5\)"):
        find_layer(classifier("convnet5"), layer)
