import math

import pytest
import torch

from fewlabels.components.losses.feature_similarity import FeatureSimilarity


def test_it_is_the_mean_distance():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 3, generator=rng), torch.randn(5, 3, generator=rng)
    expected = sum(math.dist(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)) / 5
    assert FeatureSimilarity()(x, y).item() == pytest.approx(expected, rel=1e-6)


def test_equal_embeddings_have_no_nan():
    x = torch.randn(4, 3, requires_grad=True)
    loss = FeatureSimilarity()(x, x.detach().clone())
    loss.backward()
    assert loss.item() == 0
    assert (x.grad == 0).all()
