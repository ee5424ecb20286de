"""FineTune: supervised training that begins with a last layer in closed form."""

from __future__ import annotations

from torch import nn

from fewlabels.components.strategies.closed_form import require_linear_layer
from fewlabels.components.strategies.lda import LDA, Share
from fewlabels.components.strategies.semi_supervised import Unlabelled
from fewlabels.components.strategies.supervised import Supervised
from fewlabels.contracts import Build, Count, Extract, LabelState, Models, Phase, Round
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


@strategies.register("fine_tune")
class FineTune(Supervised):
    """Trains by cross-entropy from LDA's answer on: each round sets the last layer by it first.

    A random last layer would send large gradients through a pre-trained backbone and spoil features
    that other images need; one that is right already changes them little. So a small rate, as 3e-5
    with AdamW, and ``model.freeze_batchnorm: statistics`` belong to it.

    Args:
        labelled, batch, unlabelled, average: as for ``supervised``.
        shrinkage, later_shrinkage: as for ``lda``.

    Source: Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", ICLR 2022, with LDA in place of a trained linear layer.
    Recipe: `strategy: {name: fine_tune, labelled: 32, average: {end: 0.98, shape: reach}}`
    """

    def __init__(
        self,
        *,
        labelled: Count = 50,
        batch: Count = 50,
        unlabelled: Unlabelled = "all",
        average: Ramp | None = None,
        shrinkage: Share = 0.5,
        later_shrinkage: Share = 0.3,
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled, average=average)
        self.closed_form = LDA(shrinkage=shrinkage, later_shrinkage=later_shrinkage)

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student and its average.

        Raises:
            DataError: a backbone whose last layer is not one linear layer.
        """
        modules = super().modules(build)
        self.closed_form.classes = require_linear_layer(modules["student"])
        return modules

    def phases(self, round: Round) -> list[Phase]:
        """The closed form, and the training after it."""
        return [*self.closed_form.phases(round), *super().phases(round)]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Set the last layer by LDA; the average begins there too."""
        if phase.name == "train":
            return
        self.closed_form.begin(phase, models, found, extract)
        for name in self.averages:
            models.plain(name).load_state_dict(models.plain("student").state_dict())
