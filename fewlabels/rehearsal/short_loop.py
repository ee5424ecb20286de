"""Makes a loop take few steps of few images, and measures what it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from signal import SIGINT
from typing import Any

import numpy as np
import torch

from fewlabels.contracts import LabelState, Phase, Stream
from fewlabels.data.cached_features import CachedFeatures
from fewlabels.models.image_model import ImageModel
from fewlabels.models.modes import batch_norms
from fewlabels.rehearsal.memory import Peak
from fewlabels.rehearsal.plan import count_images, name_stage
from fewlabels.rehearsal.stopwatch import Lap, Stopwatch
from fewlabels.runs.frozen_baseline import count_frozen
from fewlabels.runs.parts import RunParts
from fewlabels.training.batches import Batches
from fewlabels.training.loop import Loop

FIRST, LEAST, MOST = 2, 2, 40
"""Steps of a phase before it is known how long one takes; and the bounds of its steps after."""


@dataclass
class Limits:
    """How much of the run is done.

    Attributes:
        divisor: of the images of each stream in a step.
        seconds: of the steps of a phase in a round.
        random: whether weights are random where the recipe's are not.
        halted: whether the run was stopped to be gone on with.
        peak: of memory.
    """

    divisor: int = 1
    seconds: float = 2.0
    random: bool = False
    halted: bool = False
    peak: Peak = field(default_factory=Peak)


class TimedBatches:
    """The batches of a loop, each of which is a lap while it is made."""

    def __init__(self, batches: Batches, watch: Stopwatch, loop: Loop) -> None:
        self.batches, self.watch, self.loop = batches, watch, loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def __call__(self, phase: Phase, *given: Any) -> Iterator[Any]:
        """As the batches themselves."""
        items = iter(self.batches(phase, *given))
        return self.watch.iterate(items, f"loader {find_stage(self.loop, phase)}")


def find_stage(loop: Loop, phase: Phase) -> str:
    """The key under which a phase is planned."""
    return name_stage(phase.name, loop.progress.discoveries > 0)


def shorten_loop(parts: RunParts, loop: Loop, watch: Stopwatch, limits: Limits) -> None:
    """Change one loop, before it runs, into one of few steps, of which each part is measured."""
    limits.peak.note_made()
    cut_batches(loop, limits)
    cut_steps(loop, watch, limits)
    if limits.random and loop.begun_from is None:
        settle_norms(loop)
    measure_steps(loop, watch, limits.peak)
    trained, scored = parts.pixels, parts.searched
    watch.watch_method(loop.strategy, "begin", lambda phase, *_: f"begin {find_stage(loop, phase)}")
    watch.watch_method(
        loop, "extract", lambda *_: "extract", lambda m, f, rows=None: _count(trained, rows)
    )
    watch.watch_method(loop, "_save_checkpoint", lambda: "checkpoint")
    for name, component in loop.discoverer.components:
        watch.watch_method(component, "discover", lambda *_, name=name: f"discovery {name}")
    if loop.strategy is parts.strategy:  # not of a pretraining, which evaluates nothing
        halt_in_second_round(loop, limits)
        evaluator: Any = loop.evaluator
        watch.watch_method(
            evaluator, "extract", lambda *_: "extract scored", lambda *_: _count(scored, None)
        )
        watch.watch_method(evaluator.scoring, "make_rows", lambda *_: "scoring")
        seen = count_frozen(parts.recipe, parts)
        watch.watch_method(evaluator, "frozen", lambda: "frozen backbone", lambda: seen)
        for pixels in {id(p): p for p in (trained, scored)}.values():
            method = "read_features" if isinstance(pixels, CachedFeatures) else "decode_all"
            watch.watch_method(pixels, method, lambda *_: "decode", lambda *_, p=pixels: len(p))


def _count(pixels: Any, rows: np.ndarray | None) -> int:
    return len(pixels) if rows is None else len(rows)


def cut_batches(loop: Loop, limits: Limits) -> None:
    """Give each stream fewer images a step, in the same proportions and of as many a class."""
    original = loop.strategy.phases

    def cut(stream: Stream) -> Stream:
        unit = stream.per_class or 1
        least = min(stream.batch, 2 * unit)
        return replace(stream, batch=max(least, stream.batch // limits.divisor // unit * unit))

    def phases(round: Any) -> list[Phase]:
        return [
            replace(phase, streams={name: cut(s) for name, s in phase.streams.items()})
            for phase in original(round)
        ]

    if limits.divisor > 1:
        loop.strategy.phases = phases  # type: ignore[method-assign]


def cut_steps(loop: Loop, watch: Stopwatch, limits: Limits) -> None:
    """Let each phase of a round take few steps: as many as fit into a time, once that is known."""
    batches, chosen = loop.trainer.batches, {}
    original = batches.epoch_length

    def epoch_length(phase: Phase, found: LabelState) -> tuple[int, int]:
        key = (loop.progress.round, phase.name)
        if key not in chosen:
            steps, epochs = original(phase, found)
            lap = watch.average(f"whole {find_stage(loop, phase)}", skip=1)
            once = min(lap.seconds, lap.cpu)  # what else the machine does counts little
            wanted = int(limits.seconds / once) if once else FIRST
            chosen[key] = min(steps * epochs, max(LEAST, min(MOST, wanted)))
        return chosen[key], 1

    batches.epoch_length = epoch_length  # type: ignore[method-assign]
    loop.trainer.batches = TimedBatches(batches, watch, loop)  # type: ignore[assignment]


def halt_in_second_round(loop: Loop, limits: Limits) -> None:
    """Stop the run as Ctrl-C does, after the first step of its second round, to be resumed."""
    original = loop.signals.agree

    def agree(step: int | None = None) -> Any:
        late = loop.progress.round >= 1 or loop.schedule.total == 1
        if step is not None and late and not limits.halted:
            limits.halted = True
            return SIGINT
        return original() if step is None else original(step)

    loop.signals.agree = agree  # type: ignore[method-assign]


def measure_steps(loop: Loop, watch: Stopwatch, peak: Peak) -> None:
    """Measure forward, backward, and the rest of each step: optimiser, averages and logging."""
    inner = loop.trainer.steps

    def steps(phase: Phase) -> Iterator[int]:
        watch.stage = find_stage(loop, phase)
        images = count_images(phase, loop.schedule.accumulate)[0]
        items = inner(phase)
        while True:
            peak.note()
            begin = watch.read_clocks()
            with watch.measure(f"rest {watch.stage}"):
                step = next(items, None)
            if step is None:
                watch.laps[f"rest {watch.stage}"].pop()
                return
            now = watch.read_clocks()
            peak.note_step(count_fixed_bytes(loop, phase))
            whole = watch.laps[f"whole {watch.stage}"]
            whole.append(Lap(now[0] - begin[0], now[1] - begin[1], images))
            yield step

    loop.trainer.steps = steps  # type: ignore[method-assign]
    watch.watch_method(loop.strategy, "losses", lambda *_: f"forward {watch.stage}")
    watch.watch_method(loop.trainer.accelerator, "backward", lambda *_: f"backward {watch.stage}")


def count_fixed_bytes(loop: Loop, phase: Phase) -> int:
    """Bytes of a phase's gradients, and of what its optimiser keeps."""
    learning = [parameter for _, parameter in loop.trainer.named_parameters(phase)]
    states = loop.trainer.optimizers[phase.name].state.values()
    kept = [value for state in states for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.numel() * tensor.element_size() for tensor in (*learning, *kept))


@torch.no_grad()
def settle_norms(loop: Loop) -> None:
    """Give batch norms of random weights the statistics of noise, so that numbers stay finite."""
    generator = torch.Generator().manual_seed(0)
    for model in loop.modules.modules.values():
        if not isinstance(model, ImageModel):
            continue
        norms: list[Any] = list(batch_norms(model))
        modes = [(norm.training, norm.momentum) for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        images = torch.rand(4, *model.input_shape, generator=generator)
        model(images.to(loop.accelerator.device))
        for norm, (training, momentum) in zip(norms, modes, strict=True):
            norm.train(training)
            norm.momentum = momentum
