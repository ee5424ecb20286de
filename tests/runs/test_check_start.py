"""What a started run refuses, a check refuses in the same words, and looks at no image."""

import re
import shlex
from pathlib import Path

import pytest
from small import DIGITS

import fewlabels
from fewlabels.contracts import counts_of
from fewlabels.errors import DataError, FewLabelsError, RecipeError
from fewlabels.recipe.recipe import load_recipe, recipe_from
from fewlabels.registry import sources
from fewlabels.runs.check_start import check_start
from fewlabels.runs.expected_data import expect_data

RECIPES = Path(__file__).parents[2] / "recipes"
# Not one in closed form, whose strategy has no option that another could lack.
FULL = sorted(path for path in RECIPES.glob("*.yaml") if path.stem != "classify_folder")
METRIC = {**DIGITS, "losses": "multi_similarity", "rounds": {"steps_per_epoch": 1}}
TEACHER = {
    "data": {**DIGITS["data"], "labels": 40},
    "model": {**DIGITS["model"], "embedding_size": None},
    "strategy": {"name": "mean_teacher", "labelled": 8, "batch": 8},
    "rounds": {"steps_per_epoch": 1},
}


@pytest.mark.parametrize(
    ("recipe", "overrides", "says"),
    [
        (METRIC, ["optimizer.factors={student.backbone.conv9: 2, student.head: 3}"], "optimizer.factors={student.head: 3}"),
        (METRIC, ["optimizer.factors={student: 0}"], "freezes every parameter"),
        (METRIC, ["discovery.by=master", "discovery.name=confident", "data.labels=20"], "looks through the master"),
        (METRIC, ["strategy={name: metric, head: pca}", "model.embedding_size=null"], "pca needs a head"),
        (METRIC, ["data.labels=20"], "numbers its labels by itself"),
        (METRIC, ["strategy.name=tac_ccl", "losses=[multi_similarity, attention_consistency]"], "needs the attention map"),
        (METRIC, ["blocks={name: cbam, after: conv9}"], "no module 'conv9'"),
        (TEACHER, ["data.labels=none"], "needs some labels"),
        (TEACHER, ["data.labels=45"], "cannot be shared equally by 10 classes"),
        (TEACHER, ["strategy.name=lmcs", "strategy.layer=nowhere"], "no module 'nowhere'"),
        (TEACHER, ["model.backbone=convnet13", "model.backbone_options={heads: 2}", "strategy.name=mixmatch"], "a second head"),
        (METRIC, ["pretrain=rotation", "optimizer.factors={student.backbone: 0}"], "freeze the whole backbone"),
    ],
)  # fmt: skip
def test_a_check_refuses_in_the_words_of_the_run(tmp_path, recipe, overrides, says):
    recipe = recipe_from(recipe, overrides)
    refusals = []
    for start in (check_start, lambda recipe: fewlabels.train(recipe, out=tmp_path)):
        with pytest.raises(FewLabelsError) as refused:
            start(recipe)
        refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]
    assert says in refusals[0]


@pytest.mark.parametrize("recipe", [METRIC, TEACHER])
def test_what_runs_passes_the_check_which_writes_nothing_and_reads_no_image(
    tmp_path, monkeypatch, recipe
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources.get("digits"), "load", lambda self: pytest.fail("images were read"))
    check_start(recipe_from(recipe))
    assert list(tmp_path.iterdir()) == []


def tell(path, *overrides):
    """What a check says of a recipe: its mistake, or its remarks."""
    try:
        recipe = load_recipe(path, [*overrides, "model.weights=null"])
        check_start(recipe)
    except FewLabelsError as error:
        return str(error)
    return "\n".join(recipe.remarks)


def read_fixes(said):
    """The overrides that a check says to set."""
    return re.findall(r"'(\S+=.*?)'", said.partition("set ")[2])


@pytest.mark.slow
@pytest.mark.parametrize("path", FULL, ids=lambda p: p.stem)
def test_full_scale_recipes_are_good_and_without_parts_they_say_what_to_change(path):
    assert tell(path) == ""
    bare = tell(path, "blocks=[]")
    if not load_recipe(path, ["model.weights=null"]).blocks:
        assert bare == ""
    elif "set '" in bare:  # of weights of loss terms first, then of all that the optimiser is told
        fixes = read_fixes(bare)
        fixes += read_fixes(tell(path, "blocks=[]", *fixes))
        assert tell(path, "blocks=[]", *fixes) == ""
    else:
        assert "attention_consistency" in bare
        assert "blocks: {name: cbam" in bare
    loss = tell(path, "losses=[multi_similarity]")
    if "set '" in loss:  # of weights, or of factors
        assert tell(path, "losses=[multi_similarity]", *read_fixes(loss)) == ""
    else:
        assert loss == "" or "losses" in loss
    teacher = tell(path, "strategy.name=mean_teacher", "discovery=[]")
    assert "weights." in teacher or "losses" in teacher or "strategy.labelled=" in teacher


