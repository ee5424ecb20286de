"""Weights of discovered labels: from a discovery to the batches, in checkpoints and the ledger."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from run_folders import (
    forget_end,
    load_newest_modules,
    newest_checkpoint,
    read_rows,
    remove_checkpoints_after,
)

import fewlabels
from fewlabels import registry
from fewlabels.components.discovery.confident import Confident
from fewlabels.contracts import Discovered, LabelState, Needs, Phase, Pool, Stream, check_discovered
from fewlabels.data.pixels import Pixels
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.errors import ComponentError
from fewlabels.recipe.recipe import recipe_from
from fewlabels.training.batches import Batches
from fewlabels.training.round_schedule import RoundSchedule
from fewlabels.training.run_folder import RunFolder
from fewlabels.training.state import State

RECIPE = {
    "name": "run",
    "data": {"source": "digits", "split": "official", "labels": 20},
    "model": {"backbone": "convnet3", "image_size": 16, "backbone_options": {"width": 0.25}},
    "strategy": {"name": "lmcs", "labelled": 10, "batch": 10},
    "discovery": {"name": "confident", "by": "student", "weigh": True},
    "optimizer": {"name": "adam", "lr": 2e-3},
    "rounds": {"rounds": 3, "discover_every": 1, "steps_per_epoch": 2},
    "evaluation": {"before": False, "every": 0},
    "train": {"checkpoint_every": 1, "keep_checkpoints": 99, "log_every": 1},
}


def train(out, *overrides):
    return fewlabels.train(RECIPE, overrides, out=out).folder


def same(one, two):
    one, two = load_newest_modules(one), load_newest_modules(two)
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of LMCS, whose student has the labels of one discovery ago."""
    return train(tmp_path_factory.mktemp("whole"))


def read_arrays(folder):
    with np.load(newest_checkpoint(folder) / "arrays.npz") as arrays:
        return dict(arrays)


def read_ledger(folder):
    files = sorted(RunFolder(folder).ledger.glob("*.parquet"))
    return [pq.read_table(file).to_pydict() for file in files]


@pytest.mark.parametrize(
    "step", [9, 15]
)  # in a phase with labels of one discovery ago, and in a composition
def test_a_stopped_run_goes_on_bit_for_bit(whole, tmp_path, step):
    stopped = tmp_path / "run"
    shutil.copytree(whole, stopped)
    remove_checkpoints_after(stopped, step)
    forget_end(stopped)
    assert int(newest_checkpoint(stopped).name[5:]) == step
    again = fewlabels.train(resume=stopped).folder
    assert same(whole, again)
    assert read_ledger(whole) == read_ledger(again)
    one, two = read_arrays(whole), read_arrays(again)
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_the_checkpoint_holds_what_the_ledger_says_and_1_for_given_labels(whole):
    arrays, tables = read_arrays(whole), read_ledger(whole)
    assert len(tables) == 3
    for name, labels, table in [
        ("weights", "labels", tables[-1]),
        ("previous_weights", "earlier", tables[-2]),
    ]:
        assert arrays[name].dtype == np.float32
        newest = np.sort(np.array(table["weight"], np.float32))
        assert np.isin(newest, arrays[name]).all()
        assert 0 <= newest.min() < newest.max() < 1
        assert (arrays[name] == 1).sum() == 20 + (arrays[labels] < 0).sum()
    assert arrays["weights"].shape == arrays["labels"].shape


def test_weights_change_the_training_but_not_that_of_an_oracle(whole, tmp_path):
    plain = train(tmp_path / "plain", "discovery.0.weigh=false")
    assert not same(whole, plain)
    assert set(read_ledger(plain)[0]["weight"]) == {1.0}
    assert "weights" not in read_arrays(plain)
    short = ["rounds.oracle=true", "rounds.rounds=1", "strategy={name: supervised, labelled: 10}"]
    oracle, weighed = (
        train(tmp_path / f"oracle-{weigh}", *short, f"discovery.0.weigh={weigh}")
        for weigh in ("false", "true")
    )
    assert same(oracle, weighed)
    assert "weights" not in read_arrays(weighed)
    assert max(read_ledger(weighed)[0]["weight"]) < 1


def test_the_given_labels_alone_have_no_weights_and_a_new_generation_begins_so():
    labels, weights = np.array([0, 1, -1]), np.array([1, 0.5, 1], np.float32)
    given = np.array([True, False, False])
    state = State.of_given(np.array([0, -1, -1]))
    assert state.label_state.weights is state.label_state.previous_weights is None
    state.label_state = LabelState(labels, labels, given, None, None, False, weights, weights)
    state.drop_discovered_labels()
    assert state.label_state.weights is state.label_state.previous_weights is None
    assert state.labels.tolist() == [0, -1, -1]


def test_a_checkpoint_keeps_weights_and_one_from_before_them_has_none():
    labels, weights = np.array([0, 1, -1]), np.array([1, 0.5, 1], np.float32)
    given = np.array([True, False, False])
    state = State(LabelState(labels, labels, given, None, None, False, weights, None))
    arrays, values = state.save()
    other = State.of_given(np.array([0, -1, -1]))
    other.load(arrays, values)
    assert np.array_equal(other.label_state.weights, weights)
    assert other.label_state.previous_weights is None
    other.load({name: arrays[name] for name in ("labels", "earlier")}, values)
    assert other.label_state.weights is None


