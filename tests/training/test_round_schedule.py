import numpy as np
import pytest

from fewlabels.training.round_schedule import RoundSchedule


def test_generations_follow_a_round_on_the_given_labels():
    plan = RoundSchedule(generations=3, rounds=2, first=1, epochs_per_round=4, first_epochs=10)
    assert plan.total == 7
    assert [plan.find_generation(i) for i in range(7)] == [
        (0, -1),
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    assert [plan.begins_with_discovery(i) for i in range(7)] == [False] + [True] * 6
    assert [plan.drops_discovered_labels(i) for i in range(7)] == [
        False,
        False,
        False,
        True,
        False,
        True,
        False,
    ]
    assert [plan.count_epochs(i) for i in range(7)] == [10] + [4] * 6


@pytest.mark.parametrize(
    ("restart", "begins", "stretches"),
    [
        ("never", [], [(0, 34), (10, 34), (14, 34), (18, 34), (22, 34), (26, 34), (30, 34)]),
        ("generation", [3, 5], [(0, 18), (10, 18), (14, 18), (0, 8), (4, 8), (0, 8), (4, 8)]),
        ("round", [1, 2, 3, 4, 5, 6], [(0, 10)] + [(0, 4)] * 6),
    ],
)
def test_weights_begin_again_and_schedules_with_them(restart, begins, stretches):
    plan = RoundSchedule(
        generations=3, rounds=2, first=1, epochs_per_round=4, first_epochs=10, restart=restart
    )
    assert [i for i in range(7) if plan.resets_weights(i)] == begins
    assert [plan.epochs_between_restarts(i) for i in range(7)] == stretches


def test_equal_shares_label_all_in_the_discoveries_of_a_generation():
    plan = RoundSchedule(growth="even", rounds=4)
    labels = np.full(103, -1)
    labels[:3] = 0
    given, sizes = labels >= 0, []
    for _ in range(4):
        sizes.append(int((labels >= 0).sum()))
        labels[sizes[-1] : sizes[-1] + plan.label_budget(labels, given)] = 0
    assert [*sizes, int((labels >= 0).sum())] == [3, 28, 53, 78, 103]
    assert (
        RoundSchedule(growth="even", rounds=5, discover_every=2).label_budget(
            np.array([0, -1, -1, -1]), np.array([True, False, False, False])
        )
        == 1
    )


def test_labels_double_from_250_to_4000():
    plan = RoundSchedule(growth="double")
    labels = np.full(50_000, -1)
    labels[:250] = 0
    given, sizes = labels >= 0, []
    for _ in range(5):
        sizes.append(int((labels >= 0).sum()))
        labels[sizes[-1] : sizes[-1] + plan.label_budget(labels, given)] = 0
    assert sizes == [250, 500, 1000, 2000, 4000]
    labels[:] = 0
    assert plan.label_budget(labels, given) == 0


def test_every_generation_begins_with_a_discovery():
    plan = RoundSchedule(generations=2, rounds=3, first=1, discover_every=2)
    assert [plan.begins_with_discovery(i) for i in range(plan.total)] == [
        False, True, False, True, True, False, True,
    ]  # fmt: skip
    assert all(
        plan.begins_with_discovery(i) for i in range(plan.total) if plan.drops_discovered_labels(i)
    )


def test_where_nobody_has_labelled_anything_all_may_be_labelled():
    assert RoundSchedule(growth="double").label_budget(np.full(9, -1), np.zeros(9, bool)) == 9
