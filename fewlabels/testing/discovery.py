"""Checks of discoveries; they need only numpy."""

from __future__ import annotations

import copy
import io
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from fewlabels.contracts import Discovered, Needs, Pool, check_discovered, weighs_found
from fewlabels.errors import FewLabelsError
from fewlabels.testing.answers import check_same, list_weights, map_labels
from fewlabels.testing.pools import BUDGET, arrays_of, ask_discovery, make_pool, reorder_pool
from fewlabels.testing.subject import Checks, Subject

CHECKS = Checks()


@CHECKS.add
def it_says_what_it_looks_at_and_who_numbers_its_labels(subject: Subject) -> None:
    """The loop computes what ``needs()`` asks for; ``classes`` is None or a number of labels."""
    component = subject.make_component()
    needs = component.needs()
    assert isinstance(needs, Needs), f"needs() gave {type(needs).__name__}, not Needs"
    count = getattr(component, "classes", "nothing")
    assert count is None or (type(count) is int and count > 0), (
        f"classes is {count!r}; None: its labels are the pool's classes, a number: they are its own"
    )


@CHECKS.add
def the_same_seed_gives_the_same_labels(subject: Subject) -> None:
    """All that is drawn comes from ``rng``: numpy's global seed differs between the two runs."""
    answers = []
    for global_seed in (1, 2):
        with _global_seed(global_seed):
            answers.append(ask_discovery(subject.make_component(), make_pool(subject)))
    check_same(answers[0], answers[1], "two runs of one seed differ; draw from rng alone")


@CHECKS.add
def features_and_labels_are_left_as_they_were(subject: Subject) -> None:
    """The pool's arrays belong to the loop, and to the discovery that comes next."""
    pool = make_pool(subject)
    before = copy.deepcopy(arrays_of(pool))
    ask_discovery(subject.make_component(), pool)
    for (name, now), (_, then) in zip(arrays_of(pool), before, strict=True):
        np.testing.assert_array_equal(now, then, f"pool.{name} was changed; work on a copy")


@CHECKS.add
def labels_of_people_are_kept_and_no_sample_is_named_twice(subject: Subject) -> None:
    """Indices are of unlabelled samples, unique and in range."""
    _check_valid(subject, make_pool(subject))


@CHECKS.add
def no_more_is_labelled_than_the_budget_allows(subject: Subject) -> None:
    """At most ``budget``: none, one, and more than there are samples."""
    for budget in (0, 1, 10**6):
        _check_valid(subject, make_pool(subject), budget)


@CHECKS.add
def every_label_is_a_class_that_exists(subject: Subject) -> None:
    """A label beyond the classes would end the training of a classifier."""
    for missing in (0, 2):  # nobody has labelled a sample of this class
        pool = make_pool(subject)
        kept = pool.labels != missing
        pool = replace(pool, labels=np.where(kept, pool.labels, -1), given=pool.given & kept)
        _check_valid(subject, pool)


@CHECKS.add
def labels_weigh_from_0_to_1_where_it_says_that_they_are_weighed(subject: Subject) -> None:
    """A true ``weigh`` and weights go together: what it says decides which recipes are refused."""
    component = subject.make_component()
    says, found = weighs_found(component), ask_discovery(component, make_pool(subject))
    assert not says or found.weights is not None, "weigh is true, and it gave no weights"
    assert says or found.weights is None, "it gave weights; say so by an option or attribute weigh"


@CHECKS.add
def the_order_of_the_images_means_nothing(subject: Subject) -> None:
    """The same images in another order get the same labels, from the same state."""
    import pytest

    pool = make_pool(subject)
    start = subject.make_component()
    ask_discovery(start, pool)
    first, other = (_ask_copy(subject, start, pool, seed) for seed in (0, 1))
    if map_labels(pool, first) != map_labels(pool, other):
        pytest.skip("it draws by chance, so its answer may depend on the order")
    order = np.random.default_rng(5).permutation(len(pool.rows))
    turned = reorder_pool(pool, order)
    second = _ask_copy(subject, start, turned)
    said = "another order of the images gave other labels"
    assert map_labels(pool, first) == map_labels(turned, second), said
    for of in (lambda found: found.scores, list_weights):
        one, two = (
            dict(zip(p.rows[f.indices], of(f), strict=True))
            for p, f in ((pool, first), (turned, second))
        )
        for row, value in one.items():
            np.testing.assert_allclose(two[row], value, rtol=1e-3, atol=1e-5, err_msg=said)


@CHECKS.add
def equal_images_are_as_sure_in_any_order(subject: Subject) -> None:
    """Where samples are equal either may be taken, with the same scores."""
    import pytest

    pool = make_pool(subject, ties=True)
    start = subject.make_component()
    ask_discovery(start, pool)
    first, other = (_ask_copy(subject, start, pool, seed) for seed in (0, 1))
    if not np.allclose(np.sort(first.scores), np.sort(other.scores), rtol=1e-3, atol=1e-5):
        pytest.skip("it draws by chance, so its answer may depend on the order")
    turned = reorder_pool(pool, np.random.default_rng(5).permutation(len(pool.rows)))
    second = _ask_copy(subject, start, turned)
    scores, expected = np.sort(second.scores), np.sort(first.scores)
    said = "another order of equal images gave other scores"
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5, err_msg=said)


@CHECKS.add
def a_single_class_is_no_traceback(subject: Subject) -> None:
    """Labels, or a refusal in words."""
    _valid_or_refused(subject, make_pool(subject, classes=1))


@CHECKS.add
def a_single_image_is_no_traceback(subject: Subject) -> None:
    """One without a label, or with one, so that nothing is left to find."""
    for given in (0, 1):
        _valid_or_refused(subject, make_pool(subject, count=1, classes=1, given=given))


