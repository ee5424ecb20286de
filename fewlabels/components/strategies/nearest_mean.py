"""NearestMean: the class whose mean feature is nearest, in closed form."""

from __future__ import annotations

from fewlabels.components.strategies.closed_form import ClosedForm
from fewlabels.ops.linear_rules import LinearRule, Moments, fit_nearest_mean
from fewlabels.registry import strategies


@strategies.register("nearest_mean")
class NearestMean(ClosedForm):
    """The class whose mean feature is nearest; with one label a class, the nearest labelled image.

    With a discovery each round computes the means anew from given and discovered labels.

    Source: Snell et al., "Prototypical networks for few-shot learning", NeurIPS 2017, without its
    training.
    Recipe: `strategy: {name: nearest_mean}`
    """

    def fit_rule(self, moments: Moments, discovered: bool) -> LinearRule:
        """The rule of labelled features, of whose labels some may be discovered."""
        return fit_nearest_mean(moments)
