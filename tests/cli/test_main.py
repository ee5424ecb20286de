"""What a person sees at the command line."""

import json
from pathlib import Path

import pytest

from fewlabels.cli.main import main

RECIPES = Path(__file__).parents[2] / "recipes"


def test_list_names_every_component_with_who_offers_it(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in ("kmeans", "multi_similarity", "metric", "cub200", "homography", "convnet3"):
        assert any(name in line and "fewlabels" in line for line in printed.splitlines())
    assert "pml:NAME" in printed


def test_backbones_of_timm_are_listed_when_asked_for(capsys):
    assert main(["list", "backbones"]) == 0
    printed = capsys.readouterr().out
    assert "resnet50 " in printed
    assert "tf_efficientnet_lite0" in printed


def test_show_says_what_a_component_is_and_what_a_recipe_may_set(capsys):
    assert main(["show", "loss", "multi_similarity"]) == 0
    printed = capsys.readouterr().out
    assert "needs: embeddings, labels" in printed
    assert "beta: a number  (default 50.0)" in printed
    assert main(["show", "losses", "pml:contrastive_loss"]) == 0
    assert "neg_margin" in capsys.readouterr().out
    assert main(["show", "backbone", "convnet3"]) == 0
    assert "width" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "lossses"], "no kind of component is called 'lossses'; did you mean 'losses'?"),
        (["show", "loss", "tripplet"], "no loss is called 'tripplet'"),
        (["show", "loss", "pml:triplet_margn_loss"], "did you mean 'triplet_margin_loss'?"),
        (["check", "gone.yaml"], "gone.yaml: no such file"),
        (["check", "seed=1"], "no recipe given; name a YAML file before key=value"),
        (["push", "gone", "--repo", "lab/x"], "gone is no run folder"),
        (["push", "gone", "--repo", "x"], "'x' is no name on the Hub; write org/name"),
        (["run", "gone.yaml"], "gone.yaml: no such file"),
        (["run"], "no recipe given; name a YAML file, or a run folder to resume"),
        (["run", "--resume", "gone"], "gone is no run folder"),
    ],
)
def test_a_mistake_at_the_command_line_is_one_sentence_and_exit_code_2(capsys, arguments, sentence):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


def test_check_tells_the_mistakes_of_every_recipe(capsys, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(
            "data: {source: digits}\nlosses: multi_similarity\nsede: 1\n"
        )
    (tmp_path / "c.yaml").write_text("data: {source: digits}\nlosses: multi_similarity\n")
    assert main(["check", *(str(tmp_path / f"{n}.yaml") for n in "abc")]) == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 2
    assert "c.yaml: good" in captured.out


def test_check_tries_the_places_of_blocks(capsys):
    recipe = str(RECIPES / "quickstart.yaml")
    assert main(["check", recipe, "blocks={name: san, after: conv2}"]) == 0
    doubly = "blocks={name: san, after: conv3, normalise: sinkhorn}"
    assert main(["check", recipe, doubly]) == 2
    error = capsys.readouterr().err
    assert f"{recipe}: block 'san' after 'conv3': average pooling undoes it" in error
    assert len(error.splitlines()) == 1


def test_schema_is_json_that_knows_the_components(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "losses.multi_similarity" in schema["$defs"]
    assert schema["$defs"]["discovery.kmeans"]["properties"]["clusters"]["default"] == 100


def test_check_tries_whether_a_backbone_of_timm_can_classify(capsys, tmp_path):
    recipe = tmp_path / "few.yaml"
    recipe.write_text(
        "data: {source: digits, labels: 40}\nmodel: {backbone: levit_128s}\nstrategy: snowball\n"
    )
    assert main(["check", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{recipe}: backbone 'levit_128s' does not classify by a last layer")
    assert main(["check", str(recipe), "model.backbone=resnetv2_18", "model.image_size=64"]) == 0
