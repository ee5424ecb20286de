"""Each mistake that a check looks for is found, and an exemption says why."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.errors import ComponentError, DataError
from fewlabels.registry import REGISTRIES, discovery
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


def twice(self, pool, budget, rng):
    found = self.answer(pool, budget // 2, rng)
    return Discovered(*(np.repeat(a, 2) for a in (found.indices, found.labels, found.scores)))


@pytest.fixture
def subject(monkeypatch):
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
    ("attributes", "check"),
    [
        ({"discover": drawn}, "the_same_seed_gives_the_same_labels"),
        ({"discover": in_place}, "features_and_labels_are_left_as_they_were"),
        ({"discover": one_more}, "no_more_is_labelled_than_the_budget_allows"),
        ({"discover": as_rows}, "labels_of_people_are_kept_and_no_sample_is_named_twice"),
        ({"discover": first_ones}, "the_order_of_the_images_means_nothing"),
        ({"discover": too_many_classes}, "every_label_is_a_class_that_exists"),
        ({"discover": remembers}, "a_stopped_run_goes_on_with_the_same_labels"),
        ({"discover": sees_nan}, "features_that_are_not_finite_are_refused_in_words"),
        ({"discover": in_half}, "half_precision_features_give_the_same_labels"),
        ({"discover": no_check}, "images_without_any_label_are_no_traceback"),
        ({"discover": twice}, "labels_of_people_are_kept_and_no_sample_is_named_twice"),
        ({"needs": lambda self: None}, "it_says_what_it_looks_at_and_who_numbers_its_labels"),
        ({}, "it_can_be_sent_to_another_process"),  # pickle finds no such class
        ({"__doc__": ""}, "a_recipe_can_set_its_options_and_is_told_of_a_wrong_one"),
    ],
)
def test_each_mistake_is_found(subject, attributes, check):
    with pytest.raises((AssertionError, IndexError, pickle.PicklingError)):
        CHECKS[check](subject(attributes))


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


def test_nothing_that_comes_with_the_package_is_left_untested():
    tests = "".join(
        path.read_text("utf-8") for path in Path(__file__).parent.glob("test_built_in*")
    )
    for plural in KINDS:
        registry = REGISTRIES[plural]
        for name in registry.names():
            if registry.offers()[name][0].distribution == "fewlabels":
                assert f'conformance("{registry.kind}", "{name}"' in " ".join(
                    tests.split()
                ).replace("( ", "("), name
