"""Supervised: training on the labelled images only, the baseline of every table."""

from __future__ import annotations

from dataclasses import replace

from fewlabels.components.strategies.semi_supervised import SemiSupervised, Unlabelled
from fewlabels.contracts import Count, Phase, Round
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


@strategies.register("supervised")
class Supervised(SemiSupervised):
    """Trains by cross-entropy on the labelled images; unlabelled images are not used.

    An epoch has as many steps as with the semi-supervised strategies, so that a comparison has the
    same number of steps. With a discovery it is self-training without guidance (Fig. 2.6).

    Args:
        labelled: labelled images in a step, over all processes.
        batch, unlabelled: size and content of the unlabelled stream, which is only used to count
            the steps of an epoch.
        average: decay of a moving average of the student, which is evaluated and saved in its
            place; null: the student is.

    Source: common practice; with a discovery: Li (2021), chapter 2, Fig. 2.6.
    Recipe: `strategy: {name: supervised, labelled: 50}`
    """

    def __init__(
        self,
        *,
        labelled: Count = 50,
        batch: Count = 50,
        unlabelled: Unlabelled = "all",
        average: Ramp | None = None,
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled, average=average)

    def phases(self, round: Round) -> list[Phase]:
        """One phase over the labelled stream, as long as one pass over the unlabelled stream."""
        (phase,) = super().phases(round)
        streams = {"labelled": phase.streams["labelled"]}
        return [replace(phase, streams=streams, epoch_of=phase.streams["unlabelled"])]
