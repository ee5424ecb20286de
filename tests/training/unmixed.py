"""Strategies whose steps mix no images and draw no directions, so that nothing in them is random.

A module of its own, as the second process imports it too. Names: ``unmixed_ict`` and so on.
"""

from unittest.mock import patch

import torch

from fewlabels.components.strategies import ict, mixmatch, vat
from fewlabels.registry import strategies

BASES = ("ict", "lmcs", "mixmatch", "mixup", "vat")


def keep_whole(alpha, count, like):
    """The share of an image in its mixture: all of it."""
    return torch.ones(count, 1, 1, 1, device=like.device)


def draw_nothing(strategy, model, images, logits):
    """A direction that depends on the image alone."""
    return strategy.epsilon * vat.normalise_perturbation(torch.sin(1000 * images))


def register_unmixed(name):
    base = strategies.get(name)

    class Unmixed(base):
        __doc__ = base.__doc__

        def losses(self, *given):
            with (
                patch.object(mixmatch, "sample_beta", keep_whole),
                patch.object(ict, "sample_beta", keep_whole),
                patch.object(vat.VirtualAdversarial, "find_perturbation", draw_nothing),
            ):
                return super().losses(*given)

    strategies.register(f"unmixed_{name}")(Unmixed)


for each in BASES:
    register_unmixed(each)
