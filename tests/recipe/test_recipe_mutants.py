"""Recipes with random mistakes: each is accepted, or refused in short sentences without a wait.

300 mutants, the same each time; others with ``FEWLABELS_MUTANTS=10000`` (5 minutes).
"""

import json
import os
import time
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fewlabels.errors import FewLabelsError, make_printable
from fewlabels.recipe.recipe import load_recipe, recipe_from
from fewlabels.recipe.yaml_file import dump_yaml

RECIPES = sorted(Path(__file__).parents[2].joinpath("recipes").glob("*.yaml"))
TEXTS = {path.stem: path.read_text("utf-8") for path in RECIPES}
PLAIN = {
    name: load_recipe(path, ended=True).resolved for name, path in zip(TEXTS, RECIPES, strict=True)
}
MUTANTS = int(os.environ.get("FEWLABELS_MUTANTS", "300"))
DEEP: object = 1
for _ in range(40):
    DEEP = [DEEP]

LEAVES = st.one_of(
    st.sampled_from(
        [None, "", True, False, 0, -1, 1, 10**40, 9 * 10**18, 1e308, -0.0, float("nan")]
        + [float("inf"), [], {}, [None], {"": 0}, {"name": "x"}, [[]], DEEP, "x" * 3000, "²", "~x"]
        + ["\x1b[31m", "a\0b", "\ud800", "1", "null", "=1", "name", "digits", "kmeans", "%s{0}"]
        + [["metric"] * 300, {f"k{i}": i for i in range(300)}, "../../x", "1-5", "\u202e", "é"]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=8,
    ),
)
FRAGMENTS = st.sampled_from(
    ["&a ", "*a", "!!int ", "!!python/name:os.system ", "{", "}", "[", "]", ": ", "\t", "\n", "- "]
    + ["'", '"', "|", "<<: *a\n", "\r", "\x07", "\ufeff", "? ", "%YAML 9\n", "---\n", "...\n", "#"]
    + ["extends: x.yaml\n", "extends: .\n", "seed: 1\n", "9" * 5000, "[" * 100, "ÿ", "\u2028"]
)


def list_places(value, path=()):
    """Every mapping and list of plain data with a key of each of its members."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in members:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from list_places(inner, (*path, key))


def find_holder(value, path):
    for key in path[:-1]:
        value = value[key]
    return value


@st.composite
def plain_mutants(draw):
    """A recipe of this repository as plain data, changed in one to four places."""
    data = json.loads(json.dumps(PLAIN[draw(st.sampled_from(sorted(PLAIN)))]))
    for _ in range(draw(st.integers(1, 4))):
        places = list(list_places(data))
        if not places:
            break
        path = draw(st.sampled_from(places))
        holder, key = find_holder(data, path), path[-1]
        change = draw(st.sampled_from(["replace", "drop", "rename", "add", "move", "double"]))
        if change == "replace":
            holder[key] = deepcopy(draw(LEAVES))  # it may be changed next
        elif change == "drop":
            del holder[key]
        elif change == "move":
            other = draw(st.sampled_from(places))
            value = json.loads(json.dumps(holder[key], default=str))
            find_holder(data, other)[other[-1]] = value
        elif isinstance(holder, list):
            holder.append(holder[key] if change == "double" else deepcopy(draw(LEAVES)))
        elif change == "add":
            holder[draw(st.text(max_size=30))] = deepcopy(draw(LEAVES))
        else:
            at = draw(st.integers(0, len(key)))
            holder[key[:at] + draw(st.text(max_size=2)) + key[at + 1 :]] = holder[key]
            if change == "rename":
                holder.pop(key, None)
    return data


@st.composite
def text_mutants(draw):
    """The text of such a recipe, with pieces cut out, written over and put in."""
    text = TEXTS[draw(st.sampled_from(sorted(TEXTS)))]
    for _ in range(draw(st.integers(1, 4))):
        at, end = (draw(st.integers(0, len(text))) for _ in range(2))
        kept = text[max(at, min(end, at + 30)) :]
        text = text[:at] + draw(FRAGMENTS | st.text(max_size=5)) + kept
    return text


def judge(read):
    """Whether ``read`` gives a recipe or sentences, within two seconds of this processor."""
    begin = time.process_time()
    try:
        found = read()
    except FewLabelsError as error:
        found, messages = None, getattr(error, "mistakes", [str(error)])
        for message in messages:
            assert len(message) < 2000
            assert message == make_printable(message)
    assert time.process_time() - begin < 2
    return found


many = settings(
    max_examples=MUTANTS // 3,
    deadline=None,
    derandomize=MUTANTS <= 300,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@many
@given(plain_mutants())
def test_a_changed_recipe_is_a_recipe_or_a_sentence(data):
    recipe = judge(lambda: recipe_from(data, ended=True))
    if recipe is not None:
        assert recipe_from(recipe.resolved, ended=True).resolved == recipe.resolved
        dump_yaml(recipe.resolved)


@many
@given(text_mutants())
@example("a: &a [*a]\n")
def test_a_changed_file_is_a_recipe_or_a_sentence(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "mutant.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    judge(lambda: load_recipe(path, ended=True))


@many
@given(st.sampled_from(sorted(PLAIN)), st.data())
def test_a_random_override_is_a_recipe_or_a_sentence(name, data):
    paths = [".".join(map(str, path)) for path in list_places(PLAIN[name])]
    path = data.draw(st.sampled_from(paths) | st.text(max_size=20))
    word = f"{path}={data.draw(FRAGMENTS | st.text(max_size=20) | LEAVES.map(str))}"
    judge(lambda: recipe_from(PLAIN[name], [word], ended=True))


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_what_the_mutants_are_made_of_is_good(name):
    assert judge(lambda: recipe_from(PLAIN[name], ended=True)).resolved == PLAIN[name]
