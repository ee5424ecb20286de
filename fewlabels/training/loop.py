"""The one loop: discover -> train -> evaluate, on Accelerate.

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

from fewlabels.contracts import Found, Needs, Round
from fewlabels.contracts import Strategy as StrategyContract
from fewlabels.contracts.ramp import Ramp
from fewlabels.data.pixels import Pixels
from fewlabels.errors import FewLabelsError
from fewlabels.models.modes import freeze_norms
from fewlabels.training.batches import Batches
from fewlabels.training.checkpoint import (
    checkpoints,
    load_modules,
    read_checkpoint,
    save_checkpoint,
    save_modules,
)
from fewlabels.training.discover import Discoveries, Seen
from fewlabels.training.metric_log import Metrics
from fewlabels.training.modules import Running
from fewlabels.training.phase import Training, check_strategy
from fewlabels.training.round_schedule import Plan
from fewlabels.training.state import Progress, State


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
        embed: an Output field of a plain module for the training images, or some of them.
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
        embed: Callable[..., np.ndarray],
        folder: Path,
        metrics: Metrics,
        workers: int = 0,
        say: Callable[[str], None] = print,
    ) -> None:
        self.accelerator, self.strategy, self.running = accelerator, strategy, running
        self.state = State(Found(labels, labels, labels >= 0, None, None, fresh=False))
        self.discoveries, self.plan, self.evaluate, self.embed = discoveries, plan, evaluate, embed
        self.folder, self.metrics, self.say = folder, metrics, say
        self.scores: list[dict[str, Any]] = []
        self.training = Training(
            accelerator,
            strategy,
            running,
            Batches(accelerator, pixels, plan, workers),
            self.state,
            plan,
            seed,
            weights,
            make_optimizer,
            make_scheduler,
            self._extract,
            metrics,
            self._reload,
            self._stepped,
        )
        if plan.freeze_batchnorm == "all":
            for module in running.modules.values():
                freeze_norms(module)

    # ------------------------------------------------------------------ the loop

    @property
    def at(self) -> Progress:
        """Where the run stands."""
        return self.state.at

    def paths(self) -> list[str]:
        """Of the parameters that any phase trains, as in ``student.head.weight``."""
        phases = self.strategy.phases(self._round(0))
        return [path for phase in phases for path, _ in self.training.named(phase)]

    def prepare(self) -> None:
        """Make the first optimisers, so that what they refuse is told before images are decoded."""
        self.discoveries.check(self.strategy, self.running.modules)
        check_strategy(self.strategy, self._round(0), list(self.running.modules))
        for phase in self.strategy.phases(self._round(0)):
            self.training.start(phase)

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
                self.training(phases[number])
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

    def counts(self) -> dict[str, int]:
        """Optimiser steps and unlabelled images of the first phase; steps of all others together.

        The first phase that a strategy declares is the one by which methods are compared.
        """
        first = self.strategy.phases(self._round(0))[0].name
        own = self.at.steps[first]
        images = self.at.images[first]
        return {"steps": own, "images": images, "other_steps": self.at.step - own}

    def _round(self, index: int) -> Round:
        generation = self.plan.generation(index)[0]
        return Round(index, generation, self.plan.epochs(index), self.at.discoveries)

    def _open(self, index: int) -> None:
        """What comes before a round's training: discovery, and a new beginning where it is due."""
        if self.plan.forgets(index):
            found = self.state.found
            labels = np.where(found.given, found.labels, -1)
            self.state.found = found._replace(labels=labels, earlier=labels, fresh=True)
        if self.discoveries.components and self.plan.discovers(index):
            self._discover(index)
        if self.plan.restarts(index):
            load_modules(self.folder / "initial", self.running.modules)
            self.training.restart()
            self.at.restarted, self.at.begun = dict(self.at.steps), []

    def _evaluate(self) -> str:
        """Score the models, write it down, and give it in words."""
        self.running.average_buffers()
        scores = self.evaluate("trained", self.at.discoveries)
        self.metrics.write(scores, round=self.at.round, step=self.at.step)
        if self.accelerator.num_processes > 1:  # all of them follow the stop rule
            told = [scores]
            broadcast_object_list(told)
            scores = told[0]
        self.scores = scores
        if self.plan.keep_best and self.accelerator.is_main_process:
            self._keep_best()
        return "".join(f"{row['told']}; " for row in scores)

    def _discover(self, index: int) -> None:
        """Ask each discovery in turn, in the main process, and tell all processes."""
        seen = {name: self._see(need) for name, need in self.discoveries.needs().items()}
        result: list[Any] = [None]
        if self.accelerator.is_main_process:
            try:
                result = [self.discoveries(index, self.state.labels, seen)]
            except FewLabelsError as error:  # raised in every process below, so that none waits
                result = [error]
            except Exception as error:
                result = [FewLabelsError(f"discovery failed: {type(error).__name__}: {error}")]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(result)
        if isinstance(result[0], FewLabelsError):
            raise result[0]
        found, count = result[0]
        self.state.found = found._replace(fresh=found.fresh or self.state.found.fresh)
        self.at.discoveries += int(count > 0)

    def _see(self, need: Needs) -> Seen:
        """The training images as a discovery asks to see them."""
        model = self.strategy.seen_through(need.model, self.at.discoveries)
        classifies = self.strategy.task == "classification"
        features = self.embed(model, "features" if classifies else "embedding")
        probabilities = None
        if need.probabilities:
            logits = torch.from_numpy(self.embed(model, "logits")).double()  # so that few are 1
            probabilities = logits.softmax(1).numpy()
        history = self.state.history.get(need.model, ())
        if need.history:
            self.state.history[need.model] = (features, *history)[: need.history]
        return Seen(features, probabilities, history)

    def _settled(self) -> bool:
        """Whether the stop rule ends the run: the validation error no longer moves."""
        own = [row for row in self.scores if row["model"] == self.strategy.deploys]
        now = own[0].get("validation_error") if own else None
        before, self.at.validation = self.at.validation, now
        if self.plan.stop is None or now is None or before is None:
            return False
        return abs(now - before) < self.plan.stop

    def _keep_best(self) -> None:
        """Keep the deployed model of the smallest validation error, the earliest of equals."""
        deploys = self.strategy.deploys
        now = min(row["validation_error"] for row in self.scores if row["model"] == deploys)
        if self.at.best is None or now < self.at.best:
            self.at.best = now
            save_modules(self.folder / "best", {deploys: self.running.plain(deploys)})

    def _extract(
        self, model: str, what: str = "embedding", rows: np.ndarray | None = None
    ) -> np.ndarray:
        return self.embed(model, what, rows)

    # ------------------------------------------------------------------ checkpoints

    def _checkpoint(self) -> None:
        """Write where the run stands; all processes first agree on running statistics."""
        self.running.average_buffers()
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        arrays, state = self.state.save()
        arrays |= {f"discovery.{k}": v for k, v in self.discoveries.state_dict().items()}
        state["metrics"] = self.metrics.size()
        save_checkpoint(
            self.folder / "checkpoints",
            self.at.step,
            self.running.modules,
            self.training.state_dict(),
            arrays,
            state,
            self.plan.keep_checkpoints,
        )

    def _stepped(self, step: int) -> None:
        """What is due within a round."""
        if self.plan.evaluate_steps and step % self.plan.evaluate_steps == 0:
            self._evaluate()
        if self.plan.checkpoint_every and step % self.plan.checkpoint_every == 0:
            self._checkpoint()

    def _reload(self) -> None:
        load_modules(checkpoints(self.folder / "checkpoints")[-1], self.running.modules)

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
        self.state.load(arrays, state)
        self.metrics.cut(state["metrics"])
        start = "discovery."
        kept = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
        self.discoveries.load_state_dict(kept)
        load_modules(places[-1], self.running.modules)
        phases = self.strategy.phases(self._round(self.at.round))
        self.training.load_state_dict(optimizers, phases)
        return True
