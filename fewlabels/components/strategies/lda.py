"""LDA: linear discriminant analysis on a network's features, in closed form."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le

from fewlabels.components.strategies.closed_form import ClosedForm
from fewlabels.ops.linear_rules import LinearRule, Moments, fit_lda
from fewlabels.registry import strategies

Share = Annotated[float, Gt(0), Le(1)]


@strategies.register("lda")
class LDA(ClosedForm):
    """Linear discriminant analysis with a shrunk covariance, on features as they are.

    It is the cheapest honest answer from a pre-trained backbone: nothing is trained. ``model.head:
    root`` scales the square roots of features to length 1 first, which helps. With a discovery each
    round computes the layer anew from given and discovered labels.

    Args:
        shrinkage: share of the identity in the covariance within classes; 1 is the nearest mean,
            near 0 few labels decide on directions that they do not know.
        later_shrinkage: the same once labels are discovered, when there are many.

    Source: Friedman, "Regularized discriminant analysis", JASA 1989; all classes equally likely.
    Recipe: `strategy: {name: lda, shrinkage: 0.5}`
    """

    def __init__(self, *, shrinkage: Share = 0.5, later_shrinkage: Share = 0.3) -> None:
        self.shrinkage, self.later_shrinkage = shrinkage, later_shrinkage

    def fit_rule(self, moments: Moments, discovered: bool) -> LinearRule:
        """The rule of labelled features, of whose labels some may be discovered."""
        return fit_lda(moments, self.later_shrinkage if discovered else self.shrinkage)
