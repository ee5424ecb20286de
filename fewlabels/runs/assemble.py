"""A recipe's names become components, and the components a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list

from fewlabels.contracts.ramp import Ramp
from fewlabels.data.decode import canvas
from fewlabels.data.label_split import write_labelled
from fewlabels.data.pixels import Pixels, centre
from fewlabels.errors import DataError, FewLabelsError
from fewlabels.evaluation import neighbours_picture as neighbours
from fewlabels.evaluation.extract import extract
from fewlabels.evaluation.scoring import ClassificationScoring, RetrievalScoring, Scoring
from fewlabels.models.classifier import Classifier
from fewlabels.models.composition import Composition
from fewlabels.ops.seeds import derive
from fewlabels.recipe.recipe import Recipe
from fewlabels.registry import REGISTRIES
from fewlabels.registry.user_code import copy_modules
from fewlabels.runs.build import Builder, build, check_made, run_modules
from fewlabels.runs.environment import environment
from fewlabels.runs.pretrain import Pretraining, cost, start_from
from fewlabels.runs.provenance import plugins
from fewlabels.runs.training_data import read_labels, read_split
from fewlabels.training.checkpoint import checkpoints, load_modules
from fewlabels.training.discover import Discoveries
from fewlabels.training.loop import Loop
from fewlabels.training.metric_log import Metrics
from fewlabels.training.optimizers import check_factors, make_optimizer, make_scheduler
from fewlabels.training.round_schedule import Plan


def run_folder(out: Path, name: str, accelerator: Accelerator) -> Path:
    """A new folder ``out/name``, or ``out/name-2`` and so on: nothing is overwritten."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FewLabelsError(f"run folders cannot be made in {out}: {error}") from error
    folder = [out / name]
    if accelerator.is_main_process:
        number = 1
        while True:
            try:
                folder[0].mkdir()
                break
            except FileExistsError:
                number += 1
                folder[0] = out / f"{name}-{number}"
    if accelerator.num_processes > 1:
        broadcast_object_list(folder)
    return folder[0]


