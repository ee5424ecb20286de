"""Trains one phase: turns what a strategy declares into optimiser steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fewlabels.contracts import Clock, Phase, Round, Strategy, collect_terms
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import ComponentError, FewLabelsError, suggest_nearest
from fewlabels.models.modes import set_training
from fewlabels.ops.seeds import derive_seed
from fewlabels.training.averages import update_average
from fewlabels.training.batches import Batches
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.modules import TrainingModules
from fewlabels.training.optimizers import TICKS, drop_frozen_gradients
from fewlabels.training.round_schedule import RoundSchedule
from fewlabels.training.small_batches import refuse_small_batches
from fewlabels.training.state import Progress, State


@dataclass(frozen=True)
class Objective:
    """The weights of losses, and how optimisers and schedules are made.

    Attributes:
        weights: weights of losses by name; a loss without one has weight 1.
        make_optimizer: makes one from named parameters.
        make_scheduler: makes one from an optimiser and the epochs between restarts of weights.
    """

    weights: Mapping[str, Ramp]
    make_optimizer: Callable[..., Any]
    make_scheduler: Callable[..., Any]

    def weigh_losses(self, losses: Mapping[str, Tensor], step: int) -> Tensor:
        """The sum of the losses, each times its weight at this step of its phase."""
        ramps = {name: self.weights.get(name, Ramp(end=1.0)) for name in losses}
        return torch.stack([ramps[name](step) * loss for name, loss in losses.items()]).sum()


class PhaseTrainer:
    """Trains phases: holds one optimiser and schedule per phase, and updates the state.

    ``logged`` are the loss terms of the last step that was logged.
    """

    def __init__(
        self,
        strategy: Strategy,
        modules: TrainingModules,
        batches: Batches,
        state: State,
        schedule: RoundSchedule,
        objective: Objective,
        seed: int,
        metrics: MetricLog,
    ) -> None:
        self.strategy, self.modules, self.accelerator = strategy, modules, modules.accelerator
        self.batches, self.state, self.schedule = batches, state, schedule
        self.objective, self.seed, self.metrics = objective, seed, metrics
        self.logged: dict[str, float] = {}
        self.forget_optimizers()

    @property
    def progress(self) -> Progress:
        """The position of the run."""
        return self.state.progress

    def forget_optimizers(self) -> None:
        """Drop optimisers and schedules; the next phase makes new ones."""
        self.optimizers: dict[str, Any] = {}
        self.schedulers: dict[str, Any] = {}
        self.unused: dict[str, Any] = {}  # what an optimiser is before its first step
        self.saved: dict[str, Any] = {}  # of phases that have not come up again since a checkpoint

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimisers, and of the scaler of mixed precision."""
        own = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        state = {**self.saved, **own}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any], phases: list[Phase]) -> None:
        """Go on with the optimisers of a checkpoint: of these phases now, of others when due."""
        self.forget_optimizers()
        self.saved = {name: own for name, own in state.items() if name != "scaler"}
        for phase in phases:
            if phase.name in state:
                self.prepare_phase(phase)
        if "scaler" in state and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def prepare_phase(self, phase: Phase) -> None:
        """Wrap the modules that a phase trains and make its optimiser, unless already done."""
        if phase.name in self.optimizers:
            return
        self.batches.check_streams(phase)
        optimizer = self.objective.make_optimizer(self.named_parameters(phase))
        for name in phase.trains:
            self.modules.wrap_for_training(name)
        epochs = self.schedule.epochs_between_restarts(self.progress.round)[1]
        self.schedulers[phase.name] = self.objective.make_scheduler(optimizer, epochs=epochs)
        self.optimizers[phase.name] = self.accelerator.prepare_optimizer(optimizer)
        self.unused[phase.name] = copy.deepcopy(optimizer.state_dict())
        if phase.name in self.saved:
            try:
                self.optimizers[phase.name].load_state_dict(self.saved.pop(phase.name))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise FewLabelsError(
                    f"the checkpoint's optimiser does not fit phase {phase.name!r} ({error}); "
                    "resume with the run folder's own recipe.yaml"
                ) from error

    def begin_phase(self, phase: Phase, resumed: bool) -> None:
        """Make a phase ready for its first step, before the strategy's ``begin``.

        Args:
            resumed: the phase goes on from a checkpoint within it.
        """
        self.prepare_phase(phase)
        self.begin_averages(phase)
        self._set_training(phase)
        if phase.renews and not resumed:
            self._renew(phase.name)

    def _renew(self, name: str) -> None:
        """Begin with a phase's optimiser and clock anew; its rate stays where the schedule is."""
        optimizer, at = self.optimizers[name], self.progress
        rates = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(self.unused[name])
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        at.restarted[name] = at.steps.get(name, 0)

    def named_parameters(self, phase: Phase) -> list[tuple[str, nn.Parameter]]:
        """The parameters that a phase trains, by their paths."""
        return [
            (f"{name}.{path}", parameter)
            for name in phase.trains
            for path, parameter in self.modules.plain(name).named_parameters()
            if parameter.requires_grad
        ]

    def begin_averages(self, phase: Phase) -> None:
        """Copy the source of each average that starts at the first discovery, once there is one."""
        for name, average in phase.averages.items():
            waits = average.starts == "first_discovery" and name not in self.progress.begun
            if waits and self.progress.discoveries:
                source = self.modules.plain(average.of)
                self.modules.plain(name).load_state_dict(source.state_dict())
                self.progress.begun.append(name)

    def steps(self, phase: Phase) -> Iterator[int]:
        """Train one phase to its end, from the present position: one optimiser step per iteration.

        Yields:
            The optimiser steps of the run so far.
        """
        at, accumulate = self.progress, self.schedule.accumulate
        steps, epochs = self.batches.epoch_length(phase, self.state.label_state)
        for epoch in range(at.epoch, epochs):
            at.epoch = epoch
            bar = tqdm(
                self.batches(phase, self.state.label_state, self._derive_seed, epoch, at.batch),
                f"round {at.round + 1}/{self.schedule.total} epoch {epoch + 1}/{epochs}",
                total=steps * accumulate,
                initial=at.batch,
                disable=None if self.accelerator.is_main_process else True,
                leave=False,
            )
            self._set_training(phase)
            for number, batch in bar:
                rank = self.accelerator.process_index
                torch.manual_seed(self._derive_seed("step", epoch, number, rank))
                losses, total = self._backward_batch(phase, batch)
                at.batch = number + 1
                if self.accelerator.sync_gradients:
                    self._finish_step(phase, losses, total)
                    yield at.step
            at.epoch, at.batch = epoch + 1, 0

    def _backward_batch(self, phase: Phase, batch: Any) -> tuple[dict[str, Tensor], Tensor]:
        """Compute a batch's gradients, and step if due; give the losses and their weighted sum."""
        trained = [self.modules[name] for name in phase.trains]
        optimizer, at = self.optimizers[phase.name], self.progress
        with self.accelerator.accumulate(*trained):
            clock = Clock(at.round, at.epoch, at.steps_since_restart(phase.name))
            with self.accelerator.autocast(), collect_terms() as terms:
                with refuse_small_batches(phase, self.accelerator.num_processes):
                    given = self.strategy.losses(phase, self.modules, batch, clock)
                losses = _check_losses(given)
                losses |= {name: torch.stack(each).mean() for name, each in terms.items()}
                total = self.objective.weigh_losses(losses, clock.step)
            self.accelerator.backward(total)
            if self.accelerator.sync_gradients:
                drop_frozen_gradients(optimizer, self._count_epochs(phase))
            if self.accelerator.sync_gradients and self.schedule.clip is not None:
                parameters = [p for module in trained for p in module.parameters()]
                self.accelerator.clip_grad_norm_(parameters, self.schedule.clip)
            _move_weights(optimizer, at.step)
            optimizer.zero_grad()
        return losses, total

    def _finish_step(self, phase: Phase, losses: Mapping[str, Tensor], total: Tensor) -> None:
        """After an optimiser step: update averages, log, counters and learning rate."""
        at, name = self.progress, phase.name
        clock = at.steps_since_restart(name)
        for target, average in phase.averages.items():
            if average.starts == "now" or target in at.begun:
                source, kept = self.modules.plain(average.of), self.modules.plain(target)
                update_average(kept, source, average.decay(clock), clock, average.buffers)
        if at.step % self.schedule.log_every == 0:
            self._log_losses(phase, losses, total)
        at.step += 1
        at.steps[name] = at.steps.get(name, 0) + 1
        seen = sum(s.batch for s in phase.streams.values() if s.of != "labelled")
        at.images[name] = at.images.get(name, 0) + seen * self.schedule.accumulate
        if self.schedulers[name] is not None:
            self.schedulers[name].step_update(round(self._count_epochs(phase) * TICKS))

    def _count_epochs(self, phase: Phase) -> float:
        """Epochs since weights restarted, of which a phase of a round is its share."""
        at = self.progress
        steps, epochs = self.batches.epoch_length(phase, self.state.label_state)
        share = (at.epoch + at.batch / (steps * self.schedule.accumulate)) / epochs
        before, _ = self.schedule.epochs_between_restarts(at.round)
        return before + share * self.schedule.count_epochs(at.round)

    def _log_losses(self, phase: Phase, losses: Mapping[str, Tensor], total: Tensor) -> None:
        """A row with the mean of each loss over all processes.

        Raises:
            FewLabelsError: a loss that is not finite.
        """
        rate = self.optimizers[phase.name].param_groups[0]["lr"]
        stacked = torch.stack([total.detach(), *(loss.detach() for loss in losses.values())])
        whole, *each = self.accelerator.reduce(stacked, "mean").tolist()
        values = dict(zip(losses, each, strict=True))
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        if bad:
            raise FewLabelsError(
                f"loss {bad[0]} is {values[bad[0]]} at step {self.progress.step}; lower "
                "optimizer.lr, set train.clip, or use precision bf16 instead of fp16"
            )
        row = {"kind": "train", "phase": phase.name, "epoch": self.progress.epoch, "lr": rate}
        row |= {"loss": whole, **values}
        self.logged = values
        self.metrics.write_rows([row], round=self.progress.round, step=self.progress.step)

    def _derive_seed(self, purpose: str, epoch: int, *more: int) -> int:
        at = self.progress
        return derive_seed(self.seed, purpose, at.round, at.phase, epoch, *more)

    def _set_training(self, phase: Phase) -> None:
        for name, module in self.modules.modules.items():
            own = name in phase.averages and phase.averages[name].buffers == "own"
            if name in phase.trains or own:
                set_training(module, self.schedule.freeze_batchnorm != "none")
            else:
                module.eval()


def check_strategy(strategy: Strategy, round: Round, modules: Sequence[str]) -> None:
    """Refuse a strategy that names modules which it does not have.

    Raises:
        ComponentError: a strategy without phases, or one that names an unknown module.
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
                f"{suggest_nearest(str(name), modules)} (all: {', '.join(modules)})"
            )


def _check_losses(losses: Any) -> dict[str, Tensor]:
    """The losses that a strategy gave, checked to be scalar tensors by name."""
    if isinstance(losses, Mapping) and all(
        isinstance(value, Tensor) and value.ndim == 0 for value in losses.values()
    ):
        return dict(losses)
    raise ComponentError("strategy: losses() gave no mapping from names to tensors of one number")


def _move_weights(optimizer: Any, step: int) -> None:
    try:
        optimizer.step()
    except (RuntimeError, OverflowError) as error:
        if "overflow" not in str(error):
            raise
        raise FewLabelsError(
            f"the optimiser's numbers are too large for float32 at step {step}; lower "
            "optimizer.lr, its weight_decay, factors or options, or schedule.decay_rate"
        ) from error
