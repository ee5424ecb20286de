import math

import pytest
import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch.nn.functional import normalize

from fewlabels.components.losses.multi_similarity import MultiSimilarity
from fewlabels.contracts import Memory


def draw(rows=24, size=8, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # Classes have a common part, so that mining keeps some pairs and drops others.
    centres = torch.randn(classes, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    noise = torch.randn(rows, size, generator=generator, dtype=torch.float64)
    return normalize(centres[labels] + 1.2 * noise), labels


def remember(embeddings, labels, writer=None):
    empty = torch.full_like(labels, -1)
    return Memory(embeddings, labels, empty, empty if writer is None else writer)


def by_hand(x, y, others, other_y, is_self, alpha, beta, base, epsilon):
    """The double loop of the paper's authors (Malong), with plain floats."""
    total = 0.0
    for i in range(len(x)):
        pairs = [
            (float(x[i] @ others[j]), bool(y[i] == other_y[j]))
            for j in range(len(others))
            if not is_self(i, j)
        ]
        positives = [s for s, same in pairs if same]
        negatives = [s for s, same in pairs if not same]
        if not positives or not negatives:
            continue
        kept_negatives = [s for s in negatives if s + epsilon > min(positives)]
        kept_positives = [s for s in positives if s - epsilon < max(negatives)]
        if not kept_positives or not kept_negatives:
            continue
        total += math.log(1 + sum(math.exp(-alpha * (s - base)) for s in kept_positives)) / alpha
        total += math.log(1 + sum(math.exp(beta * (s - base)) for s in kept_negatives)) / beta
    return total / len(x)


@pytest.mark.parametrize("epsilon", [0.1, -0.2, None])
def test_batch_term_is_that_of_the_papers_authors(epsilon):
    x, y = draw()
    ours = MultiSimilarity(beta=40.0, epsilon=epsilon)(x, y)
    margin = 100.0 if epsilon is None else epsilon
    expected = by_hand(x, y, x, y, lambda i, j: i == j, 2, 40, 0.5, margin)
    assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_batch_term_is_that_of_pytorch_metric_learning():
    x, y = draw()
    loss, miner = MultiSimilarityLoss(2, 50, 0.5), MultiSimilarityMiner(0.1)
    expected = loss(x, y, miner(x, y))
    torch.testing.assert_close(MultiSimilarity()(x, y), expected)


def test_memory_term_is_that_of_pytorch_metric_learning():
    x, y = draw()
    past, past_y = draw(60, seed=1)
    loss, miner = MultiSimilarityLoss(2, 50, 0.5), MultiSimilarityMiner(0.1)
    expected = loss(x, y, miner(x, y)) + 0.5 * loss(
        x, y, miner(x, y, past, past_y), ref_emb=past, ref_labels=past_y
    )
    ours = MultiSimilarity(memory_weight=0.5)(x, y, remember(past, past_y))
    torch.testing.assert_close(ours, expected)


def test_only_the_entry_that_a_row_has_just_written_counts_as_itself():
    x, y = draw()
    past, past_y = draw(40, seed=1)
    past[7], past_y[7] = x[3], y[3]  # an older, equal embedding of the same image: a true positive
    writer = torch.full((64,), -1)
    writer[40:] = torch.arange(24)
    memory = remember(torch.cat([past, x]), torch.cat([past_y, y]), writer)
    loss = MultiSimilarity(beta=40.0)
    expected = by_hand(
        x, y, memory.embeddings, memory.labels, lambda i, j: j == 40 + i, 2, 40, 0.5, 0.1
    )
    ours = loss(x, y, memory) - loss(x, y)
    assert ours.item() == pytest.approx(expected, rel=1e-10)


def test_an_exact_duplicate_in_a_batch_stays_a_pair():
    x, y = draw(6)
    x, y = torch.cat([x, x]), torch.cat([y, y])
    expected = by_hand(x, y, x, y, lambda i, j: i == j, 2, 50, 0.5, 0.1)
    assert MultiSimilarity()(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_unlabelled_rows_and_entries_change_nothing():
    x, y = draw()
    past, past_y = draw(30, seed=1)
    more, _ = draw(5, seed=2)
    unknown = torch.full((5,), -1)
    expected = MultiSimilarity()(x, y, remember(past, past_y))
    ours = MultiSimilarity()(
        torch.cat([x, more]),
        torch.cat([y, unknown]),
        remember(torch.cat([more, past]), torch.cat([unknown, past_y])),
    )
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("labels", "past"),
    [([0], []), ([0], [1]), ([0, 0, 0], [0]), ([0, 1, 2], []), ([-1, -1], [0, 1]), ([], [0])],
)
@pytest.mark.parametrize("epsilon", [0.1, None])
def test_a_batch_without_pairs_gives_zero_and_no_nan(labels, past, epsilon):
    x = normalize(torch.randn(len(labels), 4)).requires_grad_()
    labels = torch.tensor(labels, dtype=torch.long)
    memory = remember(normalize(torch.randn(len(past), 4)), torch.tensor(past, dtype=torch.long))
    loss = MultiSimilarity(epsilon=epsilon)(x, labels, memory)
    loss.backward()
    assert loss.item() == 0
    assert (x.grad == 0).all()


@pytest.mark.parametrize("epsilon", [0.1, None])
def test_gradient_is_the_derivative(epsilon):
    x, y = draw(10, 4, 3)
    past, past_y = draw(12, 4, 3, seed=1)
    loss = MultiSimilarity(epsilon=epsilon)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, y, remember(past, past_y)), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_lose_nothing_more_inside(dtype):
    x, y = draw()
    x = x.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = MultiSimilarity()(x, y, remember(x.detach().float(), y))
    loss.backward()
    assert loss.dtype == torch.float32
    exact = x.detach().double()
    expected = MultiSimilarity()(exact, y, remember(exact, y))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert x.grad.isfinite().all()


def test_images_that_share_either_of_two_labels_are_positives():
    x, y = draw(12, classes=3)
    second = torch.full_like(y, -1)
    second[:4] = (y[:4] + 1) % 3
    sets = [{int(a), int(b)} - {-1} for a, b in zip(y, second, strict=True)]

    def by_hand(others, other_sets):
        total = 0.0
        for i in range(12):
            values = [
                (float(x[i] @ others[j]), bool(sets[i] & other_sets[j]))
                for j in range(len(others))
                if others is not x or i != j
            ]
            pull = sum(math.exp(-2 * (s - 0.5)) for s, same in values if same)
            push = sum(math.exp(50 * (s - 0.5)) for s, same in values if not same)
            if pull and push:
                total += math.log(1 + pull) / 2 + math.log(1 + push) / 50
        return total / 12

    past, past_y = draw(9, classes=3, seed=1)
    loss = MultiSimilarity(epsilon=None)
    ours = loss(x, y, remember(past, past_y), second)
    expected = by_hand(x, sets) + by_hand(past, [{int(label)} for label in past_y])
    assert ours.item() == pytest.approx(expected, rel=1e-9)
    # The batch is in the memory when losses see it: there, too, both of its labels count.
    both = loss(x, y, remember(x, y, torch.arange(12)), second)
    assert both.item() == pytest.approx(2 * by_hand(x, sets), rel=1e-9)
