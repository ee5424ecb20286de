"""A recipe whose strategy would ignore the weights of labels is refused, and old ones stay."""

import copy

import pytest

from fewlabels import registry
from fewlabels.components.discovery.by_prediction import ByPrediction
from fewlabels.components.strategies.mean_teacher import MeanTeacher
from fewlabels.contracts import weighs_labels
from fewlabels.errors import RecipeError
from fewlabels.recipe.recipe import recipe_from

DATA = {"data": {"source": "digits", "labels": 20}, "model": {"backbone": "convnet3"}}
WEIGHS = {"name": "confident", "by": "student", "weigh": True}


@pytest.mark.parametrize("strategy", ["metric", "tac_ccl"])
def test_a_metric_strategy_refuses_weights_in_one_sentence(strategy):
    recipe = {**DATA, "strategy": strategy, "losses": "multi_similarity", "discovery": WEIGHS}
    with pytest.raises(RecipeError) as refused:
        recipe_from(recipe)
    assert refused.value.mistakes == [
        "recipe: discovery.weigh: discovery confident weighs its labels, and strategy "
        f"{strategy} would count each as 1; set weigh: false"
    ]
    assert recipe_from(recipe, ["discovery.weigh=false"]).remarks == ()


def test_a_classifier_takes_them_and_of_several_discoveries_the_one_is_named():
    assert recipe_from({**DATA, "strategy": "supervised", "discovery": WEIGHS}).remarks == ()
    both = ["kmeans", {"name": "by_prediction", "by": "student", "weigh": True}]
    recipe = {**DATA, "strategy": "metric", "losses": "multi_similarity", "discovery": both}
    with pytest.raises(RecipeError, match=r"discovery\[1\]\.weigh: discovery by_prediction weighs"):
        recipe_from(recipe)


class Own(MeanTeacher):
    """Writes losses of its own, and says nothing of weights."""

    def losses(self, phase, models, batch, clock):
        return super().losses(phase, models, batch, clock)


class Always(ByPrediction):
    """Weighs whatever a recipe says."""

    weigh = True

    def __init__(self, *, by: str = "student") -> None:
        super().__init__(by=by, weigh=True)


def test_a_plugins_strategy_that_does_not_say_is_told_so_in_a_remark(monkeypatch):
    monkeypatch.setitem(registry.strategies._registered, "own", {__name__: Own})
    recipe = {**DATA, "strategy": "own", "discovery": WEIGHS}
    assert weighs_labels(Own) is None
    (remark,) = recipe_from(recipe).remarks
    assert "strategy own does not say whether it counts labels by their weights" in remark
    assert "weighs_labels = True" in remark
    assert recipe_from(recipe, ["discovery.weigh=false"]).remarks == ()


def test_a_plugins_discovery_that_always_weighs_is_refused_too(monkeypatch):
    monkeypatch.setitem(registry.discovery._registered, "always", {__name__: Always})
    recipe = {**DATA, "strategy": "metric", "losses": "multi_similarity", "discovery": "always"}
    with pytest.raises(RecipeError, match="would count each as 1; use another one"):
        recipe_from(recipe)
    assert recipe_from({**DATA, "strategy": "supervised", "discovery": "always"}).remarks == ()


@pytest.mark.parametrize("name", ["confident", "by_prediction"])
def test_a_recipe_of_before_has_no_weights_and_its_hash(name):
    now = recipe_from({**DATA, "strategy": "snowball", "discovery": name})
    old = copy.deepcopy(now.resolved)
    del old["discovery"][0]["weigh"]
    again = recipe_from(old)
    assert again.discovery[0].options["weigh"] is False
    assert again.hash == now.hash
    weighs = recipe_from(
        {**DATA, "strategy": "snowball", "discovery": {"name": name, "weigh": True}}
    )
    assert weighs.hash != now.hash
