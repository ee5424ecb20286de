"""What the whole run of a recipe will do: how many steps, discoveries and evaluations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fewlabels.contracts import Phase, Stream
from fewlabels.runs.parts import RunParts
from fewlabels.training.loop import Loop


@dataclass
class PhasePlan:
    """The steps of one phase; ``images`` and ``sources`` are those of one step.

    Attributes:
        images: views that a step sees.
        sources: images that are read for a step.
        begins: how often the phase begins.
    """

    steps: int = 0
    images: int = 0
    sources: int = 0
    begins: int = 0


@dataclass
class Plan:
    """Of a whole run, and of its pretraining, whose phases stand beside the others.

    Attributes:
        phases: by :func:`name_stage`: the phase's name, and whether anything was discovered before.
        discoveries: how often is discovered.
        labels: labelled images at the end of each discovery.
        extracted: training images of which features are extracted for discoveries, in all.
        evaluations: how often is evaluated, without the time before training.
        checkpoints: how many are written.
        train, scored: images.
    """

    phases: dict[str, PhasePlan] = field(default_factory=lambda: defaultdict(PhasePlan))
    discoveries: int = 0
    labels: list[int] = field(default_factory=list)
    extracted: int = 0
    evaluations: int = 0
    checkpoints: int = 0
    train: int = 0
    scored: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases."""
        return sum(phase.steps for phase in self.phases.values())


def name_stage(phase: str, discovered: bool) -> str:
    """The key of a phase: a step may do more once something is discovered."""
    return f"{phase}, from the first discovery on" if discovered else phase


def plan_run(parts: RunParts, loops: list[Loop], found: Mapping[str, float]) -> Plan:
    """Walk through the rounds of a run on data of which only the counts are known.

    Args:
        loops: that of the run, and that of its pretraining.
        found: by discovery, the share of its budget that it labels.
    """
    plan = Plan(train=len(parts.data.train), scored=len(parts.scoring.rows))
    for loop in loops:
        for index in range(loop.schedule.total):
            open_round(plan, loop, index, found)
            plan_round(plan, loop, index, evaluates=loop is loops[0])
    return plan


def open_round(plan: Plan, loop: Loop, index: int, found: Mapping[str, float]) -> None:
    """What a round does before it trains; labels go to the first images that have none."""
    schedule, discoverer = loop.schedule, loop.discoverer
    if schedule.drops_discovered_labels(index):
        loop.state.drop_discovered_labels()
    if not discoverer.components or not schedule.begins_with_discovery(index):
        return
    labels, given = loop.state.labels.copy(), discoverer.given
    for name, component in discoverer.components:
        share = found.get(name, 1.0)
        if component.classes is not None and share:
            labels[~given] = np.arange(int((~given).sum())) % component.classes
        elif share:
            budget = int(share * schedule.label_budget(labels, given))
            free = np.flatnonzero(labels < 0)[:budget]
            labels[free] = np.arange(len(free)) % max(1, labels.max() + 1)
    before = loop.state.labels
    loop.state.label_state = loop.state.label_state._replace(labels=labels, previous=before)
    loop.progress.discoveries += 1
    plan.discoveries += 1
    plan.labels.append(int((labels >= 0).sum()))
    passes = sum(1 + need.probabilities for need in discoverer.collect_needs().values())
    plan.extracted += passes * plan.train


def plan_round(plan: Plan, loop: Loop, index: int, evaluates: bool) -> None:
    """The phases of a round, and its end; a pretraining evaluates nothing."""
    schedule, before = loop.schedule, plan.steps
    for phase in loop.strategy.phases(loop.make_round(index)):
        steps, epochs = loop.trainer.batches.epoch_length(phase, loop.state.label_state)
        own = plan.phases[name_stage(phase.name, loop.progress.discoveries > 0)]
        own.steps += steps * epochs
        own.images, own.sources = count_images(phase, schedule.accumulate)
        own.begins += 1
    done = plan.steps - before
    plan.checkpoints += 1 + (done // schedule.checkpoint_every if schedule.checkpoint_every else 0)
    if evaluates:
        plan.evaluations += schedule.ends_with_evaluation(index)
        plan.evaluations += done // schedule.evaluate_steps if schedule.evaluate_steps else 0


def count_images(phase: Phase, accumulate: int) -> tuple[int, int]:
    """Views that a step of a phase sees, and images that are read for them."""
    streams: list[Stream] = list(phase.streams.values())
    pairs = [2 if stream.of == "pairs" else 1 for stream in streams]
    read = [stream.batch * two for stream, two in zip(streams, pairs, strict=True)]
    seen = [own * len(stream.views) for stream, own in zip(streams, read, strict=True)]
    return accumulate * sum(seen), accumulate * sum(read)


def count_module_bytes(loops: list[Loop]) -> int:
    """Bytes of all parameters and buffers of the modules of some loops."""
    modules: list[Any] = [m for loop in loops for m in loop.modules.modules.values()]
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    return sum({id(t): t.numel() * t.element_size() for t in tensors}.values())
