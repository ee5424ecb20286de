"""CBML against the plain loop of its paper's authors, in a batch and against a memory."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from fewlabels.components.losses.cbml import CBML
from fewlabels.contracts import Memory


def draw(rows=20, size=8, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    noise = torch.randn(rows, size, generator=generator, dtype=torch.float64)
    return normalize(centres[labels] + 1.2 * noise), labels


def by_hand(x, y, others, other_y, skip, form="log", a_n=1.0, b_n=0.01, variance=95.0, mix=0.1):
    """Anchors one by one with plain floats; ``skip`` says which entry is the anchor itself."""
    shrink, total = {"log": math.log, "sqrt": math.sqrt}[form], 0.0
    for i in range(len(x)):
        cosines = [float(x[i] @ other) for other in others]
        positives = [s for j, s in enumerate(cosines) if other_y[j] == y[i] and not skip(i, j)]
        negatives = [s for j, s in enumerate(cosines) if other_y[j] != y[i]]
        if not positives or not negatives:
            continue
        pulled = [s for s in positives if s - 0.1 < max(negatives)]
        pushed = [s for s in negatives if s + 0.1 > min(positives)]
        if not pulled or not pushed:
            continue
        middle = (1 - mix) * sum(cosines) / len(cosines)
        middle += mix * (min(positives) + max(negatives)) / 2
        total += shrink(1 + sum(math.exp((0.5 - s) / 0.5) for s in pulled))
        total += shrink(1 + sum(math.exp((s - a_n) / b_n) for s in pushed))
        total += variance * sum((s - middle) ** 2 for s in negatives) / len(negatives)
    return total / len(x)


def test_three_samples_by_arithmetic():
    """Cosines .6 (a positive), .8 and .0; every number below is worked out from the equation."""
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, -0.6]], dtype=torch.float64)
    loss = CBML(negative_centre=0.5, negative_width=0.5, variance_weight=1.0)
    first = math.log(1 + math.exp(-0.2)) + math.log(1 + math.exp(0.6))
    first += (0.8 - (0.9 * 0.8 + 0.1 * 0.7)) ** 2  # the mean of 1, .6 and .8 is .8
    # The second's hardest negative, .0, is .6 below its positive: mining leaves it out.
    # The third has no positive.
    assert loss(x, torch.tensor([0, 0, 1])).item() == pytest.approx(first / 3, rel=1e-12)


@pytest.mark.parametrize("form", ["log", "sqrt"])
@pytest.mark.parametrize("sharp", [(1.0, 0.01), (0.5, 0.1)])
def test_in_a_batch_it_is_the_authors_loop(form, sharp):
    x, y = draw()
    loss = CBML(form=form, negative_centre=sharp[0], negative_width=sharp[1])
    expected = by_hand(x, y, x, y, lambda i, j: i == j, form, *sharp)
    assert loss(x, y).item() == pytest.approx(expected, rel=1e-10)
    assert expected > 1


def test_against_a_memory_the_batch_meets_the_memory_alone():
    x, y = draw()
    past, past_y = draw(50, seed=1)
    entries = torch.cat([x[:5], past, past])
    labels = torch.cat([y[:5], past_y, torch.full((50,), -1)])  # the last are empty
    writer = torch.full((105,), -1)
    writer[:5] = torch.arange(5)
    memory = Memory(entries, labels, torch.zeros(105, dtype=torch.long), writer)
    expected = by_hand(x, y, entries[:55], labels[:55], lambda i, j: i == j and j < 5)
    assert CBML(use_memory=True)(x, y, memory).item() == pytest.approx(expected, rel=1e-10)
    assert CBML()(x, y, memory).item() == pytest.approx(CBML()(x, y).item())


def test_the_variance_pulls_negatives_together_and_its_gradient_is_right():
    x, y = draw(8, 4, 2)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda e: CBML(negative_width=0.2)(normalize(e), y), x)
    loose, (grad,) = CBML()(x, y), torch.autograd.grad(CBML()(x, y), x)
    assert CBML()(normalize(x - 0.01 * grad), y) < loose
