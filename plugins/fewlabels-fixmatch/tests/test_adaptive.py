"""The adaptive threshold: each of its equations by plain arithmetic on three images."""

import math

import numpy as np
import pytest
import torch
from fewlabels_fixmatch.adaptive import AdaptiveThreshold

WEAK = [[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.3, 0.6]]
STRONG = [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.2, 0.2, 0.6]]


def averages_after(*steps):
    threshold = AdaptiveThreshold(3)
    for step in steps:
        threshold.update(torch.tensor(WEAK), step)
    return threshold


def test_the_averages_move_from_one_by_classes_by_the_decay_of_the_step():
    before, after = AdaptiveThreshold(3), averages_after(30)
    assert before.by_class().tolist() == pytest.approx([1 / 3] * 3)
    decay = 30 / 40  # a tenth of the steps so far
    assert after.confidence.item() == pytest.approx(decay / 3 + (1 - decay) * (0.7 + 0.5 + 0.6) / 3)
    mean = [1.3 / 3, 0.9 / 3, 0.8 / 3]
    expected = [decay / 3 + (1 - decay) * m for m in mean]
    assert after.probability.tolist() == pytest.approx(expected)
    shares = [decay / 3 + (1 - decay) * s for s in (2 / 3, 0, 1 / 3)]
    assert after.share.tolist() == pytest.approx(shares)


def test_in_a_long_run_the_decay_is_that_of_the_paper():
    mean = 0.6
    assert averages_after(50_000).confidence.item() == pytest.approx(0.999 / 3 + 0.001 * mean)


def test_the_likeliest_class_has_the_global_threshold_and_others_their_part_of_it():
    after = averages_after(0)  # the averages are those of the batch
    largest, p = 0.6, [1.3 / 3, 0.9 / 3, 0.8 / 3]
    assert after.by_class().tolist() == pytest.approx([c / p[0] * largest for c in p])


@pytest.mark.parametrize("sure", [[True, True, True], [True, False, True], [False, True, False]])
def test_fairness_is_the_negative_cross_entropy_of_the_normalised_means(sure):
    step = 30
    after = averages_after(step)
    p, h = after.probability.numpy(), after.share.numpy()
    strong = np.array(STRONG)[sure]
    own = np.bincount(strong.argmax(1), minlength=3) / len(strong)
    a = (p / h) / (p / h).sum()
    b = np.divide(strong.mean(0), own, out=np.zeros(3), where=own > 0)
    b /= b.sum()
    expected = sum(a[c] * math.log(b[c]) for c in range(3) if b[c] > 0)
    given = torch.tensor(STRONG)
    assert after.fairness(given, torch.tensor(sure)).item() == pytest.approx(expected, rel=1e-5)


def test_fairness_moves_the_images_that_are_sure_alone_and_is_finite_without_any():
    after = averages_after(0)  # no image is of class 1, so p / h has a quotient by 0
    strong = torch.tensor(STRONG, requires_grad=True)
    after.fairness(strong, torch.tensor([True, False, True])).backward()
    assert strong.grad.isfinite().all()
    assert (strong.grad.abs().sum(1) > 0).tolist() == [True, False, True]
    nothing = after.fairness(strong, torch.zeros(3, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0
