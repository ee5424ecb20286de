"""A recipe may be a stranger's: it costs no memory and no wait, and what is wrong is a sentence."""

import gc
import os
import signal
import time
from contextlib import suppress

import pytest

from fewlabels.errors import RecipeError
from fewlabels.recipe.recipe import load_recipe, recipe_from

GOOD = """\
data: {source: digits, split: official}
model: {backbone: convnet3}
strategy: {name: metric, batch: 60}
discovery: {name: kmeans, clusters: 30}
losses: [{name: multi_similarity, beta: 40}]
"""


def grow_aliases(times):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]\n"]
    for i in range(1, times):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n")
    return "".join(lines)


@pytest.fixture(autouse=True)
def alarm():
    """Ends a test that hangs."""

    def late(*_):
        raise TimeoutError("more than 10 seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def mistakes_of(tmp_path, text, *overrides):
    path = tmp_path / "x.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    begin = time.process_time()
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert time.process_time() - begin < 2
    mistakes = [mistake.replace(f"{tmp_path}{os.sep}", "") for mistake in caught.value.mistakes]
    assert len(mistakes) <= 51
    assert all(mistake.isprintable() and len(mistake) < 2000 for mistake in mistakes)
    return mistakes


TEXTS = {
    "aliases that grow": (grow_aliases(9) + GOOD, "1: more than 10,000 values"),
    "a list of a million": ("x: [" + "1," * 400_000 + "1]\n", "1: more than 10,000 values"),
    "a file of megabytes": ("#" * 2_000_000, " more than 1,000,000 bytes"),
    "deep nesting": (GOOD + "x: " + "[" * 5000, "6: nested deeper than 32 levels"),
    "nesting by aliases": (
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 50)),
        "1: nested deeper than 32 levels",
    ),
    "an anchor in itself": (
        GOOD + "x: &a [*a]\n",
        "6: x[0]: an anchor contains itself; write the value out",
    ),
    "a device": ("extends: /dev/zero\n", "1: extends: /dev/zero: no regular file"),
    "a name of zeros": ('extends: "a\\0b"\n', "1: extends: "),
    "a name without an end": (f"extends: {'a' * 5000}\n", "1: extends: "),
    "a letter that moves the cursor": (
        GOOD + "b: \x1b[31m\n",
        "6: YAML forbids the character U+001B; remove it",
    ),
    "a key that moves the cursor": (
        GOOD + '"a\\x1b[31mred\\r": 1\n',
        "6: a�[31mred�: this key cannot be printed; rename it",
    ),
    "a number that is none": (
        GOOD + "seed: !!int x\n",
        "6: seed: expected a whole number, got 'x'",
    ),
    "an empty number": (GOOD + "seed: !!float ''\n", "6: seed: expected a number, got ''"),
    "a truth that is none": (
        GOOD + "seed: !!bool x\n",
        "6: seed: expected true or false, got 'x'",
    ),
    "a mapping that is none": (GOOD + "rounds: !!map x\n", "6: rounds: YAML tags such as tag"),
    "5,000 digits": (
        GOOD + f"seed: -{'9' * 5000}\n",
        "6: seed: expected a number of at most 9,223,372,036,854,775,807",
    ),
    "40 digits": (GOOD + f"seed: {'9' * 40}\n", "6: seed: expected a number of at most 9,223,3"),
    "a rate that is none": (
        GOOD + "optimizer: {lr: .nan}\n",
        "6: optimizer.lr: expected a number, got nan",
    ),
    "a rate without end": (
        GOOD + "optimizer: {lr: 1e999}\n",
        "6: optimizer.lr: expected a number, got inf",
    ),
    "an option that is no number": (
        GOOD.replace("clusters: 30", "clusters: .inf"),
        "4: discovery.clusters: expected a number, got inf",
    ),
    "a number that is none, anywhere": (
        GOOD + "optimizer: {options: {betas: [.nan, .9]}}\n",
        "6: optimizer.options.betas[0]: expected a number, got nan",
    ),
    "half a letter": (
        GOOD + 'name: "\\ud800"\n',
        "6: name: '\\ud800' is no Unicode text",
    ),
    "a class of more digits than Python reads": (
        GOOD.replace("split: official", f"train: {{classes: '0-{'1' * 5000}'}}"),
        "1: data.train.classes: expected numbers of at most 18 digits, got '0-111",
    ),
    "a key that is a mapping": (GOOD + "{a: b}: 2\n", "6: a key is text, and no list or mapping"),
    "somebody's home": (
        GOOD.replace("convnet3", "convnet3, weights: ~nouser/x"),
        "2: model.weights: no such file; looked for ~nouser/x",
    ),
    "a weights file of a long name": (
        GOOD.replace("convnet3", f"convnet3, weights: {'w' * 5000}"),
        "2: model.weights: no such file; looked for www",
    ),
    "a ramp's key": (
        GOOD + "weights: {multi_similarity: {end: 1, step: 5}}\n",
        "6: weights.multi_similarity.step: unknown key; did you mean 'steps'?  (known: end, start, "
        "steps, shape)",
    ),
    "a long name": (
        GOOD.replace("digits", "d" * 20_000),
        "1: data.source: no source is called 'ddd",
    ),
    "a long key": (GOOD + f"? {'k' * 20_000}\n: 1\n", "6: kkk"),
    "aliases of a long text": (
        f"x: [&a {'x' * 100_000}" + ", *a" * 3000 + "]\n",
        "1: more than 1,000,000 letters",
    ),
    "a rate beyond float32": (
        GOOD + "optimizer: {lr: 1.0e300}\n",
        "6: optimizer.lr: expected less than or equal to 1000000000000000000000000000000, got 1e+300",
    ),
    "a batch of more images than there are": (
        GOOD.replace("batch: 60", "batch: 9223372036854775800"),
        "3: strategy.batch: expected less than or equal to 10000000",
    ),
    "a command": (
        GOOD + 'imports: ["x; rm -rf ~"]\n',
        "6: imports[0]: expected a module's name, as in my_module, got 'x; rm -rf ~'",
    ),
    "a name that is another folder": (GOOD + "name: ..\n", "6: name: expected letters, digits"),
    "a folder of weights": (
        GOOD.replace("convnet3", "convnet3, weights: ."),
        "2: model.weights: ",
    ),
    "a long list": (
        GOOD.replace("batch: 60", f"batch: [{'1, ' * 5000}]"),
        "3: strategy.batch: expected a whole number, got [1, 1, ",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_what_costs_time_or_memory_or_makes_no_sense_is_one_sentence(case, tmp_path):
    text, sentence = TEXTS[case]
    mistakes = mistakes_of(tmp_path, text)
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"x.yaml:{sentence}")


