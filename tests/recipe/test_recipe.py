"""What a person reads when a recipe is wrong, and that a good one survives a round trip."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fewlabels.errors import RecipeError
from fewlabels.recipe.component_schema import derive_component_schema, get_component_schema
from fewlabels.recipe.recipe import load_recipe, recipe_from
from fewlabels.recipe.recipe_schema import format_recipe_schema
from fewlabels.recipe.sections import Data
from fewlabels.recipe.timm_names import list_timm_models, list_timm_optimizers
from fewlabels.registry import REGISTRIES

ROOT = Path(__file__).parents[2]
GOOD = """\
data: {source: digits, warp: true}
model: {backbone: convnet3, embedding_size: 64, image_size: 24}
strategy: {name: metric, batch: 60}
discovery: {name: kmeans, clusters: 30}
losses: [{name: multi_similarity, beta: 40}]
"""


def mistakes_of(tmp_path, text, *overrides):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return [m.replace(f"{tmp_path}/", "") for m in caught.value.mistakes]


WRONG = {
    "unknown key at the top": (
        GOOD + "optimiser: {lr: 1e-3}\n",
        "wrong.yaml:6: optimiser: unknown key; did you mean 'optimizer'?",
    ),
    "unknown option of a component": (
        GOOD.replace("beta: 40", "bta: 40"),
        "wrong.yaml:5: losses[0].bta: unknown key; did you mean 'beta'?  (fewlabels show loss multi_similarity)",
    ),
    "unknown option of a single component": (
        GOOD.replace("clusters: 30", "cluster: 30"),
        "wrong.yaml:4: discovery.cluster: unknown key; did you mean 'clusters'?",
    ),
    "unknown key in a section": (
        GOOD + "optimizer: {lrr: 1}\n",
        "wrong.yaml:6: optimizer.lrr: unknown key; did you mean 'lr'?",
    ),
    "wrong type": (
        GOOD.replace("batch: 60", "batch: sixty"),
        "wrong.yaml:3: strategy.batch: expected a whole number, got 'sixty'",
    ),
    "wrong type in a section": (
        GOOD + "seed: 1.5\n",
        "wrong.yaml:6: seed: expected a whole number, got 1.5",
    ),
    "out of bounds": (
        GOOD + "optimizer: {lr: -1}\n",
        "wrong.yaml:6: optimizer.lr: expected greater than 0, got -1",
    ),
    "not one of the choices": (
        GOOD + "train: {precision: bf61}\n",
        "wrong.yaml:6: train.precision: expected no | bf16 | fp16, got 'bf61'; did you mean 'bf16'?",
    ),
    "unknown component": (
        GOOD.replace("multi_similarity", "multi_similarty"),
        "wrong.yaml:5: losses[0].name: no loss is called 'multi_similarty'; did you mean 'multi_similarity'?",
    ),
    "unknown source": (
        GOOD.replace("digits", "digts"),
        "wrong.yaml:1: data.source: no source is called 'digts'; did you mean 'digits'?",
    ),
    "missing source": (
        GOOD.replace("source: digits, ", ""),
        "wrong.yaml:1: data.source: missing; write one of",
    ),
    "unknown backbone": (
        GOOD.replace("convnet3", "resnet5"),
        "wrong.yaml:2: model.backbone: neither timm nor a plugin has a backbone called 'resnet5'",
    ),
    "an unknown option of a backbone": (
        GOOD.replace("convnet3", "convnet3, backbone_options: {wdth: 2}"),
        "wrong.yaml:2: model.backbone_options.wdth: unknown key; did you mean 'width'?  (fewlabels show backbone convnet3)",
    ),
    "a value that a backbone cannot have": (
        GOOD.replace("convnet3", "convnet3, backbone_options: {width: -3}"),
        "wrong.yaml:2: model.backbone_options.width: expected greater than 0, got -3",
    ),
    "duplicate key": (
        GOOD + "seed: 1\nseed: 2\n",
        "wrong.yaml:7: seed: duplicate key, first on line 6; keep one",
    ),
    "missing weights file": (
        GOOD.replace("convnet3", "convnet3, weights: gone.pth"),
        "wrong.yaml:2: model.weights: no such file; looked for gone.pth",
    ),
    "missing parent": (
        "extends: gone.yaml\n",
        "wrong.yaml:1: extends: gone.yaml: no such file; give the path of a recipe (.yaml)",
    ),
    "class overlap under a zero-shot split": (
        GOOD.replace(
            "warp: true", "split: zero_shot, train: {classes: 0-5}, test: {classes: '5-9'}"
        ),
        "wrong.yaml:1: data.test.classes: classes 5 are in train too, which a zero_shot split forbids",
    ),
    "a range of classes that ends before it starts": (
        GOOD.replace("warp: true", "train: {classes: '0-4,5-3'}"),
        "wrong.yaml:1: data.train.classes: write the smaller number of a range first, got '0-4,5-3'",
    ),
    "more classes than memory holds": (
        GOOD.replace("warp: true", "split: zero_shot, test: {classes: 0-99999999999}"),
        "wrong.yaml:1: data.test.classes: expected at most 1,000,000 numbers, got '0-99999999999'",
    ),
    "a loss without what it needs": (
        GOOD.replace("discovery: {name: kmeans, clusters: 30}\n", "").replace(
            "[{name: multi_similarity, beta: 40}]", "contrastive_clustering"
        ),
        "wrong.yaml:4: losses: loss contrastive_clustering needs centres, and no discovery gives them",
    ),
    "no loss": (GOOD.split("losses")[0], "wrong.yaml: losses: at least one is needed"),
    "a weight without its loss": (
        GOOD + "weights: {multi_similarity: 1, ccl: 2}\n",
        "wrong.yaml:6: weights.ccl: no loss of this recipe is called so",
    ),
    "a list where a mapping belongs": (
        GOOD + "rounds: [1, 2]\n",
        "wrong.yaml:6: rounds: expected a mapping, got [1, 2]",
    ),
    "a batch that clusters cannot share": (
        GOOD.replace("batch: 60", "batch: 62"),
        "wrong.yaml:3: strategy.batch: 62 is no multiple of per_class, 5; change one",
    ),
    "a discovery twice": (
        GOOD.replace("{name: kmeans, clusters: 30}", "[kmeans, kmeans]"),
        "wrong.yaml:4: discovery[1].name: 'kmeans' is listed twice; keep one",
    ),
    "unknown optimiser": (
        GOOD + "optimizer: {name: adamx}\n",
        "wrong.yaml:6: optimizer.name: timm has no optimiser called 'adamx'; did you mean 'adam",
    ),
    "one number for several decays": (
        GOOD + "schedule: {name: multistep, decay_epochs: 3}\n",
        "wrong.yaml:6: schedule.decay_epochs: multistep takes the list of epochs, got 3",
    ),
    "several numbers for one decay": (
        GOOD + "schedule: {name: step, decay_epochs: [3, 5]}\n",
        "wrong.yaml:6: schedule.decay_epochs: step takes one number, got [3, 5]; or use multistep",
    ),
    "no epochs between decays": (
        GOOD + "schedule: {name: step, decay_epochs: 0}\n",
        "wrong.yaml:6: schedule.decay_epochs: expected greater than 0, got 0",
    ),
    "text that does not fit": (
        GOOD + "name: my run\n",
        "wrong.yaml:6: name: expected letters, digits, dots, dashes and underscores, no dot first, at most 100, got 'my run'",
    ),
    "an empty list": (
        GOOD + "evaluation: {ks: []}\n",
        "wrong.yaml:6: evaluation.ks: expected a list of at least 1, got []",
    ),
    "a place that is no text": (
        GOOD + "blocks: {name: cbam, after: 3}\n",
        "wrong.yaml:6: blocks.after: expected text, got 3",
    ),
    "a number in a list that may be one number": (
        GOOD + "schedule: {name: multistep, decay_epochs: [3, x]}\n",
        "wrong.yaml:6: schedule.decay_epochs[1]: expected a whole number, got 'x'",
    ),
    "one of the numbers of an option": (
        GOOD + "views: {name: homography, crop: [a, 1.0]}\n",
        "wrong.yaml:6: views.crop[0]: expected a number, got 'a'",
    ),
    "unknown key of a selection": (
        GOOD.replace("warp: true", "train: {clases: '0-4'}"),
        "wrong.yaml:1: data.train.clases: unknown key; did you mean 'classes'?  (known: classes, where)",
    ),
    "a key of data in a selection": (
        GOOD.replace("warp: true", "test: {split: all}"),
        "wrong.yaml:1: data.test.split: unknown key  (known: classes, where)",
    ),
    "a section that is a name": (
        GOOD + "optimizer: adam\n",
        "wrong.yaml:6: optimizer: expected a mapping, got 'adam'; write {name: adam}",
    ),
    "a model that is a name": (
        GOOD.replace("{backbone: convnet3, embedding_size: 64, image_size: 24}", "convnet3"),
        "wrong.yaml:2: model: expected a mapping, got 'convnet3'; write {backbone: convnet3}",
    ),
    "not YAML": ("data: [1,\nmodel: }", "wrong.yaml:2: not readable as YAML"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_told_in_one_sentence_with_file_line_and_fix(case, tmp_path):
    text, sentence = WRONG[case]
    mistakes = mistakes_of(tmp_path, text)
    assert len(mistakes) == 1
    assert mistakes[0].startswith(sentence)


@pytest.mark.parametrize(
    ("section", "word"), [("rounds", "round"), ("train", "bf16"), ("evaluation", "best")]
)
def test_no_choice_within_a_section_is_offered_in_its_place(section, word, tmp_path):
    (mistake,) = mistakes_of(tmp_path, GOOD + f"{section}: {word}\n")
    assert mistake == f"wrong.yaml:6: {section}: expected a mapping, got '{word}'"


def test_all_mistakes_are_told_at_once(tmp_path):
    text = GOOD.replace("beta: 40", "bta: 40").replace("batch: 60", "batch: x") + "seeed: 1\n"
    assert len(mistakes_of(tmp_path, text, "rounds.rounds=0", "optimizer.lr=a")) == 5


def test_of_very_many_mistakes_the_first_are_told_without_a_wait(tmp_path):
    text = GOOD + "".join(f"unknown_{i}: {i}\n" for i in range(2000))
    begin = time.process_time()
    mistakes = mistakes_of(tmp_path, text)
    assert time.process_time() - begin < 2
    assert len(mistakes) == 51
    assert mistakes[0].startswith("wrong.yaml:6: unknown_0: unknown key  (known: name, seed, ")
    assert mistakes[49].startswith("wrong.yaml:55: unknown_49: ")
    assert mistakes[50] == "wrong.yaml: and 1950 more mistakes"
    assert mistakes_of(tmp_path, "".join(text.splitlines(True)[: 5 + 51]))[50:] == [
        "wrong.yaml: and 1 more mistake"
    ]
    assert len(mistakes_of(tmp_path, "".join(text.splitlines(True)[: 5 + 50]))) == 50


def test_a_mistake_on_the_command_line_is_said_to_be_there(tmp_path):
    (mistake,) = mistakes_of(tmp_path, GOOD, "strategy.batch=none")
    assert mistake == "command line: strategy.batch: expected a whole number, got 'none'"


@pytest.mark.parametrize("case", ["unknown key at the top", "not YAML", "unknown component"])
def test_the_command_line_exits_with_2_and_no_traceback(case, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG[case][0])
    for command in (["fewlabels", "check"], ["fewlabels.run"]):
        done = subprocess.run(
            [sys.executable, "-m", *command, str(path)], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert WRONG[case][1] in done.stderr


def test_a_resolved_recipe_says_the_same_when_it_is_read_again(tmp_path):
    (tmp_path / "good.yaml").write_text(GOOD)
    first = load_recipe(tmp_path / "good.yaml", ["losses.0.beta=45", "weights.multi_similarity=2"])
    (tmp_path / "resolved.yaml").write_text(first.to_yaml())
    again = load_recipe(tmp_path / "resolved.yaml")
    assert again.hash == first.hash
    assert again == first
    assert first.losses[0].options["beta"] == 45
    assert first.weights["multi_similarity"] == 2
    assert first.strategy.options["per_class"] == 5  # a default, spelled out


def test_a_recipe_may_come_as_a_mapping():
    recipe = recipe_from(yaml.safe_load(GOOD), ["seed=3"])
    assert (recipe.seed, recipe.source.name, recipe.source.options) == (3, "digits", {"warp": True})
    folder = {"data": {"source": "folder", "path": Path("photos")}, "losses": "multi_similarity"}
    assert recipe_from(folder).source.options["path"] == "photos"
    for wrong, sentence in [
        ({"seed": {1, 2}}, "{1, 2} is of type set; a recipe holds text, numbers"),
        ({"extends": "a.yaml"}, "only a file can extend another"),
    ]:
        with pytest.raises(RecipeError, match=sentence):
            recipe_from(folder | wrong)


def test_a_file_name_becomes_a_run_name(tmp_path):
    (tmp_path / "my first run.yaml").write_text(GOOD)
    assert load_recipe(tmp_path / "my first run.yaml").name == "my-first-run"


def test_optimisers_read_from_source_are_those_of_timm():
    from timm.optim import list_optimizers

    assert list_timm_optimizers() == set(list_optimizers())


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_of_this_package_is_good(path, monkeypatch, tmp_path):
    weights = tmp_path / "weights" / "tf_efficientnet_lite0.safetensors"
    weights.parent.mkdir()
    weights.touch()
    monkeypatch.setenv("FEWLABELS_DATA", str(tmp_path))
    load_recipe(path)


def test_the_committed_schema_is_that_of_the_signatures():
    committed = (ROOT / "fewlabels" / "recipe" / "schema.json").read_text()
    assert committed == format_recipe_schema(), "run: fewlabels schema --write"


def test_a_component_is_checked_alike_from_its_signature_and_from_the_committed_schema():
    for plural in ("losses", "discovery", "sources", "strategies", "views"):
        for name in REGISTRIES[plural].names():
            fresh = derive_component_schema(REGISTRIES[plural].get(name))
            assert get_component_schema(plural, name)["properties"] == fresh["properties"]


def test_timm_names_read_from_source_are_those_that_timm_registers():
    import timm

    ours = {name for name in timm.list_models() if name in REGISTRIES["backbones"].names()}
    assert list_timm_models() == set(timm.list_models()) - ours


def seconds(*command: str, code: int = 0) -> float:
    """Of the processor, the best of three: what else the machine does counts little."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True)
        assert done.returncode == code
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_listing_and_checking_do_not_keep_a_person_waiting():
    assert seconds("fewlabels", "list") < 0.5
    check = ("fewlabels", "check", str(ROOT / "recipes" / "quickstart.yaml"))
    assert seconds(*check, "rounds.ruonds=3", code=2) < 1.5  # what its text says waits for nothing
    assert seconds(*check) < 8  # torch and timm take 4