def assemble(
    recipe: Recipe, out: Path, resume: Path | None, say: Callable[[str], None] | None = None
) -> tuple[Path, list[dict[str, Any]]]:
    """Build everything that a recipe names, run it, and save what it deploys.

    Args:
        resume: a run folder that was stopped.
        say: tells how the run goes; None prints in the main process.

    Returns:
        The run folder, and the scores in the order in which they were taken.
    """
    AcceleratorState._reset_state()  # a run before in this process may have had another precision
    accelerator = Accelerator(
        mixed_precision=recipe.train.precision,
        gradient_accumulation_steps=recipe.train.accumulate,
        step_scheduler_with_optimizer=False,
        # Running statistics are averaged before they are used; see Running.average_buffers.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    say = accelerator.print if say is None else say
    check_made(recipe, ("view", "loss"))  # before images are read, as the others are made
    strategy = build("strategies", recipe.strategy)
    discovery = [(spec.name, build("discovery", spec)) for spec in recipe.discovery]
    source = build("sources", recipe.source)
    records = source.load()
    split = read_split(recipe, records, source.default_split)

    train, validation, labels = read_labels(recipe, split.train, records)
    found = [(name, d.classes) for name, d in discovery if d.classes is not None]
    if found and labels.max() >= 0:
        raise DataError(
            f"discovery {found[0][0]!r} numbers its labels by itself, so they cannot stand beside "
            "those that people gave; set data.labels: none, or take the discovery away"
        )
    classifies = strategy.task == "classification"
    if classifies and labels.max() < 0:
        raise DataError(
            f"strategy {recipe.strategy.name!r} trains a classifier, which needs some labels; set "
            "data.labels to a number, or to all"
        )
    classes = found[-1][1] if found else int(labels.max()) + 1 or None
    builder = Builder(recipe, strategy.task, len(train), classes, records.classes)
    model, ask = builder.model, recipe.evaluation

    quiet = not accelerator.is_main_process
    budget = recipe.data.memory * 2**30
    prepare = partial(
        canvas,
        resize_size=model.resize_size,
        image_size=model.image_size,
        interpolation=model.interpolation,
    )
    running = run_modules(strategy.modules(builder), accelerator, recipe.train.channels_last)

    scoring: Scoring
    if classifies:
        kinds = (Classifier, Composition)
        models = [n for n, m in running.modules.items() if isinstance(m, kinds)]
        given = train[labels >= 0]
        scoring = ClassificationScoring(
            strategy, models, split.test, validation, records.truth, given, ask.report
        )
    else:
        raw = builder.image_size if ask.pixels else None
        scoring = RetrievalScoring(
            strategy, split, records.truth, ask.ks, ask.all_against_all, ask.before, raw
        )
    pixels = searched = Pixels(records.images, train, prepare)
    if not np.array_equal(train, scoring.rows):
        searched = Pixels(records.images, scoring.rows, prepare)

    def see(
        images: Pixels, name: str, *what: str, rows: np.ndarray | None = None
    ) -> list[np.ndarray]:
        module, size = running.plain(name), builder.image_size
        more = ask.batch, recipe.data.workers
        return extract(accelerator, module, images, size, what, *more, rows)

    def evaluate(when: str, discoveries: int) -> list[dict[str, Any]]:
        given = scoring.ask(when, discoveries, partial(see, searched))
        return scoring.rows_of(given, when, searched) if accelerator.is_main_process else []

    folder = resume if resume is not None else run_folder(out, recipe.name, accelerator)
    metrics = Metrics(folder / "metrics.jsonl" if accelerator.is_main_process else None)
    if not checkpoints(folder / "checkpoints"):
        metrics.cut(0)  # of a run that was stopped before its first checkpoint
    stamp = {"ORACLE": "discovered samples got their true labels: no result, an analysis"}
    stamp = stamp if recipe.rounds.oracle else {}
    facts = {"kind": "run", "recipe": recipe.hash, "seed": recipe.seed, **environment(accelerator)}
    facts |= {"plugins": plugins(recipe), **stamp}
    if accelerator.is_main_process and not metrics.size():
        (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        copy_modules(recipe.imports, folder)
        metrics.write([facts])
        if isinstance(recipe.data.labels, int):
            parts = {"labelled": train[labels >= 0], "validation": validation}
            write_labelled(folder / "labelled.csv", parts, records.truth, records.classes)
    done = "classified" if classifies else "retrieved"
    say(
        f"{recipe.name}: {len(train)} images train, {len(scoring.rows)} are {done}; "
        f"{facts['processes']} process(es) on {facts['device']}; run folder {folder}"
    )
    plan = Plan(
        **recipe.rounds.model_dump(),
        **recipe.train.model_dump(exclude={"precision"}),
        first=recipe.rounds.discover_every if discovery and labels.max() >= 0 else 0,
        evaluate_every=ask.every,
        evaluate_steps=ask.steps,
        keep_best=classifies and ask.report == "best",
        freeze_batchnorm=recipe.model.freeze_batchnorm,
    )
    optimizer, schedule = recipe.optimizer, recipe.schedule
    weights = dict(strategy.weights)
    for spec in recipe.blocks:
        weights |= getattr(REGISTRIES["blocks"].get(spec.name), "weights", {})
    for term, weight in recipe.weights.items():  # a number changes the height of a ramp alone
        known = weights.get(term, Ramp(end=1.0))
        weights[term] = weight if isinstance(weight, Ramp) else replace(known, end=weight)
    discover = partial(
        Discoveries,
        records=records,
        rows=train,
        given=labels >= 0,
        plan=plan,
        seed=recipe.seed,
        folder=folder,
        metrics=metrics,
    )
    make_loop = partial(
        Loop,
        accelerator=accelerator,
        discoveries=discover([]),
        pixels=pixels,
        labels=labels,
        make_optimizer=partial(make_optimizer, **optimizer.model_dump()),
        make_scheduler=partial(make_scheduler, **schedule.model_dump()),
        workers=recipe.data.workers,
        say=say,
    )
    loop = make_loop(
        strategy=strategy,
        running=running,
        discoveries=discover(discovery),
        plan=plan,
        seed=recipe.seed,
        weights=weights,
        evaluate=evaluate,
        embed=lambda name, what, rows=None: see(pixels, name, what, rows=rows)[0],
        folder=folder,
        metrics=metrics,
    )
    check_factors(optimizer.factors, loop.paths())
    loop.prepare()
    pretraining = None
    if recipe.pretrain is not None and not checkpoints(folder / "checkpoints"):
        task = build("strategies", recipe.pretrain)
        bare = replace(recipe, model=recipe.model.model_copy(update={"embedding_size": None}))
        made = task.modules(Builder(bare, "retrieval", len(train), None, records.classes))
        pretraining = Pretraining(
            accelerator,
            task,
            run_modules(made, accelerator, recipe.train.channels_last),
            folder / "pretrain",
            make_loop,
            say=say,
            seed=derive(recipe.seed, "pretrain"),
            steps_per_epoch=recipe.rounds.steps_per_epoch,
            freeze_batchnorm=recipe.model.freeze_batchnorm,
            **recipe.train.model_dump(exclude={"precision"}),
        )
    pixels.keep(budget, quiet)
    if searched is not pixels:
        searched.keep(budget - pixels.nbytes, quiet)
    if pretraining is not None:
        place = pretraining()
        # Made anew: the first ones are on their device by now, and may be frozen or wrapped; and
        # what is drawn here must be the same in every process, and in a run that was stopped.
        fresh = Builder(recipe, strategy.task, len(train), classes, records.classes)
        start_from(place, fresh.model.backbone)
        for name, module in strategy.modules(fresh).items():
            running.plain(name).load_state_dict(module.state_dict())
    loop.run()
    shown = scoring.examples(partial(see, searched))
    scores: list[Any] = [[row for row in metrics.rows() if row["kind"] == "evaluation"]]
    if accelerator.is_main_process:
        deployed: Any = running.plain(strategy.deploys)
        if plan.keep_best:
            load_modules(folder / "best", {strategy.deploys: deployed})
        deployed.save_pretrained(folder / "model")
        if shown is not None:
            truth = records.truth[scoring.rows]
            picture = neighbours.draw_neighbours(
                shown, truth, lambda rows: centre(searched.take(rows), builder.image_size)
            )
            (folder / "pictures").mkdir(exist_ok=True)
            picture.save(folder / "pictures" / neighbours.FILE)
        seconds = sum(row["seconds"] for row in metrics.rows() if row["kind"] == "round")
        end = {"kind": "end", "minutes": seconds / 60, **scoring.final(scores[0]), **stamp}
        end |= loop.counts()
        before = cost(folder / "pretrain")
        end["minutes"] += before["minutes"]
        end["other_steps"] += before["steps"]
        metrics.write([end])
    if accelerator.num_processes > 1:
        broadcast_object_list(scores)
    say(scoring.table(scores[0]) + "".join(f"\n{word}: {why}" for word, why in stamp.items()))
    say(f"run folder: {folder}")
    return folder, scores[0]