def test_a_pipe_in_the_place_of_a_recipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    sentence = "pipe.yaml: no regular file, but a pipe or a device; name a file"
    assert mistakes_of(tmp_path, "extends: pipe.yaml\n") == [f"x.yaml:1: extends: {sentence}"]
    with pytest.raises(RecipeError, match=sentence):
        load_recipe(tmp_path / "pipe.yaml")


def test_a_chain_of_many_files_is_not_followed_to_its_end(tmp_path):
    for i in range(60):
        (tmp_path / f"{i}.yaml").write_text(f"extends: {i + 1}.yaml\n")
    assert "more than 32 files extend one another" in mistakes_of(tmp_path, "extends: 0.yaml\n")[0]


def test_500_unknown_components_are_told_without_a_wait(tmp_path):
    losses = ", ".join(["{name: nope}"] * 500)
    text = GOOD.replace("[{name: multi_similarity, beta: 40}]", f"[{losses}]")
    mistakes = mistakes_of(tmp_path, text)
    assert mistakes[0].startswith("x.yaml:5: losses[0].name: no loss is called 'nope' (all: ")
    assert mistakes[50] == "x.yaml: and 450 more mistakes"


MANY = {f"k{i}": "x" for i in range(9_000)}
WHOLE = {"data": {"source": "digits"}, "losses": "multi_similarity"}


