"""TAC-CCL: transformed attention consistency and contrastive clustering."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from fewlabels.components.strategies.metric import Metric
from fewlabels.contracts import (
    Batch,
    Build,
    Clock,
    Count,
    Extract,
    LabelState,
    Models,
    Part,
    Partners,
    Phase,
    Round,
    Stream,
    View,
)
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import ComponentError
from fewlabels.ops import geometry
from fewlabels.ops.correlation import correlate_maps
from fewlabels.ops.geometry import keypoint_mask
from fewlabels.registry import strategies

LOG = logging.getLogger(__name__)
FLAT = 0.01
"""Attention has collapsed if a typical map's standard deviation is below this share of its mean."""
NEAR = 0.01
"""Positions where the mask is below this, three sigma from any keypoint, are not compared."""
COMPARED = ("attention", "attention_pair", "matrix", "valid", "mask")
Compared = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Maps (B, 1, H, W) of both sides, the matrix (B, 3, 3) between them, valid positions (B, H, W) of
the second map, and the mask (B, 1, H, W) that weighs them."""


@strategies.register("tac_ccl")
class TACCCL(Metric):
    """Trains an embedder on clusters and on pairs of an image and its transform (TAC-CCL).

    Each image is seen twice, through two random maps M and M', as x and x'. So x' = T(x) with
    T = M' M^-1 known exactly (Section 4.3.1), and T moves the attention map of x to where that of
    x' should be (Eq. 4.2).

    Losses get both sides as ``attention``, ``attention_pair``, ``matrix`` (T), ``valid`` (the
    positions of x' that x shows) and ``mask`` (1, or G' of matched images). A loss that takes
    ``embeddings_pair`` gets the embeddings of x as ``embeddings``.

    Two terms are logged with weight 0. ``attention_spread`` is the median over images of the
    standard deviation of the attention map divided by its mean: a constant map makes Eq. 4.2 zero
    and does not change embeddings of length 1, so a value below 1 % is reported as collapsed
    attention. ``attention_correlation`` is the mean correlation of T[M] and M' of x and x'.

    Args:
        batch, per_class, memory, one_slot_per_image, memory_start, head, average: as for
            ``metric``; ``batch`` counts images, each of which is seen twice.
        attention: name of the block's side output that is the attention map (B, 1, H, W).
        metric_on: whether the other losses see x only (``first``), or x and x' as two images of one
            label (``both``). They see both images of a matched pair in any case.
        pairs: pairs of matched sub-images in a step, if a discovery finds them (Section 4.3.4). The
            two are positives of each other in the metric losses.
        pair_labels: what else a matched pair is positive with: the ``left`` image's cluster, whose
            label both get; or the ``union`` of both images' clusters, as ``labels`` and
            ``second_labels``, which every loss that compares labels must take (of the losses here
            ``multi_similarity`` does). The two are the same while partners come from one cluster;
            ``across`` of ``matching`` needs ``union``, as one image would have two labels.
        sigma: standard deviation of the Gaussians around common keypoints, as a share of half the
            image's side (Eq. 4.4).
        form: of Eq. 4.6: ``aligned`` compares T[M] with M', T being the affine map of the pair,
            where the second mask G' is; ``printed`` compares M G with M' G' at the same position,
            which penalises attention that moves with the object, not attention that vanishes.

    Source: Li (2021), chapter 4, Eq. 4.1 to 4.6.
    Recipe: `strategy: {name: tac_ccl, batch: 80, per_class: 5, pairs: 20}`
    """

    supplies: tuple[str, ...] = (
        *(name for name in Metric.supplies if name != "side"),
        "embeddings_pair",
        "attention",
        "attention_pair",
        "matrix",
        "valid",
        "mask",
        "second_labels",
    )
    terms: tuple[str, ...] = ("attention_spread", "attention_correlation")
    weighs_labels = False
    weights: Mapping[str, Ramp] = {
        "attention_spread": Ramp(end=0.0),
        "attention_correlation": Ramp(end=0.0),
    }

    def __init__(
        self,
        *,
        batch: Count = 80,
        per_class: Count = 5,
        memory: Count | Literal["all"] | None = "all",
        one_slot_per_image: bool = True,
        memory_start: Annotated[int, Ge(0)] = 0,
        head: Literal["random", "pca"] = "random",
        average: Annotated[float, Interval(gt=0, lt=1)] | None = None,
        attention: str = "cbam.map",
        metric_on: Literal["first", "both"] = "first",
        pairs: Annotated[int, Ge(0)] = 0,
        pair_labels: Literal["left", "union"] = "left",
        sigma: Annotated[float, Gt(0)] = 0.2,
        form: Literal["aligned", "printed"] = "aligned",
    ) -> None:
        super().__init__(
            batch=batch,
            per_class=per_class,
            views=2,
            memory=memory,
            one_slot_per_image=one_slot_per_image,
            memory_start=memory_start,
            head=head,
            average=average,
        )
        self.attention, self.both = attention, metric_on == "both"
        self.pairs, self.sigma, self.printed = pairs, sigma, form == "printed"
        self.union = pair_labels == "union"
        self.clusters: Tensor | None = None  # label of each training image
        self.watched: Compared | None = None  # of x and x' in the last step
        self.spread: Tensor | None = None

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The modules of ``metric``.

        Raises:
            ComponentError: a loss takes an attention map, and no block gives it; or one would take
                matched images for negatives.
        """
        modules = super().modules(build)
        if self.union and self.pairs:
            self._refuse_single_labels()
        for name, inputs in self.loss_inputs.items():
            if "embeddings_pair" in inputs:  # "embeddings" can hold x and x'
                self.loss_inputs[name] = ["first" if i == "embeddings" else i for i in inputs]
        student: Any = modules["student"]
        asking = [name for name, inputs in self.loss_inputs.items() if "attention" in inputs]
        student.eval()
        with torch.no_grad():
            side = student(torch.zeros(1, *student.input_shape)).side
        student.train()
        if asking and self.attention not in side:
            known = f"blocks hand over {', '.join(side)}" if side else "there is no block"
            raise ComponentError(
                f"loss {asking[0]!r} needs the attention map {self.attention!r}, and {known}; "
                "write blocks: {name: cbam, after: MODULE}"
            )
        return modules

    def _refuse_single_labels(self) -> None:
        """Refuse a loss that sees the clusters of matched images, but not that they match."""
        for name, inputs in self.loss_inputs.items():
            if "labels" in inputs and not {"second_labels", "centres"} & set(inputs):
                raise ComponentError(
                    f"strategy.pair_labels: with union, loss {name!r} takes matched images of two "
                    "clusters for negatives, as it takes no second_labels; use multi_similarity, "
                    "or set pair_labels: left"
                )

    def phases(self, round: Round) -> list[Phase]:
        """The phase of ``metric``, with a stream of matched pairs."""
        (phase,) = super().phases(round)
        if self.pairs:
            matched = Stream("pairs", self.pairs, (self.view,))
            phase = replace(phase, streams={**phase.streams, "pairs": matched})
        return [phase]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Take over new clusters, and warn if attention has collapsed."""
        super().begin(phase, models, found, extract)
        device = next(models.plain("student").parameters()).device
        self.clusters = torch.from_numpy(found.labels).to(device)
        if self.spread is not None and self.spread < FLAT:
            LOG.warning(
                "attention has collapsed: the standard deviation of a typical map is %.2g of its "
                "mean; lower weights.attention_consistency",
                self.spread.item(),
            )

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Every loss of the recipe on the batch of all processes, and the terms that are logged."""
        losses = super().losses(phase, models, batch, clock)
        if self.watched is not None:
            one, two, matrix, valid, _ = (tensor.float() for tensor in self.watched)
            maps = torch.cat([one, two]).flatten(1)
            self.spread = (maps.std(1) / maps.mean(1)).median()
            losses["attention_spread"] = self.spread
            moved = geometry.warp_images(one, matrix, padding="border")
            losses["attention_correlation"] = correlate_maps(moved[:, 0], two[:, 0], valid).mean()
        return losses

    def given(self, models: Models, batch: Batch, clock: Clock) -> dict[str, Any]:
        """What is given to losses: both sides of x and x', then of matched images.

        Processes are gathered in the order of a single process.
        """
        part, matched = batch["images"], batch.get("pairs")
        partners = None if matched is None else matched.partners
        sides = [*part.views]
        if matched is not None and partners is not None:
            sides += [*matched.views, *partners.views]
        output = models["student"](torch.cat([view.images for view in sides]))
        counts = [len(view.images) for view in sides]
        rows = [models.gather(rows) for rows in output.embedding.split(counts)]
        first, second = torch.cat(rows[::2]), torch.cat(rows[1::2])
        embeddings, labels, indices, second_labels = self._list_seen(models, part, matched, rows)
        given = {
            "embeddings": embeddings,
            "labels": labels,
            "indices": indices,
            "memory": self.update_memory(models, clock, embeddings, labels, indices),
            "centres": self.centres,
            "first": first,
            "embeddings_pair": second,
            "second_labels": second_labels,
        }
        if self.attention in output.side:
            maps = [models.gather(rows) for rows in output.side[self.attention].split(counts)]
            compared = [
                self._compare_transformed(*maps[:2], *self._gather_matrices(models, sides[:2]))
            ]
            one, two, matrix, valid, mask = (tensor.detach() for tensor in compared[0])
            self.watched = one, two, matrix, valid, mask
            if partners is not None:
                compared.append(self._compare_matched(models, partners, sides[2:], *maps[2:]))
            given |= {
                name: torch.cat(each)
                for name, each in zip(COMPARED, zip(*compared, strict=True), strict=True)
            }
        return given

    def _list_seen(
        self, models: Models, part: Part, matched: Part | None, rows: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """What metric losses see of x, x' and matched images, whose embeddings are ``rows``:
        embeddings (B, D), labels, indices and second labels (B,)."""
        labels, indices = models.gather(part.labels), models.gather(part.indices)
        none = torch.full_like(labels, -1)
        seen = [(own, labels, indices, none) for own in rows[: 2 if self.both else 1]]
        if matched is not None and matched.partners is not None:
            left, right = models.gather(matched.indices), models.gather(matched.partners.indices)
            labels = others = models.gather(matched.labels)
            seconds = (torch.full_like(labels, -1),) * 2
            if self.union and self.clusters is not None:
                others = self.clusters[right]
                seconds = (others, labels)
            seen.append((rows[2], labels, left, seconds[0]))
            seen.append((rows[3], others, right, seconds[1]))
        return tuple(torch.cat(each) for each in zip(*seen, strict=True))

    @staticmethod
    def _gather_matrices(models: Models, sides: list[View]) -> list[Tensor]:
        """The maps (B, 3, 3) from source to view of each side, of all processes."""
        return [models.gather(view.matrix) for view in sides]

    @staticmethod
    def _compare_transformed(one: Tensor, two: Tensor, to_one: Tensor, to_two: Tensor) -> Compared:
        """What Eq. 4.2 compares: the attention of x and of x' = T(x)."""
        matrix = geometry.compose_maps(geometry.invert_map(to_one), to_two)
        valid = geometry.valid_mask(matrix, *two.shape[-2:])
        return one, two, matrix, valid, torch.ones_like(two)

    def _compare_matched(
        self, models: Models, partners: Partners, sides: list[View], one: Tensor, two: Tensor
    ) -> Compared:
        """What Eq. 4.6 compares: the attention of matched images around common keypoints."""
        to_one, to_two = self._gather_matrices(models, sides)
        points, there = models.gather(partners.points), models.gather(partners.there.float()) > 0
        size = two.shape[-2:]
        masks = [
            keypoint_mask(geometry.map_points(to, at), there, (size[0], size[1]), self.sigma)
            for to, at in ((to_one, points[..., :2]), (to_two, points[..., 2:]))
        ]
        if self.printed:
            everywhere = torch.ones_like(two[:, 0], dtype=torch.bool)
            same_place = geometry.identity_matrix(len(one)).to(to_one)
            return one * masks[0], two * masks[1], same_place, everywhere, torch.ones_like(two)
        affine = models.gather(partners.affine)
        matrix = geometry.compose_maps(geometry.invert_map(to_one), affine, to_two)
        near = geometry.valid_mask(matrix, *size) & (masks[1][:, 0] > NEAR)
        return one, two, matrix, near, masks[1].to(two)
