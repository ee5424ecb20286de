"""The batches of a phase: one order for all processes, from which each takes its own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from fewlabels.contracts import LabelState, Pairs, Part, Partners, Phase, Stream, View
from fewlabels.contracts.strategy import Of
from fewlabels.data.order import class_balanced, draw_shuffled
from fewlabels.data.pixels import Pixels
from fewlabels.errors import ComponentError, FewLabelsError, suggest_nearest
from fewlabels.ops import geometry
from fewlabels.training.round_schedule import RoundSchedule

Derive = Callable[..., int]
POINTS = 32
"""Matched points of a pair used in a step, spread evenly over all points of the pair."""


class Batches:
    """Makes the parts of each batch; knows nothing of models.

    Loaders are not prepared by accelerate: it would split batches again, by rules under which a
    custom order depends on the number of processes.
    """

    def __init__(
        self, accelerator: Accelerator, pixels: Pixels, schedule: RoundSchedule, workers: int
    ) -> None:
        self.processes, self.rank = accelerator.num_processes, accelerator.process_index
        self.device, self.pixels, self.schedule, self.workers = (
            accelerator.device,
            pixels,
            schedule,
            workers,
        )

    def check_streams(self, phase: Phase) -> None:
        """Refuse a phase whose streams cannot be made.

        Raises:
            ComponentError: a stream that this loop does not know.
            FewLabelsError: a batch that the processes cannot share equally.
        """
        for name, stream in phase.streams.items():
            if stream.of not in get_args(Of):
                raise ComponentError(
                    f"stream {name!r} of phase {phase.name!r} is of {stream.of!r}"
                    f"{suggest_nearest(str(stream.of), get_args(Of))} "
                    f"(all: {', '.join(get_args(Of))})"
                )
            if stream.lag not in (0, 1):
                raise ComponentError(
                    f"stream {name!r} of phase {phase.name!r} asks for labels of more than one "
                    "discovery ago, which this version's loop does not keep"
                )
            if stream.batch % self.processes:
                raise FewLabelsError(
                    f"strategy: stream {name!r} has {stream.batch} images a step, which "
                    f"{self.processes} processes cannot share equally; change batch"
                )

    def epoch_length(self, phase: Phase, found: LabelState) -> tuple[int, int]:
        """Optimiser steps per epoch, and the number of epochs."""
        if phase.steps is not None:
            return phase.steps, 1
        stream = phase.epoch_of or next(iter(phase.streams.values()))
        whole = len(self._find_members(stream, found)) // (stream.batch * self.schedule.accumulate)
        return self.schedule.steps_per_epoch or max(1, whole), phase.epochs or 1

    def __call__(
        self, phase: Phase, found: LabelState, derive: Derive, epoch: int, start: int
    ) -> Iterator[tuple[int, dict[str, Part]]]:
        """Give the number and the parts of each batch of an epoch, from number ``start`` on.

        A stream of pairs is left out while no pairs are known.

        Args:
            found: the labels; a stream uses the present or, with lag 1, the previous ones.
            derive: makes a seed from its purpose, the epoch and the number of the batch.
        """
        batches = self.epoch_length(phase, found)[0] * self.schedule.accumulate
        orders: dict[str, np.ndarray] = {}
        streams = {
            name: stream
            for name, stream in phase.streams.items()
            if stream.of != "pairs" or len(self._find_members(stream, found))
        }
        loaders = []
        for name, stream in streams.items():
            rng = np.random.default_rng(derive(f"order {name}", epoch))
            if stream.per_class:
                own = _labels_of(stream, found)
                order = class_balanced(own, stream.batch, stream.per_class, batches, rng)
            else:
                members = self._find_members(stream, found)
                if len(members) == 0 and stream.of == "unlabelled":
                    raise FewLabelsError(
                        f"no image is left for stream {name!r} of phase {phase.name!r}: every one "
                        "has a label; lower data.labels, or set strategy.unlabelled: all"
                    )
                order = draw_shuffled(members, stream.batch, batches, rng)
            orders[name] = mine = order[start:, self._slice_own_rows(stream)]
            if stream.of == "pairs" and found.pairs is not None:
                mine = np.concatenate([found.pairs.left[mine], found.pairs.right[mine]], 1)
            loaders.append(self.pixels.iterate_batches(mine.tolist(), self.workers))
        for number, drawn in enumerate(zip(*loaders, strict=True), start):
            batch = {}
            for (name, stream), (indices, images) in zip(streams.items(), drawn, strict=True):
                seeds = [
                    derive(f"view {name} {i}", epoch, number)
                    for i in range(len(stream.views) * (2 if stream.of == "pairs" else 1))
                ]
                labels, weights = _labels_of(stream, found), _weights_of(stream, found)
                if stream.of == "pairs" and found.pairs is not None:
                    own = orders[name][number - start]
                    part = self._make_pair_part(stream, found.pairs, own, labels, seeds, images)
                    places = found.pairs.left[own]
                else:
                    part = self._make_part(stream, labels, seeds, indices, images)
                    places = indices.numpy()
                batch[name] = part._replace(weights=self._weigh_labels(stream, weights, places))
            yield number, batch

    def _find_members(self, stream: Stream, found: LabelState) -> np.ndarray:
        """Positions of a stream's samples among the training images."""
        if stream.of == "pairs":
            return np.arange(0 if found.pairs is None else len(found.pairs.left))
        labelled = _labels_of(stream, found) >= 0
        chosen = {"labelled": labelled, "unlabelled": ~labelled}.get(stream.of)
        return np.arange(len(labelled)) if chosen is None else np.flatnonzero(chosen)

    def _slice_own_rows(self, stream: Stream) -> slice:
        share = stream.batch // self.processes
        return slice(self.rank * share, (self.rank + 1) * share)

    def _make_part(
        self, stream: Stream, labels: np.ndarray, seeds: list[int], indices: Tensor, images: Tensor
    ) -> Part:
        views = self._draw_views(stream, seeds, images)
        own = torch.from_numpy(labels)[indices]
        if stream.of in ("unlabelled", "all"):
            own = torch.full_like(own, -1)
        return Part(indices.to(self.device), own.to(self.device), views)

    def _weigh_labels(
        self, stream: Stream, weights: np.ndarray | None, places: np.ndarray
    ) -> Tensor | None:
        """The weights (B,) of the labels at ``places``; None where each is 1 or they are hidden."""
        if weights is None or stream.of in ("unlabelled", "all") or (weights[places] == 1).all():
            return None
        return torch.from_numpy(weights[places]).to(self.device)

    def _make_pair_part(
        self,
        stream: Stream,
        pairs: Pairs,
        own: np.ndarray,
        labels: np.ndarray,
        seeds: list[int],
        images: Tensor,
    ) -> Part:
        """The sub-images of the pairs ``own``; ``images`` holds all left images, then all right."""
        half, count = len(own), len(stream.views)
        boxes = [
            torch.from_numpy(2 * b[own] - 1).float() for b in (pairs.left_box, pairs.right_box)
        ]
        left, right = (
            self._draw_views(stream, seed, image, geometry.crop_matrix(box))
            for seed, image, box in zip(
                (seeds[:count], seeds[count:]), (images[:half], images[half:]), boxes, strict=True
            )
        )
        affine = geometry.identity_matrix(half)
        affine[:, :2] = torch.from_numpy(pairs.affine[own])
        points, there = torch.zeros(half, POINTS, 4), torch.zeros(half, POINTS, dtype=torch.bool)
        for row, number in enumerate(own):
            all_points = torch.from_numpy(pairs.points[number]).float()
            some = all_points[
                torch.linspace(0, len(all_points) - 1, min(POINTS, len(all_points))).long()
            ]
            points[row, : len(some)], there[row, : len(some)] = some, True
        places = [torch.from_numpy(side[own]) for side in (pairs.left, pairs.right)]
        known = torch.from_numpy(labels)[places[0]]
        first, second, known, affine, points, there = (
            t.to(self.device) for t in (*places, known, affine, points, there)
        )
        return Part(first, known, left, Partners(second, right, affine, points, there))

    def _draw_views(
        self, stream: Stream, seeds: list[int], images: Tensor, before: Tensor | None = None
    ) -> list[View]:
        images = images.to(self.device, non_blocking=True)
        views = []
        for view, seed in zip(stream.views, seeds, strict=True):
            rng = torch.Generator().manual_seed(seed)
            more = () if before is None else (before,)
            made = view(images, rng, self._slice_own_rows(stream), stream.batch, *more)
            if self.schedule.channels_last:
                pixels = made.images.contiguous(memory_format=torch.channels_last)
                made = made._replace(images=pixels)
            views.append(made)
        return views


def _labels_of(stream: Stream, found: LabelState) -> np.ndarray:
    """The labels (N,) that a stream uses."""
    return found.previous if stream.lag else found.labels


def _weights_of(stream: Stream, found: LabelState) -> np.ndarray | None:
    """The weights (N,) of these labels; None where each is 1."""
    return found.previous_weights if stream.lag else found.weights
