"""Builds the components that a recipe names, and runs them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from signal import SIGINT

from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState

from fewlabels.errors import Stopped
from fewlabels.evaluation.evaluator import Evaluator
from fewlabels.evaluation.extract import Extractor
from fewlabels.recipe.recipe import Recipe
from fewlabels.runs.deploy import deploy_models
from fewlabels.runs.frozen_baseline import FrozenBaseline
from fewlabels.runs.make_loop import make_loop, make_pretraining, start_from_backbone
from fewlabels.runs.parts import (
    RunParts,
    make_extractor,
    make_parts,
    open_metrics,
)
from fewlabels.runs.read_images import read_images, refuse_pairs
from fewlabels.training.launch_environment import start_accelerate
from fewlabels.training.loop import Loop
from fewlabels.training.optimizers import check_frozen_epochs, check_starts
from fewlabels.training.processes import end_with_parent
from fewlabels.training.run_folder import Row, hold_run_folder


def assemble_run(
    recipe: Recipe,
    out: Path,
    resume: Path | None,
    say: Callable[[str], None] | None = None,
    must_score: bool = False,
    watch: Callable[[RunParts, Loop], None] | None = None,
) -> tuple[Path, list[Row]]:
    """Build everything that a recipe names, run it, and save what it deploys.

    Args:
        resume: a run folder that was stopped.
        say: tells how the run goes; None prints in the main process.
        must_score: refuse data on which there will be no test score.
        watch: is given each loop, a pretraining's too, when all of it is made and before it runs.

    Returns:
        The run folder, and the scores in the order in which they were taken.

    Raises:
        Stopped: a signal has ended it; it says how to go on.
        FewLabelsError: another run works in the folder; or what the steps of this one refuse.
    """
    accelerator = make_accelerator(recipe)
    parts = make_parts(recipe, accelerator, out, resume, say or accelerator.print, must_score)
    try:
        with hold_run_folder(parts.folder, accelerator):
            return parts.folder.path, run_parts(parts, watch)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Stopped) else SIGINT
        said = f"stopped; to go on: fewlabels run --resume {shlex.quote(str(parts.folder))}"
        raise Stopped(number, said if accelerator.is_main_process else "") from None


def run_parts(parts: RunParts, watch: Callable[[RunParts, Loop], None] | None = None) -> list[Row]:
    """Train in the run folder, and save what is deployed; the scores."""
    open_metrics(parts)
    loop, extract = prepare_loop(parts)
    loop.load_checkpoint()
    pretraining = make_pretraining(parts)
    if watch is not None:
        for each in [loop, *([pretraining.loop] if pretraining else [])]:
            watch(parts, each)
    read_images(parts)
    if pretraining is not None:
        start_from_backbone(parts, pretraining.train_backbone())
    loop.run()
    return deploy_models(parts, loop, extract)


def prepare_loop(parts: RunParts) -> tuple[Loop, Extractor]:
    """The loop of a run with its first optimisers, and what extracts features of scored images.

    Raises:
        FewLabelsError: factors of parts that are not there, a discovery through a model that is not
            there, or whatever else the loop cannot begin with.
    """
    extract = make_extractor(parts, parts.modules, parts.searched)
    main = parts.accelerator.is_main_process
    frozen = FrozenBaseline(parts, extract)
    loop = make_loop(parts, Evaluator(parts.scoring, extract, parts.searched, main, frozen))
    optimizer = parts.recipe.optimizer
    starts = {key: getattr(optimizer, key) for key in ("factors", "no_decay", "frozen_epochs")}
    check_starts(starts, loop.list_parameter_paths())
    schedule = loop.trainer.schedule
    trained = schedule.epochs_between_restarts(schedule.total - 1)[1]
    check_frozen_epochs(optimizer.frozen_epochs, trained)
    if parts.recipe.model.frozen:
        refuse_pairs(parts, parts.strategy.phases(loop.make_round(0)))
    loop.make_first_optimizers()
    return loop, extract


def make_accelerator(recipe: Recipe) -> Accelerator:
    """Accelerate as a recipe's ``train`` wants it.

    Raises:
        FewLabelsError: it cannot start so, or its variables want something else.
    """
    end_with_parent()
    precision, accumulate = recipe.train.precision, recipe.train.accumulate

    def make() -> Accelerator:
        AcceleratorState._reset_state()  # of a run before in this process: another precision
        return Accelerator(
            mixed_precision=precision,
            gradient_accumulation_steps=accumulate,
            step_scheduler_with_optimizer=False,
            # Running statistics are averaged before use; see TrainingModules.average_buffers.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )

    return start_accelerate(make, precision, accumulate)
