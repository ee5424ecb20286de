"""Makes the training loop of a run, and that of the pretraining before it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from fewlabels.contracts import Strategy, weights_of
from fewlabels.contracts.ramp import Ramp
from fewlabels.ops.seeds import derive_seed
from fewlabels.recipe.recipe import Recipe
from fewlabels.registry import REGISTRIES
from fewlabels.runs.build import Builder, build_spec, place_modules
from fewlabels.runs.parts import (
    Discoveries,
    RunParts,
    make_extractor,
)
from fewlabels.runs.pretrain import NoEvaluation, Pretraining, load_backbone
from fewlabels.runs.task import TASKS
from fewlabels.training.batches import Batches
from fewlabels.training.discover import Discoverer
from fewlabels.training.loop import Loop, Scorer
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.modules import TrainingModules
from fewlabels.training.objective import Objective
from fewlabels.training.optimizers import make_optimizer, make_scheduler
from fewlabels.training.phase import PhaseTrainer
from fewlabels.training.round_schedule import RoundSchedule
from fewlabels.training.run_folder import RunFolder
from fewlabels.training.state import State


def make_loop(parts: RunParts, evaluator: Scorer) -> Loop:
    """The training loop of the run itself, not of its pretraining."""
    recipe, labels = parts.recipe, parts.data.labels
    schedule = RoundSchedule(
        **recipe.rounds.model_dump(),
        **recipe.train.model_dump(exclude={"precision"}),
        first=recipe.rounds.discover_every if parts.discoveries and labels.max() >= 0 else 0,
        evaluate_every=recipe.evaluation.every,
        evaluate_steps=recipe.evaluation.steps,
        keep_best=parts.task.keeps_best(recipe.evaluation.report),
        freeze_batchnorm=recipe.model.freeze_batchnorm,
    )
    seed = recipe.seed
    trainer = make_trainer(parts, parts.strategy, parts.modules, schedule, seed, parts.metrics)
    return Loop(
        trainer,
        make_discoverer(parts, parts.discoveries, trainer, parts.folder),
        evaluator,
        make_extractor(parts, parts.modules, parts.pixels),
        parts.task.discovery_field,
        parts.folder,
        parts.say,
    )


def make_trainer(
    parts: RunParts,
    strategy: Strategy,
    modules: TrainingModules,
    schedule: RoundSchedule,
    seed: int,
    metrics: MetricLog,
) -> PhaseTrainer:
    """A trainer of a strategy on the run's images, with the recipe's optimiser and schedule."""
    recipe = parts.recipe
    weights = collect_weights(recipe, strategy) if strategy is parts.strategy else strategy.weights
    objective = Objective(
        weights,
        partial(make_optimizer, **recipe.optimizer.model_dump()),
        partial(make_scheduler, **recipe.schedule.model_dump()),
    )
    batches = Batches(parts.accelerator, parts.pixels, schedule, recipe.data.workers)
    state = State.of_given(parts.data.labels)
    return PhaseTrainer(strategy, modules, batches, state, schedule, objective, seed, metrics)


def collect_weights(recipe: Recipe, strategy: Strategy) -> dict[str, Ramp]:
    """Weights of loss terms: defaults of the strategy and the blocks, overridden by the recipe."""
    weights = dict(weights_of(strategy))
    for spec in recipe.blocks:
        weights |= weights_of(REGISTRIES["blocks"].get(spec.name))
    for term, weight in recipe.weights.items():  # a number changes the height of a ramp alone
        known = weights.get(term, Ramp(end=1.0))
        weights[term] = weight if isinstance(weight, Ramp) else replace(known, end=weight)
    return weights


def make_discoverer(
    parts: RunParts, components: Discoveries, trainer: PhaseTrainer, folder: RunFolder
) -> Discoverer:
    """A Discoverer that runs the discovery components in order."""
    data = parts.data
    return Discoverer(
        components,
        data.records,
        data.train,
        data.labels >= 0,
        trainer.schedule,
        trainer.seed,
        folder,
        trainer.metrics,
    )


def make_pretraining(parts: RunParts) -> Pretraining | None:
    """The pretraining of a run; None if the recipe has none or the run has a checkpoint already."""
    recipe, folder = parts.recipe, parts.folder.pretrain
    if recipe.pretrain is None or parts.folder.list_checkpoints():
        return None
    strategy = build_spec("strategies", recipe.pretrain)
    task = TASKS[strategy.task]
    bare = replace(recipe, model=recipe.model.model_copy(update={"embedding_size": None}))
    builder = Builder(bare, task, len(parts.data.train), None, parts.data.records.classes)
    made = strategy.modules(builder)
    modules = place_modules(made, parts.accelerator, recipe.train.channels_last)
    schedule = RoundSchedule(
        epochs_per_round=strategy.epochs,
        evaluate_every=0,
        steps_per_epoch=recipe.rounds.steps_per_epoch,
        freeze_batchnorm=recipe.model.freeze_batchnorm,
        **recipe.train.model_dump(exclude={"precision"}),
    )
    metrics = MetricLog(folder.metrics if parts.accelerator.is_main_process else None)

    def make_pretraining_loop() -> Loop:
        seed = derive_seed(recipe.seed, "pretrain")
        trainer = make_trainer(parts, strategy, modules, schedule, seed, metrics)
        return Loop(
            trainer,
            make_discoverer(parts, [], trainer, folder),
            NoEvaluation(),
            make_extractor(parts, modules, parts.pixels),
            task.discovery_field,
            folder,
            lambda sentence: parts.say(f"pretraining: {sentence}"),
        )

    return Pretraining(make_pretraining_loop, folder)


def start_from_backbone(parts: RunParts, file: Path) -> None:
    """Load the run's modules with the pretrained backbone in ``file``.

    Fresh modules are made and their weights copied, because the existing ones are on their device
    and may be frozen or wrapped. Seeding the fresh ones makes their random weights the same in
    every process and in a resumed run.
    """
    records, size = parts.data.records, len(parts.data.train)
    fresh = Builder(parts.recipe, parts.task, size, parts.classes, records.classes)
    load_backbone(file, fresh.model.backbone)
    for name, module in parts.strategy.modules(fresh).items():
        parts.modules.plain(name).load_state_dict(module.state_dict())
