"""Training of one phase: what a strategy declares becomes optimiser steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from fewlabels.contracts import Clock, Extract, Phase, Round, Strategy, collect_terms
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import ComponentError, FewLabelsError, nearest
from fewlabels.models.modes import set_training
from fewlabels.ops.seeds import derive
from fewlabels.training.averages import update_average
from fewlabels.training.batches import Batches
from fewlabels.training.metric_log import Metrics
from fewlabels.training.modules import Running
from fewlabels.training.optimizers import TICKS
from fewlabels.training.round_schedule import Plan
from fewlabels.training.state import Progress, State

LOG = logging.getLogger(__name__)


class Training:
    """Owns optimisers and schedules, one a phase; moves the state on.

    Args:
        weights: of losses; one without a weight counts 1.
        make_optimizer: from named parameters.
        make_scheduler: from an optimiser and the epochs until weights begin again.
        reload: puts back the modules of the checkpoint that the run resumed from.
        stepped: called after each optimiser step, with the steps so far.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        strategy: Strategy,
        running: Running,
        batches: Batches,
        state: State,
        plan: Plan,
        seed: int,
        weights: Mapping[str, Ramp],
        make_optimizer: Callable[..., Any],
        make_scheduler: Callable[..., Any],
        extract: Extract,
        metrics: Metrics,
        reload: Callable[[], None],
        stepped: Callable[[int], None],
    ) -> None:
        self.accelerator, self.strategy, self.running = accelerator, strategy, running
        self.batches, self.state, self.plan, self.seed = batches, state, plan, seed
        self.weights, self.extract, self.metrics = weights, extract, metrics
        self.make_optimizer, self.make_scheduler = make_optimizer, make_scheduler
        self.reload, self.stepped = reload, stepped
        self.logged: dict[str, float] = {}  # the loss terms of the last step that was logged
        self.restart()

    @property
    def at(self) -> Progress:
        """Where the run stands."""
        return self.state.at

    def restart(self) -> None:
        """Forget optimisers and schedules; the next phase makes new ones."""
        self.optimizers: dict[str, Any] = {}
        self.schedulers: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Of the optimisers, and of the scaler of mixed precision."""
        state = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any], phases: list[Phase]) -> None:
        """Go on with the optimisers of a checkpoint."""
        self.restart()
        for phase in phases:
            if phase.name in state:
                self.start(phase)
                self.optimizers[phase.name].load_state_dict(state[phase.name])
        if "scaler" in state and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def __call__(self, phase: Phase) -> None:
        """Train one phase to its end, from where the state stands."""
        self.start(phase)
        optimizer, scheduler = self.optimizers[phase.name], self.schedulers[phase.name]
        resumed = self.at.epoch or self.at.batch
        self._begin_averages(phase)
        self.running.average_buffers()  # so that all processes begin with the same
        self.strategy.begin(phase, self.running, self.state.found, self.extract)
        if resumed:  # begin() has set what no module holds; the modules stand further on
            self.reload()
        steps, epochs = self.batches.length(phase, self.state.found)
        for epoch in range(self.at.epoch, epochs):
            self.at.epoch = epoch
            bar = tqdm(
                self.batches(phase, self.state.found, self._derive, epoch, self.at.batch),
                f"round {self.at.round + 1}/{self.plan.total} epoch {epoch + 1}/{epochs}",
                total=steps * self.plan.accumulate,
                initial=self.at.batch,
                disable=None if self.accelerator.is_main_process else True,
                leave=False,
            )
            self._set_training(phase)
            for number, batch in bar:
                torch.manual_seed(
                    self._derive("step", epoch, number, self.accelerator.process_index)
                )
                trained = [self.running[name] for name in phase.trains]
                with self.accelerator.accumulate(*trained):
                    clock = Clock(self.at.round, epoch, self.at.clock(phase.name))
                    with self.accelerator.autocast(), collect_terms() as terms:
                        losses = _scalars(self.strategy.losses(phase, self.running, batch, clock))
                        losses |= {n: torch.stack(each).mean() for n, each in terms.items()}
                        weighed = {n: self._weight(n)(clock.step) * v for n, v in losses.items()}
                        total = torch.stack(list(weighed.values())).sum()
                    self.accelerator.backward(total)
                    if self.accelerator.sync_gradients and self.plan.clip is not None:
                        parameters = [p for module in trained for p in module.parameters()]
                        self.accelerator.clip_grad_norm_(parameters, self.plan.clip)
                    optimizer.step()
                    optimizer.zero_grad()
                self.at.batch = number + 1
                if self.accelerator.sync_gradients:
                    self._stepped(phase, scheduler, losses, total)
            self.at.epoch, self.at.batch = epoch + 1, 0
        self.state.found = self.state.found._replace(fresh=False)
        self._remark(phase)

    def _remark(self, phase: Phase) -> None:
        """Pass on what blocks say of how their terms ended."""
        blocks: list[Any] = [b for n in phase.trains for b in self.running.plain(n).modules()]
        for block in blocks:
            told = hasattr(block, "remark") and self.logged.keys() >= set(block.terms)
            remark = block.remark(self.logged) if told else None
            if remark and self.accelerator.is_main_process:
                LOG.warning(remark)

    def _begin_averages(self, phase: Phase) -> None:
        """Copy the source of each average that starts at the first discovery, once there is one."""
        for name, average in phase.averages.items():
            waits = average.starts == "first_discovery" and name not in self.at.begun
            if waits and self.at.discoveries:
                source = self.running.plain(average.of)
                self.running.plain(name).load_state_dict(source.state_dict())
                self.at.begun.append(name)

    def _stepped(self, phase: Phase, scheduler: Any, losses: Any, total: Any) -> None:
        """After an optimiser step: averages, schedule, log, checkpoint."""
        clock = self.at.clock(phase.name)
        for name, average in phase.averages.items():
            if average.starts == "now" or name in self.at.begun:
                source, target = self.running.plain(average.of), self.running.plain(name)
                update_average(target, source, average.decay(clock), clock, average.buffers)
        rate = self.optimizers[phase.name].param_groups[0]["lr"]
        if self.at.step % self.plan.log_every == 0:
            stacked = torch.stack([total.detach(), *(v.detach() for v in losses.values())])
            whole, *each = self.accelerator.reduce(stacked, "mean").tolist()  # of all processes
            values = dict(zip(losses, each, strict=True))
            bad = [name for name, value in values.items() if not np.isfinite(value)]
            if bad:
                raise FewLabelsError(
                    f"loss {bad[0]} is {values[bad[0]]} at step {self.at.step}; lower "
                    "optimizer.lr, set train.clip, or use precision bf16 instead of fp16"
                )
            row = {"kind": "train", "phase": phase.name, "epoch": self.at.epoch, "lr": rate}
            row |= {"loss": whole, **values}
            self.logged = values
            self.metrics.write([row], round=self.at.round, step=self.at.step)
        self.at.step += 1
        self.at.steps[phase.name] = self.at.steps.get(phase.name, 0) + 1
        seen = sum(s.batch for s in phase.streams.values() if s.of != "labelled")
        seen *= self.plan.accumulate
        self.at.images[phase.name] = self.at.images.get(phase.name, 0) + seen
        if scheduler is not None:
            steps, epochs = self.batches.length(phase, self.state.found)
            share = (self.at.epoch + self.at.batch / (steps * self.plan.accumulate)) / epochs
            before, _ = self.plan.stretch(self.at.round)
            moved = before + share * self.plan.epochs(self.at.round)
            scheduler.step_update(round(moved * TICKS))
        self.stepped(self.at.step)

    def _weight(self, name: str) -> Ramp:
        return self.weights.get(name, Ramp(end=1.0))

    def _derive(self, purpose: str, epoch: int, *more: int) -> int:
        return derive(self.seed, purpose, self.at.round, self.at.phase, epoch, *more)

    def _set_training(self, phase: Phase) -> None:
        for name, module in self.running.modules.items():
            own = name in phase.averages and phase.averages[name].buffers == "own"
            if name in phase.trains or own:
                set_training(module, self.plan.freeze_batchnorm != "none")
            else:
                module.eval()

    def named(self, phase: Phase) -> list[tuple[str, nn.Parameter]]:
        """The parameters that a phase trains, by their paths."""
        return [
            (f"{name}.{path}", parameter)
            for name in phase.trains
            for path, parameter in self.running.plain(name).named_parameters()
            if parameter.requires_grad
        ]

    def start(self, phase: Phase) -> None:
        """Wrap what a phase trains and make its optimiser, at its first use."""
        if phase.name in self.optimizers:
            return
        self.batches.check(phase)
        optimizer = self.make_optimizer(self.named(phase))
        for name in phase.trains:
            self.running.wrap(name)
        epochs = self.plan.stretch(self.at.round)[1]
        self.schedulers[phase.name] = self.make_scheduler(optimizer, epochs=epochs)
        self.optimizers[phase.name] = self.accelerator.prepare_optimizer(optimizer)


def check_strategy(strategy: Strategy, round: Round, modules: Sequence[str]) -> None:
    """Refuse names of modules that a strategy does not have.

    Raises:
        ComponentError: so, or phases that are none.
    """
    phases = strategy.phases(round)
    if not phases or not all(isinstance(phase, Phase) for phase in phases):
        raise ComponentError(f"strategy: phases() gave {phases!r}, expected a list of Phase")
    named = [("deploys", strategy.deploys)]
    for phase in phases:
        named += [(f"phase {phase.name!r} trains", name) for name in phase.trains]
        for name, average in phase.averages.items():
            named += [(f"an average of phase {phase.name!r} is", name), ("it is of", average.of)]
    for says, name in named:
        if name not in modules and name.partition(".")[0] not in modules:
            raise ComponentError(
                f"strategy: {says} {name!r}, and modules() has no such one"
                f"{nearest(str(name), modules)} (all: {', '.join(modules)})"
            )


def _scalars(losses: Any) -> dict[str, Tensor]:
    """What a strategy gave, if it is loss terms by name."""
    if isinstance(losses, Mapping) and all(
        isinstance(value, Tensor) and value.ndim == 0 for value in losses.values()
    ):
        return dict(losses)
    raise ComponentError("strategy: losses() gave no mapping from names to tensors of one number")