@CHECKS.add
def images_that_all_have_a_label_are_no_traceback(subject: Subject) -> None:
    """The round after the last sample was labelled: finds nothing; an error would end the run."""
    _valid_or_refused(subject, make_pool(subject, given=60), late=True)


@CHECKS.add
def images_without_any_label_are_no_traceback(subject: Subject) -> None:
    """The recipe of a person who forgot ``data.labels``."""
    _valid_or_refused(subject, make_pool(subject, given=0))


@CHECKS.add
def equal_features_are_no_traceback(subject: Subject) -> None:
    """A network that has collapsed, to a constant or to zero."""
    for value in (1.0, 0.0):
        pool = make_pool(subject)
        history = tuple(np.full_like(past, value) for past in pool.history)
        pool = replace(pool, features=np.full_like(pool.features, value), history=history)
        _valid_or_refused(subject, pool)


@CHECKS.add
def features_that_are_not_finite_are_refused_in_words(subject: Subject) -> None:
    """A diverged network must not label; the refusal is a FewLabelsError, as DataError."""
    for value in (np.nan, np.inf):
        for row in (0, -1):  # of a sample with a label, where any has one, and of one without
            pool = make_pool(subject)
            for name, array in arrays_of(pool):
                if name in ("features", "probabilities", "history"):
                    array[row, 0] = value
            try:
                ask_discovery(subject.make_component(), pool)
            except FewLabelsError:
                continue
            raise AssertionError(
                f"it found labels from features that are {value}; raise "
                "fewlabels.errors.DataError with a sentence; a discovery that looks at no features "
                "is exempted by exempt={...}"
            )


@CHECKS.add
def half_precision_features_give_the_same_labels(subject: Subject) -> None:
    """Squares of float16 overflow: compute in float32."""
    whole = make_pool(subject)
    half = (100 * whole.features).astype(np.float16)
    past = tuple((100 * features).astype(np.float16) for features in whole.history)
    single = tuple(features.astype(np.float32) for features in past)
    first = ask_discovery(subject.make_component(), replace(whole, features=half, history=past))
    broken = check_discovered(first, whole, BUDGET, subject.make_component().classes)
    assert not broken, f"of float16 features: {broken}"
    second = ask_discovery(
        subject.make_component(), replace(whole, features=half.astype(np.float32), history=single)
    )
    said = "float16 features got other labels than the same numbers as float32"
    assert map_labels(whole, first) == map_labels(whole, second), said


@CHECKS.add
def it_can_be_sent_to_another_process(subject: Subject) -> None:
    """It can be pickled, and gives the same labels afterwards."""
    component = subject.make_component()
    try:
        again = pickle.loads(pickle.dumps(component))
    except Exception as error:
        raise AssertionError(f"it cannot be pickled: {error}") from error
    pool = make_pool(subject)
    check_same(
        ask_discovery(component, pool),
        ask_discovery(again, pool),
        "a pickled copy gives other labels",
    )


@CHECKS.add
def a_stopped_run_goes_on_with_the_same_labels(subject: Subject) -> None:
    """What a discovery keeps between rounds is in ``state_dict()``, as arrays, and comes back."""
    component = subject.make_component()
    for begun in (False, True):  # a run can be stopped before the first discovery too
        if begun:
            ask_discovery(component, make_pool(subject))
        again, same = _copy_with_state(subject, component), copy.deepcopy(component)
        pool = make_pool(subject, seed=1)
        found, expected = (ask_discovery(each, pool, seed=1) for each in (same, again))
        said = "after a stop it gives other labels; put all that it keeps into state_dict()"
        check_same(found, expected, said)


@CHECKS.add
def ten_thousand_images_take_less_than_five_seconds(subject: Subject) -> None:
    """Of 64 features each, in ten classes with ten labels each."""
    pool = make_pool(subject, count=10_000, classes=10, width=64, given=10)
    component = subject.make_component()
    begin = time.process_time()
    ask_discovery(component, pool, budget=1000)
    seconds = time.process_time() - begin
    assert seconds < 5, f"it took {seconds:.1f} s of the processor"


def _check_valid(subject: Subject, pool: Pool, budget: int = BUDGET) -> None:
    component = subject.make_component()
    found = ask_discovery(component, pool, budget)
    broken = check_discovered(found, pool, budget, component.classes)
    assert not broken, broken


def _valid_or_refused(subject: Subject, pool: Pool, late: bool = False) -> None:
    try:
        _check_valid(subject, pool)
    except FewLabelsError as error:
        if late and subject.make_component().classes is None:  # others label all images anew
            raise AssertionError(f"its refusal ends the run: {error}; find nothing") from error
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(
            f"it failed with {type(error).__name__}: {error}; find nothing, or raise "
            "fewlabels.errors.DataError with a sentence"
        ) from error


def _ask_copy(subject: Subject, component: Any, pool: Pool, seed: int = 0) -> Discovered:
    """Run discovery on a copy of a component with its state; the component is not changed."""
    return ask_discovery(_copy_with_state(subject, component), pool, seed=seed)


def _copy_with_state(subject: Subject, component: Any) -> Any:
    """A new component with the state of another, saved to an .npz file and loaded again."""
    fresh = subject.make_component()
    if hasattr(component, "state_dict"):
        given = component.state_dict()
        state: dict[str, Any] = {name: np.asarray(value) for name, value in given.items()}
        for name, value in state.items():
            assert not value.dtype.hasobject, (
                f"state_dict() has {type(given[name]).__name__} under {name!r}; only arrays of "
                "numbers can be kept"
            )
        file = io.BytesIO()
        np.savez(file, **state)
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            if arrays.files:  # as the loop does, which gives nothing back where nothing was kept
                fresh.load_state_dict({name: arrays[name] for name in arrays.files})
    return fresh


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
