"""The memory that a rehearsal tells is the largest, though parts of its time are measured apart."""

import torch

from fewlabels.rehearsal.memory import Peak


class Card:
    """A GPU of which only the largest memory since the last look is known."""

    def __init__(self, monkeypatch):
        self.peak = self.kept = 5
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: self.peak)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)

    def reset(self):
        """As torch does: what is kept is the largest so far."""
        self.peak = self.kept


def test_the_memory_of_a_gpu_is_that_of_its_largest_step(monkeypatch):
    card = Card(monkeypatch)
    peak = Peak()
    peak.note_made()
    for needed in (10**9, 10**10, 10**8):
        peak.note()
        card.peak = needed
        peak.note_step(0)
    peak.note()
    assert peak.device == 10**10
