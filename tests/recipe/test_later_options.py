"""Recipes of older runs mean what they meant, though options and defaults came later."""

import pytest

from fewlabels.recipe.recipe import load_recipe, recipe_from
from fewlabels.registry import REGISTRIES

DATA = {"data": {"source": "digits", "labels": 20}}


def of_before(strategy, **taken):
    """The resolved recipe of a run before options ``taken`` of a strategy existed."""
    resolved = recipe_from({**DATA, "strategy": strategy, "discovery": "confident"}).resolved
    resolved["strategy"] = {k: v for k, v in resolved["strategy"].items() if k not in taken}
    del resolved["discovery"][0]["score"]
    del resolved["schedule"]["final_epochs"]
    for key in ("mean", "std"):
        del resolved["model"][key]
    return resolved


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("ict", {"mix_labelled": False, "share": "image"}),
        ("mixup", {"average": None}),
        ("pi_model", {"average": None, "gradient": "both"}),
        ("pseudo_label", {"average": None}),
        ("vat", {"average": None}),
    ],
)
def test_a_run_from_before_an_option_goes_on_as_it_began(name, before):
    old = of_before(name, **before)
    again = recipe_from(old)
    assert {key: again.strategy.options[key] for key in before} == before
    assert again.discovery[0].options["score"] == "distance"
    assert again.schedule.final_epochs == 0
    if name == "vat":
        assert again.weights == {"adversarial": 1.0, "entropy": 1.0}
    now = recipe_from({**DATA, "strategy": name, "discovery": "confident"})
    assert any(now.strategy.options[key] != value for key, value in before.items())
    assert now.hash != again.hash
    assert recipe_from(again.resolved).resolved == again.resolved  # a newer run is left alone
    assert recipe_from(now.resolved).resolved == now.resolved


def test_a_weight_that_an_older_run_set_is_kept():
    old = {**of_before("vat", average=None), "weights": {"entropy": 0.0}}
    assert recipe_from(old).weights == {"adversarial": 1.0, "entropy": 0.0}


def test_an_older_embedders_googlenet_keeps_its_dropout():
    data = {
        "data": {"source": "digits"},
        "model": {"backbone": "googlenet", "embedding_size": 8},
        "strategy": "metric",
        "discovery": "kmeans",
        "losses": "multi_similarity",
    }
    now = recipe_from(data)
    assert now.model.backbone_options == {}
    assert recipe_from(now.resolved).model.backbone_options == {}
    old = {**now.resolved, "model": {k: v for k, v in now.resolved["model"].items() if k != "mean"}}
    assert recipe_from(old).model.backbone_options == {"drop_rate": 0.2}
    none = {**old, "model": {**old["model"], "backbone_options": {"drop_rate": 0.0}}}
    assert recipe_from(none).model.backbone_options == {"drop_rate": 0.0}


def test_the_hash_is_that_of_before_where_nothing_newer_is_asked_for():
    recipe = recipe_from({**DATA, "strategy": "mean_teacher", "discovery": "confident"})
    for path in [("discovery", 0, "score"), ("schedule", "final_epochs"), ("model", "mean")]:
        *outer, key = path
        place = recipe.resolved
        for step in outer:
            place = place[step]
        assert key in place
    same = recipe_from({**DATA, "strategy": "mean_teacher", "discovery": {"name": "confident"}})
    other = recipe_from(
        {**DATA, "strategy": "mean_teacher", "discovery": {"name": "confident", "score": "ratio"}}
    )
    assert recipe.hash == same.hash != other.hash


def test_every_later_option_is_one_that_a_component_has():
    from fewlabels.recipe.component_schema import get_component_schema
    from fewlabels.recipe.later_options import COMPONENTS, WEIGHTS

    plurals = {"strategy": "strategies", "discovery": "discovery", "losses": "losses"}
    for (slot, name), later in COMPONENTS.items():
        assert name in REGISTRIES[plurals[slot]].names()
        assert later.keys() <= get_component_schema(plurals[slot], name)["properties"].keys()
    for name, weights in WEIGHTS.items():
        assert weights.keys() <= set(get_component_schema("strategies", name)["x-terms"])


def test_final_epochs_of_another_schedule_are_refused(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("data: {source: digits}\nstrategy: supervised\n")
    load_recipe(file, ["schedule.final_epochs=2", "data.labels=10"])
    with pytest.raises(Exception, match="only a constant rate has final_epochs"):
        load_recipe(file, ["schedule={name: cosine, final_epochs: 2}", "data.labels=10"])
