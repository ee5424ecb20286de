"""A rehearsal goes through all of a run, fetches nothing, leaves nothing, and knows what it costs."""

import os
import time
from pathlib import Path

import pytest
from small import DIGITS

import fewlabels
from fewlabels.cli.main import main
from fewlabels.errors import FewLabelsError
from fewlabels.files import find_path
from fewlabels.recipe.recipe import load_recipe, recipe_from
from fewlabels.rehearsal.costs import cost_run, count_decoded, measure_room
from fewlabels.rehearsal.elsewhere import cost_elsewhere, parse_throughputs
from fewlabels.rehearsal.measure import rehearse_recipe
from fewlabels.rehearsal.report import format_line, format_page

RECIPES = Path(__file__).parents[2] / "recipes"
METRIC = {
    **DIGITS,
    "losses": "multi_similarity",
    "strategy": {"name": "metric", "batch": 40},
    "rounds": {"rounds": 6, "epochs_per_round": 5},
}
PHOTOGRAPHS = ["model.image_size=64", "train.precision=no"]
SUBSET = {
    "quickstart": [],
    "few_labels_folder": ["model.image_size=32", "train.precision=no", "data.labels_csv=table.csv"],
    "tac_ccl_grocery": PHOTOGRAPHS,
    "lmcs_svhn_wrn28_2": ["model.backbone=convnet5", "pretrain=rotation"],
}
"""Recipes that differ most, cut so that each takes seconds."""
EVERY = {path: [] for path in sorted(RECIPES.rglob("*.yaml"))}
CASES = EVERY if os.environ.get("FEWLABELS_REHEARSALS") == "all" else SUBSET


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No data, no network, and a folder in which anything left behind would be seen."""
    import socket

    monkeypatch.setenv("FEWLABELS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given: pytest.fail("asked the network"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES, ids=lambda n: getattr(n, "stem", n))
def test_recipes_are_rehearsed_without_their_data_and_without_a_network(nowhere, name):
    path = name if isinstance(name, Path) else RECIPES / f"{name}.yaml"
    found = rehearse_recipe(load_recipe(path, CASES[name], ended=True))
    assert found.limits.halted  # and so was resumed
    laps = found.watch.laps
    for part in ("loader", "forward", "backward", "rest", "whole"):
        assert any(lap.startswith(f"{part} ") for lap in laps), part
    assert {"checkpoint", "extract scored"} <= set(laps)
    for spec in found.recipe.discovery:
        assert laps[f"discovery {spec.name}"]
    assert found.limits.random == bool(found.recipe.model.pretrained or found.recipe.model.weights)
    start, *others = cost_run(found)  # the start is what all else leaves, which may be nothing
    assert start.seconds >= 0
    assert all(cost.seconds > 0 for cost in others)
    assert list((nowhere / "temporary").iterdir()) == []
    rates = parse_throughputs(["900"])
    page = format_page(found, rates, 0, "here")
    assert f"{found.plan.steps:,}" in format_line(found, rates, 0, "here")
    assert "Memory at most" in page
    assert "Its time there" in page
    if found.limits.random:
        assert "random weights" in page


def measure_run(recipe, out):
    """Seconds of the processor that a run takes, and bytes of its folder."""
    begin = time.process_time()
    folder = fewlabels.train(recipe, out=out).folder
    seconds = time.process_time() - begin
    return seconds, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "overrides"),
    [
        ("quickstart.yaml", ["rounds.rounds=4"]),
        (
            "studies/grocery_tac_ccl.yaml",
            ["rounds.steps_per_epoch=6", "model.image_size=64", "data.test.classes=41-50"],
        ),
    ],
)
def test_the_cost_is_that_of_a_real_run_within_a_fifth(tmp_path, monkeypatch, path, overrides):
    if "grocery" in path and find_path("grocery/all.parquet") is None:
        pytest.skip("grocery/all.parquet is not here")
    recipe = load_recipe(RECIPES / path, overrides)
    ratios = []
    for trial in range(3):  # what else the machine does moves both
        found = rehearse_recipe(recipe)
        monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / f"cache {trial}"))  # nothing is known
        seconds, disk = measure_run(recipe, tmp_path / str(trial))
        told = sum(cost.cpu for cost in cost_run(found))
        ratios.append(told / seconds)
        print(f"{path}: told {told:.1f} s of the processor, took {seconds:.1f}: {ratios[-1]:.2f}")
        assert measure_room(found, 0).folder == pytest.approx(disk, rel=0.2)
        if abs(ratios[-1] - 1) < 0.2:
            return
    pytest.fail(f"estimates by the real costs: {ratios}")


def test_the_frozen_backbone_is_counted_with_the_size_of_its_own_images(tmp_path):
    def count(recipe):
        found = rehearse_recipe(recipe_from(recipe))
        own = [cost for cost in cost_run(found) if cost.name.startswith("the frozen backbone")]
        return found, own[0].seconds if own else 0.0

    metric = {**METRIC, "rounds": {"steps_per_epoch": 2}}
    found, seconds = count(metric)
    assert seconds == 0  # random weights: the scores before training have it
    metric["model"] = {"backbone": "test_resnet", "image_size": 32, "pretrained": True}
    found, seconds = count(metric)
    scored = found.watch.total("extract scored")
    assert seconds == pytest.approx(597 * 25 * scored.seconds / scored.images)  # 160 px
    assert count_decoded(found) >= 597 * 2
    labelled = {**DIGITS, "data": {**DIGITS["data"], "labels": 20}, "discovery": None}
    found, seconds = count({**labelled, "strategy": "supervised"})
    assert found.watch.total("frozen backbone").images == 617
    assert seconds == pytest.approx(found.watch.total("frozen backbone").seconds)


def test_a_rehearsal_refuses_what_a_run_refuses():
    recipe = recipe_from(METRIC, ["optimizer.factors={student.nothing: 2}"])
    with pytest.raises(FewLabelsError, match="no trained parameter's path starts with"):
        rehearse_recipe(recipe)
    with pytest.raises(FewLabelsError, match="known once it is fetched"):
        rehearse_recipe(recipe_from(METRIC, ["model.backbone=hf-hub:timm/resnet18.a1_in1k"]))


def test_a_weight_of_a_term_that_no_step_gives_is_told():
    recipe = recipe_from(
        {
            "data": {**DIGITS["data"], "labels": 20},
            "model": {**DIGITS["model"], "embedding_size": None},
            "strategy": {"name": "mean_teacher", "labelled": 8, "batch": 8},
            "weights": {"logit_distance": 0.5},  # of a second head, which is not there
        }
    )
    with pytest.raises(FewLabelsError, match="no step of the rehearsal gave logit_distance"):
        rehearse_recipe(recipe)


def test_one_recipe_gets_a_page_and_several_a_line_each(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(recipe_from(METRIC).to_yaml())
    assert (
        main(["rehearse", str(path), "--images-per-second", "convnet3=900", "rounds.rounds=2"]) == 0
    )
    page = capsys.readouterr().out
    for words in ("Its time here", "Its time there", "Disk", "convnet3 900", " 300 "):
        assert words in page
    bad = tmp_path / "bad.yaml"
    bad.write_text(recipe_from({**METRIC, "optimizer": {"factors": {"student.none": 2}}}).to_yaml())
    same = tmp_path / "same.yaml"
    same.write_text("extends: mine.yaml\nname: another\n")
    assert main(["rehearse", str(path), str(bad), str(same)]) == 2
    given = capsys.readouterr()
    first, second = given.out.splitlines()[:2]
    assert first.startswith(f"{path}: 900 steps, 36,000 images seen")
    assert second.removeprefix(str(same)) == first.removeprefix(str(path))  # rehearsed once
    assert "3 recipes, 1 refused" in given.out
    assert "student.none" in given.err
    rates = ["convnet3=900", "googlnet=900", "decode=400"]
    words = [word for rate in rates for word in ("--images-per-second", rate)]
    assert main(["rehearse", str(path), "rounds.rounds=2", *words]) == 0
    told = capsys.readouterr().err
    assert "--images-per-second googlnet: no recipe here has such a backbone" in told
    assert "there is convnet3" in told


def test_throughputs_are_of_training_of_a_backbone_or_of_a_part():
    assert parse_throughputs(["900", "decode=1e3"]) == {"train": 900, "decode": 1000}
    assert parse_throughputs(["resnet50.a1_in1k=900"]) == {"resnet50": 900}
    for word in ("0", "x", "a=b", "nan", "-3"):
        with pytest.raises(FewLabelsError, match="above 0"):
            parse_throughputs([word])
    with pytest.raises(FewLabelsError, match="in training too"):
        parse_throughputs(["decode=400"])
    found = rehearse_recipe(recipe_from(METRIC))
    train, embed, decode, *_ = cost_elsewhere(
        found, {"convnet3": 100, "train": 1, "embed": 10, "decode": 2}
    )
    assert train.seconds == 36_000 / 100
    assert embed.seconds == (6 * 1200 + 7 * 597) / 10
    assert decode.seconds == 2 * (1200 + 597) / 2


def test_images_for_what_a_strategy_starts_with_are_embedded_there_and_decoded_too():
    strategy = {"name": "metric", "batch": 40, "head": "pca"}
    recipe = recipe_from({**METRIC, "strategy": strategy, "data": {**METRIC["data"], "memory": 0}})
    found = rehearse_recipe(recipe)
    images, lap = found.whole.measure_start(found.whole.loops[0])
    assert images == 1200  # principal components of all training images
    assert found.whole.measure_start(found.whole.loops[0])[1] is lap  # measured once
    embed = cost_elsewhere(found, {"train": 100, "embed": 10})[1]
    assert embed.seconds == (7 * 1200 + 7 * 597) / 10
    assert count_decoded(found) == (1200 + 597) + 7 * 1200 + 36_000 + 7 * 597