def test_no_source_has_an_option_that_data_itself_has():
    for name in REGISTRIES["sources"].names():
        fresh = derive_component_schema(REGISTRIES["sources"].get(name))
        assert not set(fresh["properties"]) & {*Data.model_fields, "source"}


def places(data, path=()):
    """Every key path of nested data."""
    yield path
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


JUNK = [
    None,
    3,
    -1.5,
    True,
    "x",
    [],
    [1, [2]],
    {},
    {"a": {"b": 1}},
    {"name": 3},
    {"name": "x"},
    [None],
]


def test_junk_at_any_place_is_a_sentence_and_never_a_traceback():
    whole = yaml.safe_load(
        GOOD + "weights: {multi_similarity: {end: 1, steps: 5, shape: linear}}\n"
        "views: [{name: homography, crop: [0.5, 1.0]}]\n"
        "optimizer: {lr: 0.1, factors: {student: 1}}\nschedule: {decay_epochs: [1, 2]}\n"
        "evaluation: {ks: [1, 2]}\nrounds: {limit: 2.0}\nmodel: {backbone: convnet3}\n"
    )
    whole["data"] |= {"train": {"classes": "0-4"}, "query": {"where": {"split": "test"}}}
    recipe_from(whole)
    for path in list(places(whole))[1:]:
        for junk in JUNK:
            data = json.loads(json.dumps(whole))
            inner = data
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = junk
            said = ""
            try:
                recipe_from(data)
            except RecipeError as error:  # any other error fails the test
                said = str(error)
            assert "Input should" not in said
