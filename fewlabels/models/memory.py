"""Cross-batch memory: past embeddings that a loss compares the present batch with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels.contracts import Memory
from fewlabels.errors import ModelError


class CrossBatchMemory(nn.Module):
    """Keeps the embeddings of past batches (Wang et al., CVPR 2020).

    All state is in buffers in ``state_dict``, so a run that resumes continues exactly.

    Args:
        rows: images in the training set.
        size: entries of a queue; None is one for each image.
        embedding_size: width of an entry.
        one_slot_per_image: each image has one slot, at its index, with its latest embedding, as the
            text's "whole training set" asks; else the memory is a queue.
    """

    embeddings: Tensor  # (M, D) float32
    labels: Tensor  # (M,) int64, -1 = unlabelled or empty
    indices: Tensor  # (M,) int64, -1 = empty
    written: Tensor  # () int64, rows that the queue has taken since the start

    def __init__(
        self, rows: int, size: int | None, embedding_size: int, *, one_slot_per_image: bool = True
    ) -> None:
        super().__init__()
        if one_slot_per_image and size not in (None, rows):
            raise ModelError(
                f"a memory with one slot per image holds all {rows} images, not {size}; set "
                "one_slot_per_image: false for a queue, or memory: all"
            )
        self.one_slot = one_slot_per_image
        self.size = rows if size is None else size
        self.register_buffer("embeddings", torch.zeros(self.size, embedding_size))
        self.register_buffer("labels", torch.full((self.size,), -1))
        self.register_buffer("indices", torch.full((self.size,), -1))
        self.register_buffer("written", torch.tensor(0))

    @torch.no_grad()
    def enqueue_batch(self, embeddings: Tensor, labels: Tensor, indices: Tensor) -> Memory:
        """Store a batch (B, D), (B,), (B,), and give the content of the memory after it.

        Returns:
            Views, not copies: the next call changes them. A queue gives its filled entries; with
            one slot per image all slots come, the empty ones labelled -1.
        """
        batch = torch.arange(len(labels), device=labels.device)
        writer = torch.full_like(self.indices, -1)
        if self.one_slot:
            slots = indices
            # A slot that is written twice takes the last row, as a maximum: the order in which a
            # device writes duplicates is not fixed.
            writer.scatter_reduce_(0, slots, batch, "amax")
            batch = writer[slots]
        else:
            batch = batch[-self.size :]
            slots = (self.written + batch) % self.size
            writer[slots] = batch
            self.written += len(labels)
        self.embeddings[slots] = embeddings.detach()[batch].to(self.embeddings.dtype)
        self.labels[slots] = labels[batch]
        self.indices[slots] = indices[batch]
        filled = self.size if self.one_slot else min(int(self.written), self.size)
        return Memory(
            self.embeddings[:filled], self.labels[:filled], self.indices[:filled], writer[:filled]
        )

    @torch.no_grad()
    def relabel_entries(self, labels: Tensor) -> None:
        """Give each entry the new label of its image; ``labels`` (rows,), -1 = unlabelled."""
        labels = labels.to(self.labels.device)
        self.labels.copy_(torch.where(self.indices >= 0, labels[self.indices.clamp(min=0)], -1))
