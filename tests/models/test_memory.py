import copy

import pytest
import torch

from fewlabels.errors import ModelError
from fewlabels.models.memory import CrossBatchMemory


def batch(indices, start=0.0):
    indices = torch.tensor(indices)
    values = start + torch.arange(len(indices), dtype=torch.float32)
    return values[:, None].repeat(1, 2), indices % 3, indices


def entries(memory):
    """{image: (value, label, writer)} of filled entries."""
    return {
        int(i): (float(e[0]), int(y), int(w)) for e, y, i, w in zip(*memory, strict=True) if i >= 0
    }


def test_one_slot_keeps_the_latest_embedding_of_each_image():
    memory = CrossBatchMemory(6, None, 2)
    memory.enqueue_batch(*batch([4, 1]))
    held = memory.enqueue_batch(*batch([1, 5], start=10))
    assert entries(held) == {4: (0, 1, -1), 1: (10, 1, 0), 5: (11, 2, 1)}
    assert (held.labels[[0, 2, 3]] == -1).all()


def test_of_an_image_twice_in_a_batch_the_last_row_stays():
    held = CrossBatchMemory(4, None, 2).enqueue_batch(*batch([2, 0, 2, 2, 0]))
    assert entries(held) == {0: (4, 0, 4), 2: (3, 2, 3)}


@pytest.mark.parametrize("size", [1, 3, 5, 7, 8])
def test_a_queue_holds_the_newest_rows_whatever_the_batches(size):
    memory = CrossBatchMemory(100, size, 2, one_slot_per_image=False)
    seen = []
    for step, length in enumerate([2, 3, 4, 1, 8, 6]):
        indices = list(range(10 * step, 10 * step + length))
        held = memory.enqueue_batch(*batch(indices, start=100.0 * step))
        seen += [(i, 100.0 * step + row, row, step) for row, i in enumerate(indices)]
        expected = {
            i: (value, i % 3, row if when == step else -1) for i, value, row, when in seen[-size:]
        }
        assert entries(held) == expected
        assert len(held.labels) == min(size, len(seen))


@pytest.mark.parametrize("one_slot", [True, False])
def test_a_resumed_memory_goes_on_as_if_never_stopped(one_slot):
    size = None if one_slot else 5
    first = CrossBatchMemory(9, size, 2, one_slot_per_image=one_slot)
    first.enqueue_batch(*batch([3, 4, 5, 6]))
    first.enqueue_batch(*batch([7, 8], start=10))
    second = CrossBatchMemory(9, size, 2, one_slot_per_image=one_slot)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for one, other in zip(
        first.enqueue_batch(*batch([0, 4], 20)),
        second.enqueue_batch(*batch([0, 4], 20)),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("one_slot", [True, False])
def test_new_clusters_relabel_what_is_held(one_slot):
    memory = CrossBatchMemory(6, 6, 2, one_slot_per_image=one_slot)
    memory.enqueue_batch(*batch([4, 1, 5]))
    memory.relabel_entries(torch.tensor([9, 10, 11, 12, 13, -1]))
    held = memory.enqueue_batch(*batch([0]))
    assert {i: label for i, (_, label, _) in entries(held).items()} == {4: 13, 1: 10, 5: -1, 0: 0}
    assert (memory.labels[memory.indices < 0] == -1).all()


def test_entries_are_detached_float32_and_not_copied():
    memory = CrossBatchMemory(4, None, 2)
    x = torch.randn(2, 2, dtype=torch.bfloat16, requires_grad=True)
    held = memory.enqueue_batch(x, torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert held.embeddings.dtype == torch.float32
    assert not held.embeddings.requires_grad
    assert held.embeddings.data_ptr() == memory.embeddings.data_ptr()


def test_a_size_beside_one_slot_per_image_is_refused():
    with pytest.raises(ModelError, match="one_slot_per_image: false"):
        CrossBatchMemory(100, 10, 2)
