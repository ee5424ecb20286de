"""Each mistake that a check looks for is found, and an exemption says why."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.errors import ComponentError, DataError
from fewlabels.registry import REGISTRIES, discovery, find_registry
from fewlabels.testing import KINDS, conformance
from fewlabels.testing.discovery import CHECKS
from fewlabels.testing.subject import Subject


class Nearest:
    """Labels a sample as the nearest labelled one."""

    classes = None

    def __init__(self, *, first: int = 0) -> None:
        self.first = first

    def needs(self):
        return Needs()

    def discover(self, pool, budget, rng):
        return self.answer(pool, budget, rng)

    def answer(self, pool, budget, rng):
        known, free = np.flatnonzero(pool.labels >= 0), np.flatnonzero(pool.labels < 0)
        if not np.isfinite(pool.features).all() or len(known) == 0:
            raise DataError("no labelled sample, or features that are not finite")
        x = pool.features.astype(np.float64)
        near = np.full(len(free), np.inf)
        labels = np.full(len(free), -1)
        for i in known:
            far = np.linalg.norm(x[free] - x[i], axis=1)
            labels = np.where(far < near, pool.labels[i], labels)
            near = np.minimum(far, near)
        best = np.argsort(near, kind="stable")[:budget]
        return Discovered(free[best], labels[best], -near[best])


def drawn(self, pool, budget, rng):
    found = self.answer(pool, budget, rng)
    return Discovered(found.indices, np.random.permutation(found.labels), found.scores)


def in_place(self, pool, budget, rng):
    pool.features[:] -= pool.features.mean(0)
    return self.answer(pool, budget, rng)


def one_more(self, pool, budget, rng):
    return self.answer(pool, budget + 1, rng)


def as_rows(self, pool, budget, rng):
    found = self.answer(pool, budget, rng)
    return Discovered(pool.rows[found.indices], found.labels, found.scores)


def first_ones(self, pool, budget, rng):
    found = self.answer(pool, 10**6, rng)
    order = np.sort(found.indices)[:budget]
    return Discovered(order, np.zeros_like(order), np.zeros(len(order)))


def too_many_classes(self, pool, budget, rng):
    found = self.answer(pool, budget, rng)
    return Discovered(found.indices, found.labels + 1, found.scores)


def remembers(self, pool, budget, rng):
    self.count = getattr(self, "count", 0) + 1
    return self.answer(pool, budget // self.count, rng)


def sees_nan(self, pool, budget, rng):
    clean = np.nan_to_num(pool.features, posinf=0)
    return self.answer(Pool(pool.rows, clean, pool.labels, pool.given), budget, rng)


def in_half(self, pool, budget, rng):
    squares = (pool.features**2).sum(1, keepdims=True)
    clean = np.nan_to_num(squares, posinf=0) if pool.features.dtype == np.float16 else squares
    return self.answer(Pool(pool.rows, clean, pool.labels, pool.given), budget, rng)


def no_check(self, pool, budget, rng):
    known = np.flatnonzero(pool.labels >= 0)[:1]
    if len(known) == 0:
        raise IndexError("no label")
    return self.answer(pool, budget, rng)


def ends_the_run(self, pool, budget, rng):
    if (pool.labels >= 0).all():
        raise DataError("nothing is left to label")
    return self.answer(pool, budget, rng)


def twice(self, pool, budget, rng):
    found = self.answer(pool, budget // 2, rng)
    return Discovered(*(np.repeat(a, 2) for a in (found.indices, found.labels, found.scores)))


def three_arrays(self, pool, budget, rng):
    found = self.answer(pool, budget, rng)
    return found.indices, found.labels, found.scores


def weighs(weight):
    def discover(self, pool, budget, rng):
        found = self.answer(pool, budget, rng)
        return replace(found, weights=np.full(len(found.labels), weight))

    return discover


def raises(self, pool, budget, rng):
    raise RuntimeError("a component is asked for its state before it has found anything")


def starts_warm(self, pool, budget, rng):
    self.last = getattr(self, "last", pool.features.mean())
    return self.answer(pool, int(budget * (self.last == pool.features.mean())), rng)


def state(kept):
    return {"state_dict": kept, "load_state_dict": lambda self, state: None}


@pytest.fixture
def subject(built_in, monkeypatch):
    """Registers a discovery that is right but for some of its attributes."""

    def make(attributes):
        monkeypatch.setattr(discovery, "_registered", {})
        discovery.register("mine")(type("Mine", (Nearest,), {"__doc__": "Mine.", **attributes}))
        return Subject(discovery, "mine")

    return make


@pytest.mark.parametrize("check", CHECKS)
def test_what_is_right_passes(subject, check, monkeypatch):
    made = subject({})
    monkeypatch.setitem(globals(), "Mine", made.component)  # where pickle looks for it
    CHECKS[check](made)


@pytest.mark.parametrize(
    ("attributes", "check", "sentence"),
    [
        (
            {"discover": drawn},
            "the_same_seed_gives_the_same_labels",
            "two runs of one seed differ; draw from rng alone",
        ),
        (
            {"discover": in_place},
            "features_and_labels_are_left_as_they_were",
            "pool.features was changed; work on a copy",
        ),
        (
            {"discover": one_more},
            "no_more_is_labelled_than_the_budget_allows",
            "it labelled 1 samples of a budget of 0",
        ),
        (
            {"discover": as_rows},
            "labels_of_people_are_kept_and_no_sample_is_named_twice",
            "an index is out of range",
        ),
        (
            {"discover": first_ones},
            "the_order_of_the_images_means_nothing",
            "another order of the images gave other labels",
        ),
        (
            {"discover": too_many_classes},
            "every_label_is_a_class_that_exists",
            "a label is 4, of 4 classes",
        ),
        (
            {"discover": remembers},
            "a_stopped_run_goes_on_with_the_same_labels",
            "put all that it keeps into state_dict()",
        ),
        (
            {"discover": sees_nan},
            "features_that_are_not_finite_are_refused_in_words",
            "it found labels from features that are nan",
        ),
        (
            {"discover": in_half},
            "half_precision_features_give_the_same_labels",
            "float16 features got other labels",
        ),
        (
            {"discover": three_arrays},
            "the_same_seed_gives_the_same_labels",
            "it gave tuple, not Discovered",
        ),
        (
            {"discover": no_check},
            "images_without_any_label_are_no_traceback",
            "it failed with IndexError: no label; find nothing, or raise",
        ),
        (
            {"discover": ends_the_run},
            "images_that_all_have_a_label_are_no_traceback",
            "its refusal ends the run: nothing is left to label; find nothing",
        ),
        (
            {"discover": twice},
            "labels_of_people_are_kept_and_no_sample_is_named_twice",
            "an index comes twice",
        ),
        (
            {"discover": weighs(0.5)},
            "labels_weigh_from_0_to_1_where_it_says_that_they_are_weighed",
            "it gave weights; say so by an option or attribute weigh",
        ),
        (
            {"weigh": True},
            "labels_weigh_from_0_to_1_where_it_says_that_they_are_weighed",
            "weigh is true, and it gave no weights",
        ),
        (
            {"discover": weighs(2.0), "weigh": True},
            "labels_of_people_are_kept_and_no_sample_is_named_twice",
            "weights are from 2 to 2, not within 0 and 1",
        ),
        (
            {"needs": lambda self: None},
            "it_says_what_it_looks_at_and_who_numbers_its_labels",
            "needs() gave NoneType, not Needs",
        ),
        (
            {},
            "it_can_be_sent_to_another_process",
            "it cannot be pickled: ",
        ),  # it finds no such class
        (
            {"__doc__": ""},
            "a_recipe_can_set_its_options_and_is_told_of_a_wrong_one",
            "discovery 'mine' has no docstring",
        ),
        (
            {"discover": raises, **state(lambda self: {"last": None})},
            "a_stopped_run_goes_on_with_the_same_labels",
            "state_dict() has NoneType under 'last'; only arrays of numbers can be kept",
        ),
        (
            {"discover": sees_nan},
            "features_that_are_not_finite_are_refused_in_words",
            "is exempted by exempt={...}",
        ),
        (
            {"discover": starts_warm, **state(lambda self: {})},
            "a_stopped_run_goes_on_with_the_same_labels",
            "put all that it keeps into state_dict()",
        ),
        (
            {"classes": 0},
            "it_says_what_it_looks_at_and_who_numbers_its_labels",
            "classes is 0; None: its labels are the pool's classes",
        ),
        (
            {"load_state_dict": remembers},
            "it_has_what_the_program_reads",
            "it has one of state_dict and load_state_dict",
        ),
    ],
)
def test_each_mistake_is_told(subject, attributes, check, sentence):
    with pytest.raises(AssertionError, match=re.escape(sentence)):
        CHECKS[check](subject(attributes))


def test_one_that_comes_after_another_sees_what_that_found(subject):
    def filters(self, pool, budget, rng):
        found = pool.found
        keep = found.scores >= np.median(found.scores)
        return Discovered(
            found.indices[keep], found.labels[keep], found.scores[keep], merge="replace"
        )

    made = subject({"discover": filters})
    with pytest.raises(AttributeError, match="scores"):
        CHECKS["the_same_seed_gives_the_same_labels"](made)
    after = replace(made, after=Subject(discovery, "kmeans", {"clusters": 4}))
    for check in (
        "the_same_seed_gives_the_same_labels",
        "features_and_labels_are_left_as_they_were",
        "labels_of_people_are_kept_and_no_sample_is_named_twice",
        "the_order_of_the_images_means_nothing",
    ):
        CHECKS[check](after)

    def in_place(self, pool, budget, rng):
        pool.found.scores[:] = 0
        return filters(self, pool, budget, rng)

    after = replace(subject({"discover": in_place}), after=after.after)
    with pytest.raises(AssertionError, match="pool.found.scores was changed; work on a copy"):
        CHECKS["features_and_labels_are_left_as_they_were"](after)


@pytest.mark.parametrize(
    ("kind", "given", "sentence"),
    [
        ("loss", {"after": "kmeans"}, "after is for discovery alone"),
        ("discovery", {"inputs": {}}, "inputs is for losses alone"),
    ],
)
def test_what_is_for_another_kind_is_refused(kind, given, sentence):
    with pytest.raises(ComponentError, match=sentence):
        conformance(kind, "mine", **given)


@pytest.mark.parametrize("plural", KINDS)
def test_every_component_of_this_package_has_its_cases(plural):
    """So that a new one cannot be forgotten."""
    tested = {
        node.args[1].value
        for file in Path(__file__).parent.glob("test_built_in_*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "conformance"
        if find_registry(node.args[0].value).plural == plural
    }
    offers = REGISTRIES[plural].list_offers()
    ours = {name for name, by in offers.items() if "fewlabels" in {o.distribution for o in by}}
    assert ours, "metadata lists nothing"
    assert not ours - tested


@pytest.mark.parametrize(
    ("kind", "exempt", "sentence"),
    [
        ("discovery", {"the_same_sed": "why"}, "no check is called 'the_same_sed'"),
        ("discovery", {"the_same_seed_gives_the_same_labels": " "}, "needs its reason"),
        ("discoveri", {}, "no kind of component is called 'discoveri'; did you mean"),
        ("view", {}, "no checks are known for 'view'"),
    ],
)
def test_an_exemption_that_says_nothing_is_refused(kind, exempt, sentence):
    with pytest.raises(ComponentError, match=sentence):
        conformance(kind, "confident", exempt=exempt)
