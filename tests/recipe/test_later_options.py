"""Recipes of older runs mean what they meant, though options and defaults came later."""

import itertools

import pytest

from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import RecipeError
from fewlabels.recipe.recipe import load_recipe, recipe_from
from fewlabels.recipe.sections import Rounds
from fewlabels.registry import REGISTRIES
from fewlabels.training.round_schedule import RoundSchedule

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


@pytest.mark.parametrize(
    ("strategy", "taken", "known"),
    [
        ({"name": "vat", "epsilon": 1.5}, {"average": None}, "df584c3a7fb3"),
        ({"name": "lmcs", "layer": None, "ema": {"end": 0.999}}, {}, "3bc73c2aaeb7"),
    ],
)
def test_a_run_from_before_other_weights_has_the_hash_that_it_had(strategy, taken, known):
    old = of_before(strategy, **taken)
    for key in ("no_decay", "frozen_epochs"):
        del old["optimizer"][key]
    again = recipe_from(old)
    assert again.hash == recipe_from(again.resolved).hash == known  # as version 0.1 gave it
    now = {**again.resolved, "weights": {}}  # today's, though no option differs
    assert recipe_from(now).weights == {}
    assert recipe_from(now).hash != known


def test_a_weight_that_an_older_run_set_is_kept():
    old = {**of_before("vat", average=None), "weights": {"entropy": 0.0}}
    assert recipe_from(old).weights == {"adversarial": 1.0, "entropy": 0.0}


def test_an_older_snowball_on_mixmatch_keeps_the_average_of_its_day():
    now = recipe_from(
        {**DATA, "strategy": {"name": "snowball", "base": "mixmatch"}, "discovery": "confident"}
    )
    assert now.strategy.options["ema"] is None
    old = {**now.resolved, "model": {k: v for k, v in now.resolved["model"].items() if k != "mean"}}
    again = recipe_from(old)
    assert again.strategy.options["ema"] == Ramp(end=0.999)
    assert recipe_from(again.resolved).hash == again.hash != now.hash


@pytest.mark.parametrize("name", ["ict", "pi_model", "pseudo_label", "vat"])
def test_another_strategy_in_a_recipe_of_today_has_the_defaults_of_today(name):
    resolved = recipe_from({**DATA, "strategy": "mean_teacher", "discovery": "confident"}).resolved
    given = recipe_from({**DATA, "strategy": name, "discovery": "confident"})
    assert recipe_from(resolved, [f"strategy.name={name}"]).strategy == given.strategy


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
    through = {"name": "confident", "by": "student"}
    known = recipe_from({**DATA, "strategy": "mean_teacher", "discovery": through})
    assert known.hash == "4a3f8407515d"  # as version 0.1 gave it
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


def fall(*overrides, **rounds):
    """A Mean Teacher of rounds with a discovery, whose rate rises for 2 epochs and falls for 3."""
    return recipe_from(
        {
            **DATA,
            "strategy": "mean_teacher",
            "discovery": "confident",
            "schedule": {"warmup_epochs": 2, "final_epochs": 3},
            "rounds": {"rounds": 3, "epochs_per_round": 3, **rounds},
        },
        overrides,
    )


@pytest.mark.parametrize(
    ("overrides", "rounds"),
    [
        (["rounds.epochs_per_round=1"], {}),  # with the round on the given labels, 4 epochs
        (["discovery=[]", "rounds.rounds=1"], {}),
        (["rounds.restart=round"], {}),
        (["rounds.rounds=1"], {"restart": "generation", "generations": 2}),
    ],
)
def test_a_rate_that_would_fall_before_it_has_risen_is_refused(overrides, rounds):
    fall(**rounds)
    with pytest.raises(RecipeError, match="so the rate is never whole"):
        fall(*overrides, **rounds)


@pytest.mark.parametrize("restart", ["never", "generation", "round"])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_epochs_are_counted_as_the_run_counts_them(restart, first):
    for given, generations, rounds in itertools.product([None, 1, 5], [1, 3], [1, 2, 5]):
        said = Rounds(
            restart=restart,
            first_epochs=given,
            generations=generations,
            rounds=rounds,
            epochs_per_round=3,
            discover_every=max(1, first),
        )
        schedule = RoundSchedule(**said.model_dump(), first=first)
        between = [schedule.epochs_between_restarts(i)[1] for i in range(schedule.total)]
        assert said.count_epochs_between_restarts(bool(first)) == min(between)
        last = max(i for i in range(schedule.total) if schedule.begins_with_discovery(i))
        after = sum(schedule.count_epochs(i) for i in range(last, schedule.total))
        assert said.count_epochs_after_discovery() == after


def test_a_ramp_for_averages_is_refused_among_weights():
    ramp = {"end": 1.0, "shape": "reach"}
    with pytest.raises(RecipeError, match="weights.consistency.shape: reach is for the decay"):
        recipe_from({**DATA, "strategy": "mean_teacher", "weights": {"consistency": ramp}})


def test_a_rate_that_falls_while_labels_arrive_is_told():
    assert fall().remarks == ()
    assert (
        fall("rounds.epochs_per_round=2", "rounds.discover_every=2")
        .remarks[0]
        .endswith(
            "3 is more than the 2 epochs after the last discovery, so labels arrive while the rate "
            "falls; set 2 or less"
        )
    )
    assert fall("rounds.epochs_per_round=2", "rounds.discover_every=3").remarks == ()
    assert fall("rounds.epochs_per_round=2", "discovery=[]").remarks == ()


def test_final_epochs_of_another_schedule_are_refused(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("data: {source: digits}\nstrategy: supervised\n")
    load_recipe(file, ["schedule.final_epochs=2", "data.labels=10", "rounds.epochs_per_round=2"])
    with pytest.raises(Exception, match="only a constant rate has final_epochs"):
        load_recipe(file, ["schedule={name: cosine, final_epochs: 2}", "data.labels=10"])
