import math

import pytest
import torch

from fewlabels.components.losses.contrastive_clustering import ContrastiveClustering
from fewlabels.errors import FewLabelsError

ANY = torch.zeros(1, dtype=torch.int64)  # labels, which the printed form does not read
PRINTED = ContrastiveClustering(centre="nearest")


def ratio(row, centres, own):
    """d+/d- of one embedding, ``own`` its cluster, or None where d+ is to the nearest centre."""
    distances = [math.dist(row, centre) for centre in centres]
    near = min(distances) if own is None else distances[own]
    distances.remove(near)
    return near / min(distances)


@pytest.mark.parametrize("centre", ["nearest", "own"])
def test_value_is_equation_4_3_by_hand(centre):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    centres = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    own = labels.tolist() if centre == "own" else [None] * 7
    expected = [ratio(row, centres.tolist(), of) for row, of in zip(x.tolist(), own, strict=True)]
    loss = ContrastiveClustering(centre=centre)(x, centres, labels)
    assert loss.item() == pytest.approx(sum(expected) / 7, rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: ContrastiveClustering(centre=centre)(x, centres, labels), (x.requires_grad_(),)
    )


def test_all_embeddings_on_one_centre_cost_nothing_as_printed_and_much_by_their_own():
    centres = torch.eye(4)
    collapsed, labels = centres[:1].repeat(4, 1), torch.arange(4)
    assert PRINTED(collapsed, centres, labels) == 0
    assert ContrastiveClustering()(collapsed, centres, labels) > 1


def test_embeddings_learn_and_centres_do_not():
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    centres = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    PRINTED(x, centres, ANY).backward()
    assert centres.grad is None


@pytest.mark.parametrize("centres", [[[1.0, 0], [0, 1]], [[1.0, 0], [1, 0], [0, 1]]])
def test_an_embedding_on_a_centre_has_no_nan(centres):
    x = torch.tensor([[1.0, 0], [0.6, 0.8]], requires_grad=True)
    loss = PRINTED(x, torch.tensor(centres), ANY)
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()
    assert (x.grad[0] == 0).all()


def test_small_distances_survive_many_centres():
    # More than 25 rows take cdist through a matrix product, which rounds 1e-4 away.
    centres = torch.nn.functional.normalize(torch.randn(100, 64))
    step = torch.zeros(40, 64)
    step[:, 0] = 1e-4
    x = centres[:40] + step
    exact = torch.cdist(x.double(), centres.double()).sort(1).values
    loss = PRINTED(x, centres, ANY)
    assert loss.item() == pytest.approx((exact[:, 0] / exact[:, 1]).mean().item(), rel=1e-3)


@pytest.mark.parametrize("centres", [None, torch.zeros(1, 3), torch.zeros(0, 3)])
def test_fewer_than_two_centres_are_refused_with_a_sentence(centres):
    with pytest.raises(FewLabelsError, match="two clusters or more"):
        PRINTED(torch.zeros(2, 3), centres, ANY)


def test_half_precision_embeddings_give_a_float32_loss():
    x, centres = torch.randn(6, 3).bfloat16(), torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = PRINTED(x, centres, ANY)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, PRINTED(x.float(), centres, ANY))


def test_an_image_without_a_cluster_has_no_centre_of_its_own():
    embeddings, centres = torch.randn(4, 3), torch.randn(2, 3)
    own = ContrastiveClustering(centre="own")
    labels = torch.tensor([1, -1, 0, -1])
    expected = own(embeddings[[0, 2]], centres, labels[[0, 2]])
    torch.testing.assert_close(own(embeddings, centres, labels), expected)
