"""LMCS: MixMatch guided by a master that is learned from three students and looks ahead."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Gt, Interval
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fewlabels.components.strategies.mixmatch import MixMatch, average_predictions
from fewlabels.components.strategies.semi_supervised import (
    Count,
    Unlabelled,
    consistency_loss,
    forward_batches,
    get_images,
    predict_logits,
    require_output,
)
from fewlabels.contracts import (
    Average,
    Batch,
    Build,
    Clock,
    Extract,
    LabelState,
    Models,
    Phase,
    Round,
    Stream,
)
from fewlabels.contracts.ramp import Ramp
from fewlabels.models.composition import Composition
from fewlabels.ops.centres import class_centres
from fewlabels.ops.kmeans import kmeans
from fewlabels.registry import strategies

ENOUGH = 256
"""Images a cluster that k-means looks at, as faiss advises; more would cost more than training."""


@strategies.register("lmcs")
class LMCS(MixMatch):
    """Learned model composition with critical-sample look-ahead (chapter 3).

    A round is one of the text's steps: ``epochs_per_round`` epochs of the student by MixMatch, then
    one composition of the master. With a discovery each ``discover_every`` rounds are a generation.
    In generation g the master learns on Omega_G, the student on Omega_{G-1} (Eq. 3.13), so
    what is discovered reaches the student through the guesses of the master first; that takes two
    rounds a generation or more, since a round's student is guided by the master of the one before.

    Clusters are those of k-means on the master's features, as many as classes, begun from the
    features' class centres on Omega_G, and made anew at every composition.

    The master's loss is J_C (``consistency``, Eq. 3.5) + eta J_D (``discrimination``, Eq. 3.6) +
    the cross-entropy on Omega_G (``master_supervised``), by which the look-ahead reaches it;
    Eq. 3.7 has no such term: its weight 0 is the text.

    Args:
        labelled, batch, unlabelled, temperature, alpha, ema: of MixMatch; those of the master's
            batches too.
        composition_epochs: of a composition.
        composition_ema: decay of the decision network's average.
        layer: the composition layer; null: the last stage before global pooling.
        guess_by: whose predictions MixMatch sharpens, from the first composition on; ``both``: the
            mean of the student's, as MixMatch has it, and the master's.
        form: of J_D; ``printed`` is Eq. 3.6, which is smallest where two centres are equally far.
        look_ahead: false: the student learns on Omega_G too.
    """

    terms = (*MixMatch.terms, "master_supervised", "consistency", "discrimination")
    weights = {**MixMatch.weights, "discrimination": Ramp(end=0.1)}

    def __init__(
        self,
        *,
        labelled: Count = 64,
        batch: Count = 64,
        unlabelled: Unlabelled = "rest",
        temperature: Annotated[float, Gt(0)] = 0.5,
        alpha: Annotated[float, Gt(0)] = 0.75,
        ema: Ramp = Ramp(end=0.999),  # noqa: B008
        composition_epochs: Count = 1,
        composition_ema: Annotated[float, Interval(ge=0, lt=1)] = 0.99,
        layer: str | None = None,
        guess_by: Literal["both", "master", "ema", "student"] = "both",
        form: Literal["contrast", "printed"] = "contrast",
        look_ahead: bool = True,
    ) -> None:
        super().__init__(
            labelled=labelled,
            batch=batch,
            unlabelled=unlabelled,
            temperature=temperature,
            alpha=alpha,
            ema=ema,
        )
        self.composition_epochs, self.layer, self.form = composition_epochs, layer, form
        self.decision = Average("master.decision", Ramp(end=composition_ema))
        guides = {"both": "master", "master": "master", "ema": "teacher", "student": None}
        self.guide, self.alone = guides[guess_by], guess_by != "both"
        self.look_ahead, self.guided = look_ahead, False

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student, its average, and the master."""
        modules = super().modules(build)
        student: Any = build.classifier()
        modules["master"] = Composition(student, self.layer, clusters=len(student.classes))
        return modules

    def phases(self, round: Round) -> list[Phase]:
        """The student's, on the labels of one discovery ago, and the composition of the master."""
        (train,) = super().phases(round)
        one = {name: replace(s, views=s.views[:1]) for name, s in train.streams.items()}
        lag: Literal[0, 1] = 1 if self.look_ahead else 0
        late: dict[str, Stream] = {n: replace(s, lag=lag) for n, s in train.streams.items()}
        average = {"master.average": self.decision}
        epochs = self.composition_epochs
        return [
            replace(train, streams=late),
            Phase("composition", ("master",), one, average, epochs=epochs),
        ]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """A composition begins with new snapshots, and with clusters of the master's features."""
        master: Any = models.plain("master")
        if phase.name == "composition":
            master.renew(models.plain("student"), models.plain("teacher"))
            centres = self._compute_cluster_centres(len(master.centres), found, extract)
            master.centres.copy_(torch.from_numpy(centres))
        self.guided = self.guide is not None and bool(master.composed)

    def _compute_cluster_centres(
        self, count: int, found: LabelState, extract: Extract
    ) -> np.ndarray:
        """Centres (count, F) of the master's features of unlabelled images."""
        free = np.flatnonzero((found.labels < 0) | (self.unlabelled == "all"))
        places = np.linspace(0, len(free) - 1, min(len(free), ENOUGH * count))
        known = np.flatnonzero(found.labels >= 0)
        rows = np.concatenate([known, free[places.astype(np.int64)]])
        features = extract("master", "features", rows)
        classes, start = class_centres(features[: len(known)], found.labels[known])
        return kmeans(
            features[len(known) :],
            count,
            spherical=False,
            start=start if len(classes) == count else None,
        )[0]

    def guess(self, models: Models, *images: Tensor) -> Tensor:
        """The mean prediction (B, C) of several views by the guide, once there is a master."""
        if self.guide is None or not self.guided:
            return super().guess(models, *images)
        guided = average_predictions(predict_logits(models.plain(self.guide), *images))
        return guided if self.alone else (guided + super().guess(models, *images)) / 2

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """MixMatch's for the student; the terms of the master's loss for the master."""
        if phase.name != "composition":
            return super().losses(phase, models, batch, clock)
        part, rest = batch["labelled"], get_images(batch["unlabelled"])
        known, others = forward_batches(models["master"], get_images(part), rest)
        (wanted,) = predict_logits(models.plain("teacher"), rest)
        master: Any = models.plain("master")
        return {
            "master_supervised": cross_entropy(require_output(known.logits), part.labels),
            "consistency": consistency_loss(require_output(others.logits), wanted),
            "discrimination": discrimination_loss(others.features, master.centres, self.form),
        }


def discrimination_loss(
    features: Tensor, centres: Tensor, form: Literal["contrast", "printed"] = "contrast"
) -> Tensor:
    """J_D: how badly features (B, F) tell the two nearest of centres (K, F) apart; a mean over B.

    ``printed`` is Eq. 3.6, (d0 - d1)^2 with d0 <= d1 the two smallest distances. It is smallest
    half way between two centres, the opposite of what its text wants. ``contrast`` is
    1 - ((d1 - d0) / (d1 + d0))^2: 0 on a centre, 1 half way.
    """
    near, far = torch.cdist(features, centres).topk(2, largest=False).values.unbind(1)
    if form == "printed":
        return (near - far).square().mean()
    share = (far - near) / (far + near).clamp_min(torch.finfo(features.dtype).tiny)
    return (1 - share.square()).mean()