@pytest.mark.parametrize(
    "changes",
    [
        {"model": MANY},
        {"weights": MANY},
        {"weights": dict.fromkeys(MANY, 1.0)},
        {"optimizer": {"factors": MANY}},
        MANY,
        {"views": ["flip"] * 4_000},
        {"discovery": ["kmeans"] * 4_000},
        {"losses": [{"name": f"nope{i}"} for i in range(4_000)]},
        {"pretrain": {"name": "rotation", **MANY}},
    ],
)
def test_thousands_of_mistakes_take_no_more_than_two_seconds(changes):
    gc.collect()
    gc.freeze()  # what other tests have left is not to be searched again and again
    begin = time.process_time()
    try:
        with suppress(RecipeError):
            recipe_from({**WHOLE, **changes})
        assert time.process_time() - begin < 2
    finally:
        gc.unfreeze()


def test_a_recipe_that_could_not_be_read_again_with_its_defaults_is_refused():
    where = {f"k{i}": 1 for i in range(9_960)}
    with pytest.raises(RecipeError, match=r"^recipe: more than 10,000 values; a recipe needs"):
        recipe_from({**WHOLE, "data": {"source": "digits", "test": {"where": where}}})
    escaped = {"a": "\x01" * 300_000}
    recipe = recipe_from({**WHOLE, "data": {"source": "digits", "test": {"where": escaped}}})
    with pytest.raises(RecipeError, match=r"recipe: [0-9,]+ bytes with its defaults; at most"):
        recipe.to_yaml()


@pytest.mark.parametrize("data", [5, None, [1]])
def test_what_is_no_mapping_is_a_sentence(data):
    with pytest.raises(RecipeError, match="recipe: expected a mapping of keys, got "):
        recipe_from(data)


OVERRIDES = {
    "data.test.where.<<=3": "data.test.where.<<: merge keys are not read; use extends",
    "extends=x.yaml": "extends: only a file can extend another; write it into a file",
    "views.1.name=flip": "views.1.name: there is no such place",
    "losses.²=1": "losses.²: there is no such place",
    "losses.99999999999999999999=1": "losses.99999999999999999999: there is no such place",
    f"{'a.' * 5000}b=1": "a.a.a.a.",
    f"{'a' * 5000}=1": "aaa",
    "seed=!!int x": "seed: expected a whole number, got 'x'",
    f"seed={'9' * 5000}": "seed: expected a number of at most 9,223,372,036,854,775,807",
    f"x={'[' * 3000}": "x: nested deeper than 32 levels",
    "optimizer.lr=.nan": "optimizer.lr: expected a number, got nan",
    "name=\x1b[31m": "name: expected letters, digits, dots, dashes and underscores, no dot first, at most 100, got '\\x1b",
    "data.0=1": "data.0: unknown key",
    "seed=[1": "seed: not readable as YAML",
}


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda text: ascii(text[:20]))
def test_an_override_that_makes_no_sense_is_one_sentence(override, tmp_path):
    mistakes = mistakes_of(tmp_path, GOOD, override)
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"command line: {OVERRIDES[override]}")


def make_list_in_itself():
    inner = []
    inner.append(inner)
    return inner


def make_growing_list():
    value = [1] * 9
    for _ in range(9):
        value = [value] * 9
    return value


def make_deep_list():
    value = []
    for _ in range(3000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (make_list_in_itself, "nested deeper than 32 levels"),
        (make_deep_list, "nested deeper than 32 levels"),
        (make_growing_list, "more than 10,000 values"),
        (lambda: 10**5000, "seed: expected a number of at most 9,223,372,036,854,775,807"),
        (lambda: float("nan"), "seed: expected a number, got nan"),
        (lambda: {"\x1b": 1}, "this key cannot be printed"),
    ],
)
def test_a_mapping_that_no_recipe_can_hold_is_a_sentence_too(make, sentence):
    data = {"data": {"source": "digits"}, "losses": "multi_similarity", "seed": make()}
    with pytest.raises(RecipeError, match=sentence):
        recipe_from(data)
