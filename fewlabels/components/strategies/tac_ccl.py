"""TAC-CCL: transformed attention consistency and contrastive clustering."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from fewlabels.components.strategies.metric import Count, Metric
from fewlabels.contracts import (
    Batch,
    Build,
    Clock,
    Extract,
    LabelState,
    Models,
    Partners,
    Phase,
    Round,
    Stream,
    View,
)
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import ComponentError
from fewlabels.ops import geometry
from fewlabels.ops.geometry import keypoint_mask
from fewlabels.registry import strategies

LOG = logging.getLogger(__name__)
FLAT = 0.01
"""A map whose standard deviation is less of its mean than this looks at nothing."""
NEAR = 0.01
"""Where the mask is less than this, three sigma from every keypoint, nothing is compared."""
Compared = tuple[Tensor, Tensor, Tensor, Tensor]
"""Maps (B, 1, H, W) of both sides, the matrix (B, 3, 3) between them, valid positions (B, H, W)."""


@strategies.register("tac_ccl")
class TACCCL(Metric):
    """Trains an embedder on cluster labels, and on pairs of an image and its transform (chapter 4).

    Each image is seen through the recipe's views twice, as x and as x' = T(x): both are known maps
    of the same image, M and M', so T = M' after M^-1 is known exactly (Section 4.3.1), and the same
    T moves the attention of a block, ``side[attention]``, to where it should be found in x'.

    The recipe's losses are told both sides: ``attention``, ``attention_pair``, ``matrix`` (T) and
    ``valid`` (positions of x' that x shows); a loss that asks for ``embeddings_pair`` gets those
    of x as ``embeddings``.

    ``attention_spread`` is watched, at weight 0: the median over images of the map's standard
    deviation by its mean. A constant map costs nothing (Eq. 4.2) and says nothing, and embeddings
    of length 1 do not feel it; one below 1 % is reported as collapsed.

    Args:
        batch, per_class, memory, one_slot_per_image, memory_start, head, average: of ``metric``;
            ``batch`` counts images, each of which is seen twice.
        attention: which of the things that blocks hand over is the attention map.
        metric_on: whether the other losses see x alone, or x and x' as two images of one label.
        pairs: of matched sub-images a step, where a discovery has found some (Section 4.3.4): each
            is one more pair, whose images have the left one's label.
        sigma: of the Gaussians about common keypoints, in units of half a side (Eq. 4.4).
        form: of Eq. 4.6; ``aligned`` compares after the pair's affine map, ``printed`` at the same
            place, where attention that moves with the object costs and attention that vanishes
            does not.
    """

    supplies: tuple[str, ...] = (
        *Metric.supplies,
        "embeddings_pair",
        "attention",
        "attention_pair",
        "matrix",
        "valid",
    )
    terms: tuple[str, ...] = ("attention_spread",)
    weights: Mapping[str, Ramp] = {"attention_spread": Ramp(end=0.0)}

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
        self.watched: Tensor | None = None  # the attention maps of the last step
        self.spread: Tensor | None = None

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """Those of ``metric``.

        Raises:
            ComponentError: a loss wants an attention map that no block hands over.
        """
        modules = super().modules(build)
        for name, inputs in self.loss_inputs.items():
            if "embeddings_pair" in inputs:  # embeddings may be of both sides, first is of x
                self.loss_inputs[name] = ["first" if i == "embeddings" else i for i in inputs]
        student: Any = modules["student"]
        asking = [name for name, inputs in self.loss_inputs.items() if "attention" in inputs]
        student.eval()
        with torch.no_grad():
            side = student(torch.zeros(1, 3, student.image_size, student.image_size)).side
        student.train()
        if asking and self.attention not in side:
            known = f"blocks hand over {', '.join(side)}" if side else "there is no block"
            raise ComponentError(
                f"loss {asking[0]!r} needs the attention map {self.attention!r}, and {known}; "
                "write blocks: {name: cbam, after: MODULE}"
            )
        return modules

    def phases(self, round: Round) -> list[Phase]:
        """That of ``metric``, with matched pairs beside."""
        (phase,) = super().phases(round)
        if self.pairs:
            matched = Stream("pairs", self.pairs, (self.view,))
            phase = replace(phase, streams={**phase.streams, "pairs": matched})
        return [phase]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Take over the new clusters; say so if attention has collapsed."""
        super().begin(phase, models, found, extract)
        if self.spread is not None and self.spread < FLAT:
            LOG.warning(
                "attention has collapsed: the standard deviation of a typical map is %.2g of its "
                "mean; lower weights.attention_consistency",
                self.spread.item(),
            )

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Every loss of the recipe on the global batch, and the spread of the attention."""
        losses = super().losses(phase, models, batch, clock)
        if self.watched is not None:
            maps = self.watched.flatten(1)
            self.spread = (maps.std(1) / maps.mean(1)).median()
            losses["attention_spread"] = self.spread
        return losses

    def given(self, models: Models, batch: Batch, clock: Clock) -> dict[str, Any]:
        """Both sides of each pair, in the order of one process: x and x', then matched images."""
        part, matched = batch["images"], batch.get("pairs")
        sides = [*part.views]
        if matched is not None and matched.partners is not None:
            sides += [*matched.views, *matched.partners.views]
        output = models["student"](torch.cat([view.images for view in sides]))
        counts = [len(view.images) for view in sides]
        rows = [models.gather(rows) for rows in output.embedding.split(counts)]
        first, second = torch.cat(rows[::2]), torch.cat(rows[1::2])
        parts = [part] if matched is None else [part, matched]
        labels = torch.cat([models.gather(p.labels) for p in parts])
        indices = torch.cat([models.gather(p.indices) for p in parts])
        embeddings = first
        if self.both:
            embeddings = torch.cat([first, second])
            others = [p.indices if p.partners is None else p.partners.indices for p in parts]
            indices = torch.cat([indices, *(models.gather(own) for own in others)])
            labels = labels.repeat(2)
        given = {
            "embeddings": embeddings,
            "labels": labels,
            "indices": indices,
            "memory": self.update_memory(models, clock, embeddings, labels, indices),
            "centres": self.centres,
            "first": first,
            "embeddings_pair": second,
        }
        if self.attention in output.side:
            maps = [models.gather(rows) for rows in output.side[self.attention].split(counts)]
            self.watched = torch.cat(maps).detach()
            compared = [
                self._compare_transformed(*maps[:2], *self._gather_matrices(models, sides[:2]))
            ]
            if matched is not None and matched.partners is not None:
                compared.append(
                    self._compare_matched(models, matched.partners, sides[2:], *maps[2:])
                )
            names = ("attention", "attention_pair", "matrix", "valid")
            given |= {
                n: torch.cat(each)
                for n, each in zip(names, zip(*compared, strict=True), strict=True)
            }
        return given

    @staticmethod
    def _gather_matrices(models: Models, sides: list[View]) -> list[Tensor]:
        return [models.gather(view.matrix) for view in sides]

    @staticmethod
    def _compare_transformed(one: Tensor, two: Tensor, to_one: Tensor, to_two: Tensor) -> Compared:
        """Eq. 4.2: x' = T(x)."""
        matrix = geometry.compose(geometry.invert(to_one), to_two)
        return one, two, matrix, geometry.valid(matrix, *two.shape[-2:])

    def _compare_matched(
        self, models: Models, partners: Partners, sides: list[View], one: Tensor, two: Tensor
    ) -> Compared:
        """Eq. 4.6: matched images, near their common keypoints."""
        to_one, to_two = self._gather_matrices(models, sides)
        points, there = models.gather(partners.points), models.gather(partners.there.float()) > 0
        size = two.shape[-2:]
        masks = [
            keypoint_mask(geometry.apply(to, at), there, (size[0], size[1]), self.sigma)
            for to, at in ((to_one, points[..., :2]), (to_two, points[..., 2:]))
        ]
        one, two = one * masks[0], two * masks[1]
        if self.printed:
            everywhere = torch.ones_like(two[:, 0], dtype=torch.bool)
            return one, two, geometry.identity(len(one)).to(to_one), everywhere
        affine = models.gather(partners.affine)
        matrix = geometry.compose(geometry.invert(to_one), affine, to_two)
        return one, two, matrix, geometry.valid(matrix, *size) & (masks[1][:, 0] > NEAR)
