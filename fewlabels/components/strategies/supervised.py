"""Supervised: the labelled images alone, the baseline of every table."""

from __future__ import annotations

from dataclasses import replace

from fewlabels.components.strategies.semi_supervised import Count, SemiSupervised, Unlabelled
from fewlabels.contracts import Phase, Round
from fewlabels.registry import strategies


@strategies.register("supervised")
class Supervised(SemiSupervised):
    """Cross-entropy on the labelled images; unlabelled ones are counted and never looked at.

    With a discovery it is self-training without guidance (Fig. 2.6).

    Args:
        labelled: labelled images a step, over all processes.
        batch: images of the unlabelled stream by which other strategies count epochs; so the same
            recipe takes the same number of steps.
        unlabelled: as in the others.
    """

    def __init__(
        self, *, labelled: Count = 50, batch: Count = 50, unlabelled: Unlabelled = "all"
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled)

    def phases(self, round: Round) -> list[Phase]:
        """The labelled stream, for as many steps as a pass over the unlabelled one takes."""
        (phase,) = super().phases(round)
        streams = {"labelled": phase.streams["labelled"]}
        return [replace(phase, streams=streams, epoch_of=phase.streams["unlabelled"])]
