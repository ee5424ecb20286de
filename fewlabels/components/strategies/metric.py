"""Metric: deep metric learning on given labels or on clusters; the baseline of TAC-CCL and SAN."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from itertools import takewhile
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from fewlabels.contracts import (
    Average,
    Batch,
    Build,
    Clock,
    Count,
    Extract,
    LabelState,
    Memory,
    Models,
    Phase,
    Round,
    Stream,
    recentre_loss,
)
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import DataError
from fewlabels.models.memory import CrossBatchMemory
from fewlabels.registry import strategies


@strategies.register("metric")
class Metric:
    """Trains an embedder with pair losses and a memory, on clusters or labels (Section 4.3.2).

    With a discovery such as ``kmeans`` the labels are clusters. With ``data.labels: all`` and no
    discovery it is supervised metric learning. With ``momentum`` the memory is a momentum memory
    bank: a slowly moving copy of the student fills it, so that entries from many batches are
    consistent.

    The proxies of a loss that has one for each class, such as ``pml:proxy_anchor_loss``, are set to
    the new centres at each discovery that gives centres.

    A loss that takes ``side`` and has an attribute of that name gets the side output called so, and
    others get all.

    Args:
        batch: images in a step, over all processes, before views.
        per_class: images of one cluster or class in a batch; a divisor of ``batch``.
        views: random views of each image in a batch.
        memory: size of the memory of past embeddings: ``all`` training images, a number, or null
            for no memory.
        one_slot_per_image: the memory holds the latest embedding of each image; false: a queue.
        memory_start: optimiser steps before losses use the memory.
        momentum: decay of the moving average whose embeddings fill the memory; null: the student's
            own.
        head: ``pca`` starts the head from the principal components of the frozen features.
        average: decay of a moving average of the student, which is then evaluated and saved; null:
            the student itself is.

    Raises:
        DataError: options that contradict each other.

    Source: Li (2021), chapter 4, Section 4.3.2, and chapter 5; momentum: He et al., "Momentum
    contrast for unsupervised visual representation learning", CVPR 2020, arXiv 1911.05722.
    Recipe: `strategy: {name: metric, batch: 80, per_class: 5, memory: all}`
    """

    task = "retrieval"
    supplies: tuple[str, ...] = ("embeddings", "labels", "indices", "memory", "centres", "side")
    terms: tuple[str, ...] = ()
    weighs_labels = False
    weights: Mapping[str, Ramp] = {}

    def __init__(
        self,
        *,
        batch: Count = 80,
        per_class: Count = 5,
        views: Count = 1,
        memory: Count | Literal["all"] | None = "all",
        one_slot_per_image: bool = True,
        memory_start: Annotated[int, Ge(0)] = 0,
        momentum: Annotated[float, Interval(gt=0, lt=1)] | None = None,
        head: Literal["random", "pca"] = "random",
        average: Annotated[float, Interval(gt=0, lt=1)] | None = None,
    ) -> None:
        if batch % per_class:
            raise DataError(
                f"strategy: batch {batch} is no multiple of per_class {per_class}; change one"
            )
        if one_slot_per_image and isinstance(memory, int):
            raise DataError(
                f"strategy: a memory of {memory} is a queue, which has no slot for each image; "
                "set one_slot_per_image: false, or memory: all"
            )
        if momentum is not None and memory is None:
            raise DataError(
                "strategy: momentum fills a memory and there is none; set memory, or leave it out"
            )
        self.batch, self.per_class, self.views, self.head = batch, per_class, views, head
        self.memory, self.one_slot = memory, one_slot_per_image
        self.memory_start = memory_start
        decays = {"average": average, "momentum": momentum}
        self.averages = {
            name: Average("student", Ramp(end=d)) for name, d in decays.items() if d is not None
        }
        self.deploys = "student" if average is None else "average"
        self.centres: Tensor | None = None

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student, its memory, and the losses as ``loss.NAME``."""
        self.view = build.view
        student = build.embedder()
        modules: dict[str, nn.Module] = {"student": student}
        for name in self.averages:
            modules[name] = copy.deepcopy(student).requires_grad_(False)
        if self.memory is not None:
            size = None if self.memory == "all" else self.memory
            modules["memory"] = CrossBatchMemory(
                build.size, size, build.embedding_size, one_slot_per_image=self.one_slot
            )
        self.loss_inputs: dict[str, list[str]] = {}
        if self.head == "pca" and not isinstance(student.head, nn.Linear):
            raise DataError("strategy.head: pca needs a head; set model.embedding_size")
        for name, loss in build.losses().items():
            modules[f"loss.{name}"] = loss
            inputs = inspect.signature(loss.forward).parameters.values()
            if self.memory is None and getattr(loss, "use_memory", False):
                raise DataError(
                    f"loss {name!r} has use_memory: true, and strategy.memory is null; change "
                    "one of the two"
                )
            ours = takewhile(lambda i: i.default is i.empty or i.name in self.supplies, inputs)
            self.loss_inputs[name] = [i.name for i in ours]
        learning = [n for n in modules if n.startswith("loss.") and list(modules[n].parameters())]
        self.trains = ("student", *learning)
        return modules

    def start(self, models: Models, extract: Extract) -> None:
        """Start the head from principal components, for ``head: pca``."""
        if self.head == "pca":
            student: Any = models.plain("student")
            start_from_principal_components(student, extract("student", "features"))
            for name in self.averages:
                models.plain(name).load_state_dict(student.state_dict())

    def seen_through(self, model: str, discoveries: int) -> str:
        """Every model by its own name."""
        return model

    def phases(self, round: Round) -> list[Phase]:
        """One phase over all labelled images, in class-balanced batches."""
        stream = Stream("labelled", self.batch, (self.view,) * self.views, self.per_class)
        return [Phase("embed", self.trains, {"images": stream}, self.averages, epochs=round.epochs)]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Take over new clusters: the centres, and the labels of the memory's entries."""
        if found.centres is not None:
            device = next(models.plain("student").parameters()).device
            self.centres = torch.from_numpy(found.centres).to(device)
            losses: list[Any] = [models.plain(f"loss.{name}") for name in self.loss_inputs]
            for loss in losses:
                if found.changed:
                    recentre_loss(loss, self.centres)
        if self.memory is not None:
            memory: Any = models.plain("memory")
            memory.relabel_entries(torch.from_numpy(found.labels))

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Every loss of the recipe, on the batch of all processes."""
        given = self.given(models, batch, clock)
        return {
            name: models[f"loss.{name}"](*(given[i] for i in inputs))
            for name, inputs in self.loss_inputs.items()
        }

    def given(self, models: Models, batch: Batch, clock: Clock) -> dict[str, Any]:
        """What is given to losses, by the names of their inputs."""
        part = batch["images"]
        images = torch.cat([view.images for view in part.views])
        output = models["student"](images)
        embeddings = self._gather_views(models, output.embedding)
        keys = embeddings
        if "momentum" in self.averages:
            with torch.no_grad():
                keys = self._gather_views(models, models["momentum"](images).embedding)
        labels = models.gather(part.labels).repeat(self.views)
        indices = models.gather(part.indices).repeat(self.views)
        return {
            "embeddings": embeddings,
            "labels": labels,
            "indices": indices,
            "memory": self.update_memory(models, clock, keys, labels, indices),
            "centres": self.centres,
            "side": self._gather_side(models, output.side),
        }

    def _gather_side(self, models: Models, side: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The side outputs of all processes that losses ask for, in the order of images."""
        asking = [name for name, inputs in self.loss_inputs.items() if "side" in inputs]
        if not asking:
            return {}
        wanted = {str(getattr(models.plain(f"loss.{name}"), "side", None)) for name in asking}
        if not wanted <= side.keys():  # a loss names none, or a wrong one, and then tells which are
            wanted = set(side)
        return {name: self._gather_views(models, side[name]) for name in side if name in wanted}

    def _gather_views(self, models: Models, embedding: Tensor) -> Tensor:
        """Gather embeddings of all processes, view by view, in the order of a single process."""
        return torch.cat([models.gather(rows) for rows in embedding.chunk(self.views)])

    def update_memory(
        self, models: Models, clock: Clock, embeddings: Tensor, labels: Tensor, indices: Tensor
    ) -> Memory | None:
        """Add a batch to the memory and return the memory; None before ``memory_start``."""
        if self.memory is None:
            return None
        enqueue: Any = models.plain("memory")
        memory: Memory = enqueue.enqueue_batch(embeddings.detach(), labels, indices)
        return None if clock.step < self.memory_start else memory


@torch.no_grad()
def start_from_principal_components(embedder: Any, features: np.ndarray) -> None:
    """Set a linear head to the first principal components of ``features`` (N, F).

    Raises:
        DataError: fewer images or features than the head has outputs.
    """
    head: nn.Linear = embedder.head
    if min(features.shape) < head.out_features:
        raise DataError(
            f"strategy.head: pca gives at most {min(features.shape)} components of these features; "
            f"lower model.embedding_size ({head.out_features}) or set head: random"
        )
    data = torch.from_numpy(features).double()
    mean = data.mean(0)
    _, components = torch.linalg.eigh((data - mean).T @ (data - mean))  # ascending
    weight = components.flip(1)[:, : head.out_features].T  # (D, F)
    largest = weight.abs().argmax(1, keepdim=True)
    weight = weight * weight.gather(1, largest).sign()  # the sign of a component is arbitrary
    head.weight.copy_(weight)
    head.bias.copy_(-(weight @ mean))
