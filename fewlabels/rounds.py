"""The one loop: discover -> train -> evaluate, on Accelerate.

It owns backward, optimiser step, averages, weights of losses, logging, evaluation and checkpoints.
A method that would need an ``if`` here needs another interface instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from fewlabels.batches import Batches
from fewlabels.checkpoint import (
    checkpoints,
    load_modules,
    read_checkpoint,
    save_checkpoint,
    save_modules,
)
from fewlabels.contracts import Clock, Found, Needs, Phase, Round
from fewlabels.contracts import Strategy as StrategyContract
from fewlabels.data.pixels import Pixels
from fewlabels.discoveries import Discoveries, Seen
from fewlabels.errors import FewLabelsError
from fewlabels.metrics import Metrics
from fewlabels.models.average import update_average
from fewlabels.models.optimise import TICKS
from fewlabels.models.running import Running, freeze_norms, set_training
from fewlabels.plan import Plan, Position
from fewlabels.ramps import Ramp
from fewlabels.seeds import derive


class Loop:
    """One run.

    Args:
        pixels: the training images.
        labels: (N,) the labels that a person has given, -1 for none.
        weights: of losses; one without a weight counts 1.
        make_optimizer: from named parameters.
        make_scheduler: from an optimiser and the run's epochs.
        evaluate: called in every process with "before" or "trained" and the number of discoveries;
            gives rows for the metrics.
        embed: Output fields of a plain module for all training images.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        strategy: StrategyContract,
        running: Running,
        pixels: Pixels,
        labels: np.ndarray,
        discoveries: Discoveries,
        plan: Plan,
        seed: int,
        weights: Mapping[str, Ramp],
        make_optimizer: Callable[..., Any],
        make_scheduler: Callable[..., Any],
        evaluate: Callable[[str, int], list[dict[str, Any]]],
        embed: Callable[[str, str], np.ndarray],
        folder: Path,
        metrics: Metrics,
        workers: int = 0,
        say: Callable[[str], None] = print,
    ) -> None:
        self.accelerator, self.strategy, self.running = accelerator, strategy, running
        self.batches = Batches(accelerator, pixels, plan, workers)
        self.given, self.labels = labels >= 0, labels.copy()
        self.found = Found(self.labels, self.given, None, None, fresh=False)
        self.discoveries, self.plan, self.seed, self.weights = discoveries, plan, seed, weights
        self.make_optimizer, self.make_scheduler = make_optimizer, make_scheduler
        self.evaluate, self.embed = evaluate, embed
        self.folder, self.metrics, self.say = folder, metrics, say
        self.at = Position()
        self.optimizers: dict[str, Any] = {}
        self.schedulers: dict[str, Any] = {}
        self.updates: dict[str, int] = {}
        self.scores: list[dict[str, Any]] = []
        self.history: dict[str, tuple[np.ndarray, ...]] = {}
        self.validation: float | None = None  # error of the deployed model after the round before
        if plan.batch_norm == "frozen":
            for module in running.modules.values():
                freeze_norms(module)

    # ------------------------------------------------------------------ the loop

    def prepare(self) -> None:
        """Make the first optimisers, so that what they refuse is told before images are decoded."""
        self.discoveries.check(self.strategy, self.running.modules)
        for phase in self.strategy.phases(self._round(0)):
            self._start(phase)

    def run(self) -> None:
        """From where the run stands to its end."""
        if not self._resume():
            self.strategy.start(self.running, self._extract)
            if self.plan.restart != "never":
                self._write_initial()
            self.metrics.write(self.evaluate("before", 0))
        for index in range(self.at.round, self.plan.total):
            begin = time.monotonic()
            begun = self.at.phase or self.at.epoch or self.at.batch
            if not begun:
                self._open(index)
            phases = self.strategy.phases(self._round(index))
            for number in range(self.at.phase, len(phases)):
                self._train(phases[number])
                self.at.phase, self.at.epoch, self.at.batch = number + 1, 0, 0
            last = index + 1 == self.plan.total
            every = self.plan.evaluate_every
            told = ""
            if last or self.plan.stop or (every and (index + 1) % every == 0):
                told = self._evaluate()
            seconds = round(time.monotonic() - begin, 1)
            self.metrics.write([{"kind": "round", "seconds": seconds}], round=index)
            self.say(f"round {index + 1}/{self.plan.total}; {told}{seconds:.0f} s")
            self.at.round, self.at.phase = index + 1, 0
            stops = self._settled()
            if stops:
                self.at.round = self.plan.total
            self._checkpoint()
            if stops:
                self.say(f"the validation error has settled to within {self.plan.stop}: the end")
                break

    def _round(self, index: int) -> Round:
        generation = self.plan.generation(index)[0]
        return Round(index, generation, self.plan.epochs(index), self.at.discoveries)

    def _open(self, index: int) -> None:
        """What comes before a round's training: discovery, and a new beginning where it is due."""
        if self.plan.forgets(index):
            self.labels = np.where(self.given, self.labels, -1)
            self.found = self.found._replace(labels=self.labels, fresh=True)
        if self.discoveries.components and self.plan.discovers(index):
            self._discover(index)
        if self.plan.restarts(index):
            load_modules(self.folder / "initial", self.running.modules)
            self.optimizers, self.schedulers, self.updates = {}, {}, {}
            self.at.restarted = self.at.step

    def _evaluate(self) -> str:
        """Score the models, write it down, and give it in words."""
        self.running.average_buffers()
        scores = self.evaluate("trained", self.at.discoveries)
        self.metrics.write(scores, round=self.at.round, step=self.at.step)
        self.scores = scores
        return "".join(f"{row['told']}; " for row in scores)

    def _discover(self, index: int) -> None:
        """Ask each discovery in turn, in the main process, and tell all processes."""
        seen = {name: self._see(need) for name, need in self.discoveries.needs().items()}
        result: list[Any] = [None]
        if self.accelerator.is_main_process:
            try:
                result = [self.discoveries(index, self.labels, seen)]
            except FewLabelsError as error:  # raised in every process below, so that none waits
                result = [error]
            except Exception as error:
                result = [FewLabelsError(f"discovery failed: {type(error).__name__}: {error}")]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(result)
        if isinstance(result[0], FewLabelsError):
            raise result[0]
        self.found, count = result[0]
        self.labels = self.found.labels
        self.at.discoveries += int(count > 0)

    def _see(self, need: Needs) -> Seen:
        """The training images as a discovery asks to see them."""
        model = self.strategy.seen_through(need.model, self.at.discoveries)
        classifies = self.strategy.task == "classification"
        features = self.embed(model, "features" if classifies else "embedding")
        probabilities = None
        if need.probabilities:
            logits = torch.from_numpy(self.embed(model, "logits"))
            probabilities = logits.softmax(1).numpy()
        history = self.history.get(need.model, ())
        if need.history:
            self.history[need.model] = (features, *history)[: need.history]
        return Seen(features, probabilities, history)

    def _settled(self) -> bool:
        """Whether the stop rule ends the run: the validation error no longer moves."""
        own = [row for row in self.scores if row["model"] == self.strategy.deploys]
        now = own[0].get("validation_error") if own else None
        before, self.validation = self.validation, now
        if self.plan.stop is None or now is None or before is None:
            return False
        return abs(now - before) < self.plan.stop

    def _train(self, phase: Phase) -> None:
        """Train one phase to its end."""
        self._start(phase)
        optimizer, scheduler = self.optimizers[phase.name], self.schedulers[phase.name]
        resumed = self.at.epoch or self.at.batch
        self.strategy.begin(phase, self.running, self.found, self._extract)
        if resumed:  # begin() has set what no module holds; the modules stand further on
            load_modules(checkpoints(self.folder / "checkpoints")[-1], self.running.modules)
        steps, epochs = self.batches.length(phase, self.labels)
        for epoch in range(self.at.epoch, epochs):
            self.at.epoch = epoch
            bar = tqdm(
                self.batches(phase, self.labels, self._derive, epoch, self.at.batch),
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
                    clock = Clock(self.at.round, epoch, self.at.step - self.at.restarted)
                    with self.accelerator.autocast():
                        losses = self.strategy.losses(phase, self.running, batch, clock)
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
        self.found = self.found._replace(fresh=False)

    def _stepped(self, phase: Phase, scheduler: Any, losses: Any, total: Any) -> None:
        """After an optimiser step: averages, schedule, log, checkpoint."""
        clock = self.at.step - self.at.restarted
        for name, average in phase.averages.items():
            if average.starts == "now" or self.at.discoveries:
                done = self.updates.get(name, 0)
                source = self.running.plain(average.of)
                target = self.running.plain(name)
                update_average(target, source, average.decay(clock), done, average.buffers)
                self.updates[name] = done + 1
        rate = self.optimizers[phase.name].param_groups[0]["lr"]
        if self.at.step % self.plan.log_every == 0:
            values = {name: float(value.detach()) for name, value in losses.items()}
            bad = [name for name, value in values.items() if not np.isfinite(value)]
            if bad:
                raise FewLabelsError(
                    f"loss {bad[0]} is {values[bad[0]]} at step {self.at.step}; lower "
                    "optimizer.lr, set train.clip, or use precision bf16 instead of fp16"
                )
            row = {"kind": "train", "phase": phase.name, "epoch": self.at.epoch, "lr": rate}
            row |= {"loss": float(total.detach()), **values}
            self.metrics.write([row], round=self.at.round, step=self.at.step)
        self.at.step += 1
        if scheduler is not None:
            steps, epochs = self.batches.length(phase, self.labels)
            share = (self.at.epoch + self.at.batch / (steps * self.plan.accumulate)) / epochs
            before, _ = self.plan.stretch(self.at.round)
            moved = before + share * self.plan.epochs(self.at.round)
            scheduler.step_update(round(moved * TICKS))
        steps = self.plan.evaluate_steps
        if steps and self.at.step % steps == 0:
            self._evaluate()
            self._set_training(phase)
        every = self.plan.checkpoint_every
        if every and self.at.step % every == 0:
            self._checkpoint()

    # ------------------------------------------------------------------ pieces

    def _extract(self, model: str, what: str = "embedding") -> np.ndarray:
        return self.embed(model, what)

    def _weight(self, name: str) -> Ramp:
        return self.weights.get(name, Ramp(end=1.0))

    def _derive(self, purpose: str, epoch: int, *more: int) -> int:
        return derive(self.seed, purpose, self.at.round, self.at.phase, epoch, *more)

    def _set_training(self, phase: Phase) -> None:
        for name, module in self.running.modules.items():
            own = name in phase.averages and phase.averages[name].buffers == "own"
            if name in phase.trains or own:
                set_training(module, self.plan.batch_norm)
            else:
                module.eval()

    def _start(self, phase: Phase) -> None:
        """Wrap what a phase trains and make its optimiser, at its first use."""
        if phase.name in self.optimizers:
            return
        self.batches.check(phase)
        named = [
            (f"{name}.{path}", parameter)
            for name in phase.trains
            for path, parameter in self.running.plain(name).named_parameters()
            if parameter.requires_grad
        ]
        optimizer = self.make_optimizer(named)
        for name in phase.trains:
            self.running.wrap(name)
        epochs = self.plan.stretch(self.at.round)[1]
        self.schedulers[phase.name] = self.make_scheduler(optimizer, epochs=epochs)
        self.optimizers[phase.name] = self.accelerator.prepare_optimizer(optimizer)

    # ------------------------------------------------------------------ checkpoints

    def _checkpoint(self) -> None:
        """Write where the run stands; all processes first agree on running statistics."""
        self.running.average_buffers()
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        arrays = {"labels": self.labels}
        if self.found.centres is not None:
            arrays["centres"] = self.found.centres
        arrays |= {f"discovery.{k}": v for k, v in self.discoveries.state_dict().items()}
        for name, past in self.history.items():
            arrays |= {f"history.{name}.{i}": features for i, features in enumerate(past)}
        optimizers = {name: o.state_dict() for name, o in self.optimizers.items()}
        if self.accelerator.scaler is not None:
            optimizers["scaler"] = self.accelerator.scaler.state_dict()
        state = {"at": vars(self.at), "updates": self.updates, "fresh": self.found.fresh}
        state |= {"metrics": self.metrics.size(), "validation": self.validation}
        save_checkpoint(
            self.folder / "checkpoints",
            self.at.step,
            self.running.modules,
            optimizers,
            arrays,
            state,
            self.plan.keep_checkpoints,
        )

    def _write_initial(self) -> None:
        """Keep the weights that a restart goes back to."""
        if self.accelerator.is_main_process:
            save_modules(self.folder / "initial", self.running.modules)

    def _resume(self) -> bool:
        """Stand where the newest checkpoint stands, if there is one."""
        places = checkpoints(self.folder / "checkpoints")
        if not places:
            return False
        state, arrays, optimizers = read_checkpoint(places[-1])
        self.at, self.updates = Position(**state["at"]), state["updates"]
        self.metrics.cut(state["metrics"])
        self.labels = arrays["labels"]
        self.found = Found(self.labels, self.given, arrays.get("centres"), None, state["fresh"])
        start = "discovery."
        kept = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
        self.discoveries.load_state_dict(kept)
        self.validation = state["validation"]
        for key in sorted(k for k in arrays if k.startswith("history.")):
            name = key.split(".")[1]
            self.history[name] = (*self.history.get(name, ()), arrays[key])
        load_modules(places[-1], self.running.modules)
        self.optimizers, self.schedulers = {}, {}  # prepare() made those of the first round
        for phase in self.strategy.phases(self._round(self.at.round)):
            if phase.name in optimizers:
                self._start(phase)
                self.optimizers[phase.name].load_state_dict(optimizers[phase.name])
        if "scaler" in optimizers and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(optimizers["scaler"])
        return True
