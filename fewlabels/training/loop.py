"""The one loop: discover -> train -> evaluate, on Accelerate.

It holds no code for single methods: one that needs an ``if`` here needs another interface.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import broadcast_object_list

from fewlabels.contracts import Needs, Phase, Round, remark_of
from fewlabels.errors import FewLabelsError, Stopped
from fewlabels.models.modes import freeze_norms
from fewlabels.training.discover import Discoverer, Extracted
from fewlabels.training.loop_checkpoint import load_loop, save_loop
from fewlabels.training.phase import PhaseTrainer, check_strategy
from fewlabels.training.run_folder import Row, RunFolder
from fewlabels.training.saved_modules import load_modules, refuse_diverged, save_modules
from fewlabels.training.state import Progress
from fewlabels.training.stopping import StopSignals

LOG = logging.getLogger(__name__)
ExtractFields = Callable[..., list[np.ndarray]]
"""``extract(model, fields, rows=None)``: fields (N, D) of its Output for the training images."""


class Scorer(Protocol):
    """Scores the models of a run; called in every process.

    ``score_models`` gives rows for the metrics, ``when`` being "before" or "trained";
    ``describe_row`` gives a row as text.
    """

    def score_models(self, when: str, discoveries: int) -> list[Row]: ...

    def describe_row(self, row: Row) -> str: ...


class Loop:
    """One run: rounds of discovery, the phases of the strategy, and evaluation.

    Args:
        extract: gives fields of a module's Output for the training images.
        discovery_field: the field of a model's Output that discoveries look at.
        say: prints a line about the progress of the run.
    """

    def __init__(
        self,
        trainer: PhaseTrainer,
        discoverer: Discoverer,
        evaluator: Scorer,
        extract: ExtractFields,
        discovery_field: str,
        folder: RunFolder,
        say: Callable[[str], None] = print,
    ) -> None:
        self.trainer, self.discoverer, self.evaluator = trainer, discoverer, evaluator
        self.extract, self.discovery_field = extract, discovery_field
        self.folder, self.say = folder, say
        self.strategy, self.modules, self.state = trainer.strategy, trainer.modules, trainer.state
        self.schedule, self.metrics = trainer.schedule, trainer.metrics
        self.accelerator = trainer.accelerator
        self.scores: list[Row] = []
        self.signals = StopSignals(self.accelerator)
        self.begun_from: Path | None = None  # the checkpoint that a stopped run goes on from
        if self.schedule.freeze_batchnorm == "all":
            for module in self.modules.modules.values():
                freeze_norms(module)

    @property
    def progress(self) -> Progress:
        """The position of the run."""
        return self.state.progress

    # ------------------------------------------------------------------ before the run

    def list_parameter_paths(self) -> list[str]:
        """Paths of the parameters that any phase trains, as in ``student.head.weight``."""
        phases = self.strategy.phases(self.make_round(0))
        return [path for phase in phases for path, _ in self.trainer.named_parameters(phase)]

    def make_first_optimizers(self) -> None:
        """Make the first optimisers, so that their errors appear before images are decoded."""
        self.discoverer.check_models(self.strategy, self.modules.modules)
        check_strategy(self.strategy, self.make_round(0), list(self.modules.modules))
        for phase in self.strategy.phases(self.make_round(0)):
            self.trainer.prepare_phase(phase)

    def load_checkpoint(self) -> None:
        """Stand where the newest whole checkpoint stands, if there is one.

        Raises:
            FewLabelsError: none is whole, or it is of another run; or metrics.jsonl is damaged.
        """
        self.begun_from = load_loop(self)

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """From where the run stands to its end.

        Raises:
            Stopped: a signal has ended it; it is saved where it stands.
        """
        with self.signals.note_signals():
            self._run_rounds()

    def _run_rounds(self) -> None:
        if self.begun_from is None:
            with self.signals.act_at_once():
                self._begin()
        for index in range(self.progress.round, self.schedule.total):
            self._run_round(index)
            stops = self._has_settled()
            if stops:
                self.progress.round = self.schedule.total
            self._save_checkpoint()
            if signal := self.signals.agree():
                self.accelerator.wait_for_everyone()
                raise Stopped(signal)
            if stops:
                error = self.schedule.stop
                self.say(f"the validation error has settled to within {error}: the end")
                break

    def _begin(self) -> None:
        """What comes before the first round of a new run."""
        self.strategy.start(self.modules, self._extract_field)
        if self.schedule.restart != "never" and self.accelerator.is_main_process:
            save_modules(self.folder.initial, self.modules.modules)
        self.metrics.write_rows(self.evaluator.score_models("before", 0))

    def _run_round(self, index: int) -> None:
        """Run one round: discovery if it is due, every phase, and evaluation if it is due."""
        begin, at = time.monotonic(), self.progress
        if not (at.phase or at.epoch or at.batch):
            self._open_round(index)
        phases = self.strategy.phases(self.make_round(index))
        for number in range(at.phase, len(phases)):
            self._train_phase(phases[number])
            at.phase, at.epoch, at.batch = number + 1, 0, 0
        told = self._evaluate_models() if self.schedule.ends_with_evaluation(index) else ""
        seconds = round(time.monotonic() - begin, 1)
        self.metrics.write_rows([{"kind": "round", "seconds": seconds}], round=index)
        self.say(f"round {index + 1}/{self.schedule.total}; {told}{seconds:.0f} s")
        at.round, at.phase = index + 1, 0

    def _open_round(self, index: int) -> None:
        """Before a round's training: drop labels, run discovery and reset weights, each if due."""
        if self.schedule.drops_discovered_labels(index):
            self.state.drop_discovered_labels()
        if self.discoverer.components and self.schedule.begins_with_discovery(index):
            with self.signals.act_at_once():
                self._discover_labels(index)
        if self.schedule.resets_weights(index):
            load_modules(self.folder.initial, self.modules.modules)
            self.trainer.forget_optimizers()
            self.progress.restarted, self.progress.begun = dict(self.progress.steps), []

    def _train_phase(self, phase: Phase) -> None:
        """Train one phase to its end, with the evaluations and checkpoints that are due in it."""
        resumed = bool(self.progress.epoch or self.progress.batch)
        self.trainer.begin_phase(phase, resumed)
        self.modules.average_buffers()  # so that all processes begin with the same
        self.strategy.begin(phase, self.modules, self.state.label_state, self._extract_field)
        if resumed and self.begun_from:  # begin() has set what no module holds
            load_modules(self.begun_from, self.modules.modules)  # which stand further on
        for step in self.trainer.steps(phase):
            if self.schedule.evaluate_steps and step % self.schedule.evaluate_steps == 0:
                self._evaluate_models()
            if self.schedule.checkpoint_every and step % self.schedule.checkpoint_every == 0:
                self._save_checkpoint()
            if signal := self.signals.agree(step):
                self._save_checkpoint()
                self.accelerator.wait_for_everyone()  # one that leaves early would end the others
                raise Stopped(signal)
        self.state.label_state = self.state.label_state._replace(changed=False)
        self._pass_on_remarks(phase)

    def _pass_on_remarks(self, phase: Phase) -> None:
        """Log the remarks of blocks about the final values of their loss terms."""
        for name in phase.trains:
            for block in self.modules.plain(name).modules():
                remark = remark_of(block, self.trainer.logged)
                if remark and self.accelerator.is_main_process:
                    LOG.warning(remark)

    def count_steps(self) -> dict[str, int]:
        """Optimiser steps and unlabelled images of the first phase; steps of all other phases.

        Methods are compared by the first phase that a strategy declares.
        """
        first = self.strategy.phases(self.make_round(0))[0].name
        own, images = (got.get(first, 0) for got in (self.progress.steps, self.progress.images))
        return {"steps": own, "images": images, "other_steps": self.progress.step - own}

    def make_round(self, index: int) -> Round:
        """What a strategy is told of a round."""
        generation = self.schedule.find_generation(index)[0]
        return Round(
            index, generation, self.schedule.count_epochs(index), self.progress.discoveries
        )

    # ------------------------------------------------------------------ discovery

    def _discover_labels(self, index: int) -> None:
        """Run the discoveries in the main process, and send the new labels to all processes."""
        seen = {
            name: self._extract_for(need) for name, need in self.discoverer.collect_needs().items()
        }
        result: list[Any] = [None]
        if self.accelerator.is_main_process:
            try:
                phases, known = self.strategy.phases(self.make_round(index)), self.state.label_state
                result = [self.discoverer.discover_labels(index, known, seen, phases)]
            except FewLabelsError as error:  # raised in every process below, so that none waits
                result = [error]
            except Exception as error:
                result = [FewLabelsError(f"discovery failed: {type(error).__name__}: {error}")]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(result)
        if isinstance(result[0], FewLabelsError):
            raise result[0]
        state, count = result[0]
        changed = state.changed or self.state.label_state.changed
        self.state.label_state = state._replace(changed=changed)
        self.progress.discoveries += int(count > 0)

    def _extract_for(self, need: Needs) -> Extracted:
        """The outputs for the training images that a discovery needs."""
        model = self.strategy.seen_through(need.model, self.progress.discoveries)
        seen = self._extract_field(model, self.discovery_field) if need.features else None
        features = np.empty((len(self.state.labels), 0), np.float32) if seen is None else seen
        logits = [self._extract_field(model, "logits")] if need.probabilities else []
        probabilities = None
        if logits:  # in double precision, so that few are 1
            probabilities = torch.from_numpy(logits[0]).double().softmax(1).numpy()
        history = self.state.history.get(need.model, ())
        if need.history:
            self.state.history[need.model] = (features, *history)[: need.history]
        return Extracted(features, probabilities, history)

    def _extract_field(
        self, model: str, what: str = "embedding", rows: np.ndarray | None = None
    ) -> np.ndarray:
        """One field of a model's Output (contracts.Extract)."""
        return self.extract(model, (what,), rows)[0]

    # ------------------------------------------------------------------ evaluation

    def _evaluate_models(self) -> str:
        """Score the models, log the scores, and give them as text."""
        self.modules.average_buffers()
        scores = self.evaluator.score_models("trained", self.progress.discoveries)
        self.metrics.write_rows(scores, round=self.progress.round, step=self.progress.step)
        if self.accelerator.num_processes > 1:  # all of them follow the stop rule
            shared = [scores]
            broadcast_object_list(shared)
            scores = shared[0]
        self.scores = scores
        if self.schedule.keep_best and self.accelerator.is_main_process:
            self._keep_best()
        return "".join(f"{self.evaluator.describe_row(row)}; " for row in scores)

    def _has_settled(self) -> bool:
        """Whether the stop rule ends the run: the validation error no longer moves."""
        own = [row for row in self.scores if row["model"] == self.strategy.deploys]
        now = own[0].get("validation_error") if own else None
        before, self.progress.validation = self.progress.validation, now
        if self.schedule.stop is None or now is None or before is None:
            return False
        return abs(now - before) < self.schedule.stop

    def _keep_best(self) -> None:
        """Save the deployed model if its validation error is smaller than all before."""
        deploys = self.strategy.deploys
        now = min(row["validation_error"] for row in self.scores if row["model"] == deploys)
        if self.progress.best is None or now < self.progress.best:
            self.progress.best = now
            refuse_diverged({deploys: self.modules.plain(deploys)}, self.progress.step)
            save_modules(self.folder.best, {deploys: self.modules.plain(deploys)})

    def _save_checkpoint(self) -> None:
        """Save a checkpoint; first, running statistics are averaged over all processes."""
        self.modules.average_buffers()
        save_loop(self)
