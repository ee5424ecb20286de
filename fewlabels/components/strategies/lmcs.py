"""LMCS: MixMatch guided by a master, which is composed of three networks and looks ahead."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from annotated_types import Gt, Interval
from torch import Tensor, nn

from fewlabels.components.strategies.mixmatch import MixMatch, average_predictions
from fewlabels.components.strategies.semi_supervised import (
    AVERAGE,
    Unlabelled,
    consistency_loss,
    forward_batches,
    get_images,
    predict_logits,
    require_output,
    weigh_cross_entropy,
)
from fewlabels.contracts import (
    Average,
    Batch,
    Build,
    Clock,
    Count,
    Extract,
    LabelState,
    Models,
    Phase,
    Round,
    Stream,
)
from fewlabels.contracts.ramp import Ramp
from fewlabels.models.composition import Composition
from fewlabels.models.modes import normalising_by_batch
from fewlabels.ops.centres import class_centres
from fewlabels.ops.kmeans import cluster_kmeans
from fewlabels.registry import strategies

ENOUGH = 256
"""Images for each cluster that k-means uses, as faiss advises; more would cost a lot of time."""
MEASURED = 2048
"""Images from which running statistics are taken before clustering."""
GOLDEN = (5**0.5 - 1) / 2


@strategies.register("lmcs")
class LMCS(MixMatch):
    """Learned model composition with critical-sample look-ahead: MixMatch guided by a master.

    A round is one step of the dissertation: ``epochs_per_round`` epochs in which the student is
    trained by MixMatch, then one composition of the master network from the student, the student of
    the previous round and the student's average. With a discovery, ``discover_every`` rounds are a
    generation. In generation g the master is trained on Omega_G, all samples discovered so far, and
    the student on Omega_(G-1) (Eq. 3.13). So a discovered sample first reaches the student through
    the guesses of the master; this needs at least two rounds in a generation, since the student of
    a round is guided by the master of the round before.

    The master's loss is J_C (``consistency``, Eq. 3.5) + eta J_D (``discrimination``, Eq. 3.6) +
    cross-entropy on Omega_G (``master_supervised``), through which the discovered labels reach it.
    Eq. 3.7 does not have the last term; give it weight 0 for the dissertation's loss. J_C is a mean
    of squares over samples and classes, some thousandths, so its weight is 75, as MixMatch's; the
    other two have .1. The centres in J_D are k-means centres of the master's features, as many as
    classes, computed at each composition from the class centres on Omega_G.

    Each composition begins with a new optimiser, since the weights that it moves are new. Before
    clustering and in J_C, networks are normalised by unmixed images, as the master is when it
    learns, and not by the student's running statistics, which are of mixed ones.

    Args:
        labelled, batch, unlabelled, temperature, alpha, ema: as for ``mixmatch``; the master's
            batches have the same sizes.
        composition_epochs: epochs of a composition.
        composition_ema: decay of the moving average of the decision network.
        layer: where the networks are cut: after a module by name, or after a stage by number; -2 is
            the last but one before pooling, so that the decision network is a whole stage. null is
            -1: after many backbones' last stage follows an affine map alone, and a warning says so.
        guess_by: whose predictions MixMatch sharpens from the first composition on; ``both``: the
            mean of the student's and the master's.
        form: of J_D: ``printed`` is Eq. 3.6, which is smallest half way between two centres;
            ``contrast`` is 0 on a centre.
        look_ahead: false: the student is trained on Omega_G too.

    Source: Li (2021), chapter 3, Eq. 3.1 to 3.13.
    Recipe: `strategy: {name: lmcs, labelled: 64, batch: 64, guess_by: master}`
    """

    terms = (*MixMatch.terms, "master_supervised", "consistency", "discrimination")
    weights = {
        **MixMatch.weights,
        "consistency": Ramp(end=75.0),  # as MixMatch's own mean of squares
        "discrimination": Ramp(end=0.1),
        "master_supervised": Ramp(end=0.1),
    }
    weighs_labels = True

    def __init__(
        self,
        *,
        labelled: Count = 64,
        batch: Count = 64,
        unlabelled: Unlabelled = "rest",
        temperature: Annotated[float, Gt(0)] = 0.5,
        alpha: Annotated[float, Gt(0)] = 0.75,
        ema: Ramp = AVERAGE,
        composition_epochs: Count = 1,
        composition_ema: Annotated[float, Interval(ge=0, lt=1)] = 0.99,
        layer: str | int | None = -2,
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
        """The student's phase, with the labels of the previous discovery, and the composition."""
        (train,) = super().phases(round)
        one = {name: replace(s, views=s.views[:1]) for name, s in train.streams.items()}
        lag: Literal[0, 1] = 1 if self.look_ahead else 0
        late: dict[str, Stream] = {n: replace(s, lag=lag) for n, s in train.streams.items()}
        average = {"master.average": self.decision}
        epochs = self.composition_epochs
        return [
            replace(train, streams=late),
            Phase("composition", ("master",), one, average, epochs=epochs, renews=True),
        ]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Before a composition, copy the networks into the master and compute its centres."""
        master: Any = models.plain("master")
        if phase.name == "composition":
            master.begin_composition(models.plain("student"), models.plain("teacher"))
            centres = self._compute_cluster_centres(models, found, extract)
            master.centres.copy_(torch.from_numpy(centres))
        self.guided = self.guide is not None and bool(master.composed)

    def _compute_cluster_centres(
        self, models: Models, found: LabelState, extract: Extract
    ) -> np.ndarray:
        """Compute k-means centres (K, F) of the master's features of unlabelled images.

        The student's running statistics are of mixed images, so a first pass takes them anew. Each
        process passes some of the images, and so they are averaged over processes.
        Where fewer images than centres are unlabelled, labelled ones are clustered with them.
        """
        master: Any = models.plain("master")
        count = len(master.centres)
        free = np.flatnonzero((found.labels < 0) | (self.unlabelled == "all"))
        if len(free) < count:
            free = np.arange(len(found.labels))
        places = np.linspace(0, len(free) - 1, min(len(free), ENOUGH * count))
        free = free[places.astype(np.int64)]
        known = np.flatnonzero(found.labels >= 0)
        shares = known[np.linspace(0, len(known) - 1, len(free)).astype(np.int64)]
        if len(known) < len(free):
            shares = np.resize(known, len(free))
        both = spread_evenly(shares, free)  # equal shares, as in its batches
        with master.estimating_statistics():
            extract("master", "features", both[:MEASURED])
        models.average_buffers()
        features = extract("master", "features", np.concatenate([known, free]))
        classes, start = class_centres(features[: len(known)], found.labels[known])
        return cluster_kmeans(
            features[len(known) :],
            count,
            spherical=False,
            start=start if len(classes) == count else None,
        )[0]

    def guess(self, models: Models, *images: Tensor) -> Tensor:
        """The mean prediction (B, C) of several views, by the guide once there is a master."""
        if self.guide is None or not self.guided:
            return super().guess(models, *images)
        guided = average_predictions(predict_logits(models.plain(self.guide), *images))
        return guided if self.alone else (guided + super().guess(models, *images)) / 2

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """MixMatch's loss terms for the student, or those of the master in a composition."""
        if phase.name != "composition":
            return super().losses(phase, models, batch, clock)
        part, rest = batch["labelled"], get_images(batch["unlabelled"])
        known, others = forward_batches(models["master"], get_images(part), rest)
        wanted = self._predict_average(models, get_images(part), rest)
        master: Any = models.plain("master")
        logits = require_output(known.logits)
        return {
            "master_supervised": weigh_cross_entropy(logits, part.labels, part.weights),
            "consistency": consistency_loss(require_output(others.logits), wanted),
            "discrimination": discrimination_loss(others.features, master.centres, self.form),
        }

    @torch.no_grad()
    def _predict_average(self, models: Models, known: Tensor, others: Tensor) -> Tensor:
        """Logits (B, C) of the student's average for ``others``: the target of J_C.

        They are normalised as the master's are, by the batch of both, and not by the student's
        running statistics, which are of mixed images.
        """
        teacher, master = models.plain("teacher"), models.plain("master")
        if not cast(Composition, master).takes_statistics:
            return predict_logits(teacher, others)[0]
        with models.freeze_statistics("teacher"), normalising_by_batch(teacher):
            return predict_logits(teacher, known, others)[1]


def spread_evenly(*parts: np.ndarray) -> np.ndarray:
    """Join positions (N,) of several parts so that any stretch holds its share of each.

    It draws nothing: position i stands where the golden section's multiple i falls in [0, 1).
    """
    whole = np.concatenate(parts)
    return whole[np.argsort(np.arange(len(whole)) * GOLDEN % 1, kind="stable")]


def discrimination_loss(
    features: Tensor, centres: Tensor, form: Literal["contrast", "printed"] = "contrast"
) -> Tensor:
    """J_D (Eq. 3.6): penalises features (B, F) between the two nearest of centres (K, F); a mean.

    ``printed`` is Eq. 3.6, (d0 - d1)^2 with d0 <= d1 the two smallest distances. It is smallest
    half way between two centres, which is the opposite of what the dissertation describes.
    ``contrast`` is 1 - ((d1 - d0) / (d1 + d0))^2: 0 on a centre, 1 half way.
    """
    near, far = torch.cdist(features, centres).topk(2, largest=False).values.unbind(1)
    if form == "printed":
        return (near - far).square().mean()
    share = (far - near) / (far + near).clamp_min(torch.finfo(features.dtype).tiny)
    return (1 - share.square()).mean()