def draw_parts(found, **streams):
    """The parts of two batches."""
    pixels = Pixels([None] * 6, np.arange(6), lambda image: torch.zeros(3, 4, 4, dtype=torch.uint8))
    views = (Pipeline([], 4),)
    made = {name: Stream(of, 2, views, lag=lag) for name, (of, lag) in streams.items()}
    source = Batches(Accelerator(cpu=True), pixels, RoundSchedule(channels_last=False), 0)
    phase = Phase("train", (), made, steps=6)
    return [batch for _, batch in source(phase, found, lambda *of: 0, 0, 0)]


def test_a_weight_goes_with_its_image_and_where_each_is_1_there_is_none():
    labels, given = np.array([0, 1, 0, 1, -1, -1]), np.arange(6) < 2
    before = np.array([0, 1, 0, -1, -1, -1])
    weights = np.array([1, 1, 0.5, 0.25, 1, 1], np.float32)
    earlier = np.array([1, 1, 0.125, 1, 1, 1], np.float32)
    found = LabelState(labels, before, given, None, None, False, weights, earlier)
    batches = draw_parts(
        found,
        now=("labelled", 0),
        late=("labelled", 1),
        rest=("unlabelled", 0),
        all=("all", 0),
    )
    seen = {"now": set(), "late": set()}
    for batch in batches:
        assert batch["rest"].weights is batch["all"].weights is None
        for name, kept in (("now", weights), ("late", earlier)):
            part, own = batch[name], kept[batch[name].indices]
            seen[name].add(part.weights is None)
            if part.weights is None:
                assert (own == 1).all()
            else:
                assert part.weights.dtype == torch.float32
                assert part.weights.tolist() == own.tolist()
                assert (own < 1).any()
    assert seen == {"now": {True, False}, "late": {True, False}}
    plain = draw_parts(found._replace(weights=None), now=("labelled", 0))
    assert {batch["now"].weights for batch in plain} == {None}


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (None, ""),
        (np.array([0.0, 1.0], np.float32), ""),
        (np.array([0.5, np.nan]), "a weight is not finite"),
        (np.array([0.5, -0.1]), "weights are from -0.1 to 0.5, not within 0 and 1"),
        (np.array([0.5]), "there are 1 weights of 2 labels"),
        (np.array([1, 1]), "weights are no array of floating-point numbers of one axis"),
        ([0.5, 0.5], "weights are no array of floating-point numbers of one axis"),
    ],
)
def test_weights_are_checked(weights, says):
    known = np.array([0, 1, -1, -1])
    pool = Pool(np.arange(4), np.zeros((4, 2), np.float32), known, known >= 0, classes=2)
    found = Discovered(np.array([2, 3]), np.array([0, 1]), np.ones(2), weights=weights)
    assert check_discovered(found, pool, 2, None) == says


class Light:
    """Labels two samples with the weights that it is given, and does not say that it weighs."""

    classes = None

    def __init__(self, *, weight: float = 0.5) -> None:
        self.weight = weight

    def needs(self):
        return Needs("student")

    def discover(self, pool, budget, rng):
        free = np.flatnonzero(pool.labels < 0)[:2]
        weights = np.full(2, self.weight, np.float32)
        return Discovered(free, free % 3, np.ones(2, np.float32), weights=weights)


class Weighing(Light):
    """The same, and says so."""

    weigh = True


@pytest.mark.parametrize(
    ("component", "weight", "sentence"),
    [
        (Light, 0.5, "it gave weights and does not say so; give it an option weigh"),
        (Weighing, 1.5, "weights are from 1.5 to 1.5, not within 0 and 1"),
    ],
)
def test_a_discovery_that_breaks_its_word_on_weights_is_named(
    tmp_path, monkeypatch, component, weight, sentence
):
    monkeypatch.setitem(registry.discovery._registered, "light", {__name__: component})
    changes = {"discovery": {"name": "light", "weight": weight}, "strategy": "supervised"}
    with pytest.raises(ComponentError, match=f"discovery 'light' broke its contract: {sentence}"):
        fewlabels.train({**RECIPE, **changes}, out=tmp_path)


def test_what_replaces_labels_replaces_their_weights(tmp_path, monkeypatch):
    class Second(Confident):
        """Labels anew what it finds, as 1."""

        def discover(self, pool, budget, rng):
            free = np.flatnonzero(~pool.given)[:3]
            return Discovered(free, free % 3, np.ones(3, np.float32), merge="replace")

    monkeypatch.setitem(registry.discovery._registered, "second", {__name__: Second})
    both = [{**RECIPE["discovery"]}, {"name": "second", "by": "student"}]
    folder = fewlabels.train(
        {**RECIPE, "discovery": both, "strategy": "supervised"},
        ["rounds.rounds=1"],
        out=tmp_path,
    ).folder
    arrays = read_arrays(folder)
    assert (arrays["labels"] >= 0).sum() == 23
    assert "weights" not in arrays


@pytest.mark.slow
def test_two_processes_weigh_as_one(in_one_and_two_processes):
    changes = {"name": "recipe", "strategy": {"name": "supervised", "labelled": 10}}
    recipe = recipe_from({**RECIPE, **changes}, ["model.freeze_batchnorm=statistics"])
    one, two = in_one_and_two_processes(recipe)
    losses = [[row["loss"] for row in read_rows(folder, "train")] for folder in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert len(losses[0]) == 8
    assert max(read_ledger(two)[0]["weight"]) < 1