def test_the_row_without_san_is_told_before_images_are_read():
    path = RECIPES / "san_cub.yaml"
    assert read_fixes(tell(path, "blocks=[]")) == ["weights={cbml: 0.1}"] * 2
    assert read_fixes(tell(path, "blocks=[]", "weights={cbml: 0.1}")) == [
        "optimizer.factors={student.head: 3.3}",
        "optimizer.no_decay=[]",
    ]


def test_options_that_went_with_a_strategy_are_told_with_the_rounds_that_went():
    path = RECIPES / "snowball_svhn_convnet13.yaml"
    recipe = load_recipe(path, ["strategy.name=mean_teacher", "discovery=[]"])
    first, second = recipe.remarks
    assert "strategy.labelled=1 strategy.batch=99" in first
    assert "rounds.first_epochs: 100 counts for nothing" in second
    again = load_recipe(
        path,
        ["strategy.name=mean_teacher", "discovery=[]", "rounds.first_epochs=null"]
        + first.split("too: ")[1].split(),
    )
    assert again.strategy.options["batch"] == 99
    assert again.remarks == ()


@pytest.mark.parametrize(
    ("override", "kept"),
    [
        ("strategy=mean_teacher", "strategy.labelled=1 strategy.batch=99"),
        ("strategy={name: mean_teacher, batch: 3}", "strategy.labelled=1 strategy.unlabelled=all"),
        ("discovery={name: by_prediction}", "discovery.by=master"),
        ("discovery.name=by_prediction", "discovery.by=master"),
        ("optimizer.name=sgd", "optimizer.lr=0.003"),
        ("optimizer={name: sgd}", "optimizer.lr=0.003"),
        ("schedule.name=cosine", "schedule.warmup_epochs=54"),
        ("schedule={name: cosine}", "schedule.warmup_epochs=54"),
    ],
)
def test_options_that_a_new_name_takes_away_are_told_however_it_is_written(override, kept):
    path = RECIPES / "snowball_svhn_convnet13.yaml"
    assert load_recipe(path).remarks == ()
    told = "\n".join(load_recipe(path, [override]).remarks)
    assert f"that it has too: {kept}" in told


def test_options_to_give_again_can_be_pasted_into_a_shell():
    recipe = recipe_from(
        {**TEACHER, "strategy": {"name": "mean_teacher", "ema": {"end": 0.9, "steps": 5}}},
        ["strategy.name=mixmatch"],
    )
    (remark,) = recipe.remarks
    assert shlex.split(remark.split("too: ")[1]) == ["strategy.ema={end: 0.9, steps: 5}"]


def test_a_check_asks_nothing_of_the_network(monkeypatch):
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *given: pytest.fail("asked the network"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given: pytest.fail("asked the network"))
    check_start(load_recipe(RECIPES / "folder.yaml"))
    check_start(load_recipe(RECIPES / "folder.yaml", ["model.backbone=hf-hub:me/mine"]))


def test_pretrained_weights_that_timm_does_not_have_are_told():
    recipe = recipe_from({**METRIC, "model": {"backbone": "convnet3", "pretrained": True}})
    with pytest.raises(FewLabelsError, match="no pretrained weights for 'convnet3'"):
        check_start(recipe)


def test_expected_data_have_the_counts_and_classes_of_publications():
    for name, (train, test), shared in [
        ("cub200", (5864, 5924), 0),
        ("inshop", (25882, 26830), 0),
        ("cifar10", (50000, 10000), 10),
        ("digits", (1200, 597), 10),
    ]:
        data = expect_data(recipe_from({**METRIC, "data": {"source": name}}))
        assert (len(data.train), len(data.split.test)) == (train, test)
        truth = data.records.truth
        assert len({*truth[data.train]} & {*truth[data.split.test]}) == shared
        assert counts_of(sources.get(name)).disjoint == (shared == 0)
        with pytest.raises(DataError, match="expected"):
            data.records.images[0]


def test_a_weight_of_a_loss_that_is_gone_names_the_weights_that_are_left():
    with pytest.raises(RecipeError, match="set 'weights={multi_similarity: 2}'"):
        recipe_from({**METRIC, "weights": {"multi_similarity": 2, "feature_similarity": 0.1}})


@pytest.mark.parametrize(
    "data",
    [
        {"labels": 57},
        {"labels": 68, "validation": 51},
        {"labels": 59, "share": "per_class", "validation": 3},
        {"labels": 40, "validation": 20, "share": "proportional"},
        {"split": "zero_shot"},
        {"split": "zero_shot", "train": {"classes": "0-40"}},
        {"split": "zero_shot", "test": {"classes": "41-80"}},
        {"split": "official", "labels": 59},
        {"train": {"where": {"shop": ["a", "b"], "year": 3}}, "test": {"where": {"year": 4}}},
        {"test": {"classes": "5-9"}, "query": {"where": {"own": True}}, "gallery": {"where": {"own": False}}},
    ],
)  # fmt: skip
def test_data_that_nobody_has_published_are_taken_to_be_as_the_recipe_needs_them(data):
    check_start(
        recipe_from(
            {
                **METRIC,
                "discovery": [],
                "data": {"source": "folder", "path": "x", "labels": "all", **data},
            }
        )
    )
