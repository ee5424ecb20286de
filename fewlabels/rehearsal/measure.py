"""Runs a shortened recipe on a stand-in, through all that the whole run will do."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fewlabels.errors import FewLabelsError, Stopped
from fewlabels.models.backbone import refuse_unknown_weights
from fewlabels.models.load import load_model
from fewlabels.recipe.recipe import Recipe
from fewlabels.rehearsal.facts import Facts, find_facts
from fewlabels.rehearsal.growth import Growth
from fewlabels.rehearsal.plan import Plan, count_module_bytes, plan_run
from fewlabels.rehearsal.short_loop import Limits, shorten_loop
from fewlabels.rehearsal.shortened import choose_counts, has_no_weights_here, shorten_recipe
from fewlabels.rehearsal.side_work import measure_discoveries, measure_scoring
from fewlabels.rehearsal.standin import StandIn, measure_bytes, write_standin
from fewlabels.rehearsal.stopwatch import Lap, Stopwatch
from fewlabels.rehearsal.whole_run import WholeRun, look_at_whole
from fewlabels.runs.assemble import assemble_run
from fewlabels.runs.parts import RunParts
from fewlabels.runs.training_data import read_training_data
from fewlabels.training.loop import Loop
from fewlabels.training.run_folder import Row, RunFolder

STEP_SECONDS = 2.0
"""A step that would take longer is measured on fewer images."""


@dataclass
class Rehearsal:
    """What a rehearsal has found.

    Attributes:
        plan: of the whole run; ``small``: training images of the stand-in.
        watch: the laps of the shortened run.
        reading: one lap of reading and examining the stand-in, its images counted.
        start: all else: making the parts, saving and loading.
        discoveries, scoring: what is not in proportion to the number of images.
        folder: bytes of the shortened run's folder by what is in it.
    """

    recipe: Recipe
    facts: Facts
    standin: StandIn
    whole: WholeRun
    plan: Plan
    watch: Stopwatch
    limits: Limits
    reading: Lap
    discoveries: dict[str, Growth]
    scoring: Growth
    small: int
    device_peak: int
    module_bytes: int
    folder: dict[str, int]
    start: Lap
    seconds: float


def rehearse_recipe(recipe: Recipe) -> Rehearsal:
    """Rehearse a recipe in a temporary folder; nothing is fetched and nothing is left.

    Raises:
        FewLabelsError: what the run would refuse, or end with.
    """
    begin = time.perf_counter()
    if ":" in recipe.model.backbone:
        raise FewLabelsError(
            f"{recipe.name}: the backbone is of the Hub, and is known once it is fetched, which a "
            "rehearsal does not do; rehearse with its plain name of timm, as in "
            f"model.backbone={recipe.model.backbone.rpartition('/')[2].partition('.')[0]}"
        )
    if recipe.model.pretrained:
        refuse_unknown_weights(recipe.model.backbone)
    facts = find_facts(recipe)
    if has_no_weights_here(recipe):
        bare = recipe.model.model_copy(update={"pretrained": False, "weights": None})
        whole = look_at_whole(replace(recipe, model=bare), facts)
    else:
        whole = look_at_whole(recipe, facts)
    with TemporaryDirectory(prefix="rehearsal-") as made, keeping_quiet(Path(made)):
        place = Path(made)
        counts = choose_counts(recipe, facts, whole.images_a_second)
        standin = write_standin(recipe, facts, *counts, place / "data")
        short = shorten_recipe(recipe, facts, standin, whole.keeps)
        limits = Limits(whole.find_divisor(STEP_SECONDS), random=has_no_weights_here(recipe))
        found = run_shortened(short, place, limits)
    refuse_idle_weights(recipe, found.rows)
    plan = plan_run(whole.parts, whole.loops, found.shares)
    return Rehearsal(
        recipe=recipe,
        facts=facts,
        standin=standin,
        whole=whole,
        plan=plan,
        watch=found.watch,
        limits=limits,
        reading=found.reading,
        discoveries=measure_discoveries(recipe, whole.parts, whole.loops[0]),
        scoring=measure_scoring(recipe, whole.parts, whole.passes),
        small=found.train,
        device_peak=limits.peak.device,
        module_bytes=found.module_bytes,
        folder=found.folder,
        start=found.start,
        seconds=time.perf_counter() - begin,
    )


@contextmanager
def keeping_quiet(place: Path) -> Iterator[None]:
    """Context manager: what discoveries and datasets keep on the disk goes into a folder.

    The library datasets tells nobody that a table was opened, and a few steps are not warned of.
    """
    import datasets

    before, cache = os.environ.get("FEWLABELS_CACHE"), datasets.config.HF_DATASETS_CACHE
    counted = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    log = logging.getLogger("fewlabels")
    level = log.level
    log.setLevel(logging.ERROR)
    shows = datasets.are_progress_bars_disabled()
    os.environ["FEWLABELS_CACHE"] = str(place / "cache")
    datasets.config.HF_DATASETS_CACHE = place / "datasets"
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        log.setLevel(level)
        datasets.config.HF_DATASETS_CACHE = cache
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counted
        if not shows:
            datasets.enable_progress_bars()
        if before is None:
            del os.environ["FEWLABELS_CACHE"]
        else:
            os.environ["FEWLABELS_CACHE"] = before


@dataclass
class ShortRun:
    """What a shortened run gave; ``shares``: of its budget, what each discovery labelled."""

    watch: Stopwatch
    rows: list[Row]
    shares: dict[str, float]
    reading: Lap
    start: Lap
    train: int
    module_bytes: int
    folder: dict[str, int]


def run_shortened(recipe: Recipe, place: Path, limits: Limits) -> ShortRun:
    """Train, stop, go on, save, and load what was saved."""
    watch, seen = Stopwatch(), {"train": 0, "bytes": 0}
    for _ in range(2):  # the first time, libraries are imported too
        with watch.measure("reading"):
            data = read_training_data(recipe, quiet=True)
    first, second = watch.laps["reading"]
    reading = second._replace(images=len(data.records))

    def cut(parts: RunParts, loop: Loop) -> None:
        shorten_loop(parts, loop, watch, limits)
        seen["train"] = len(parts.data.train)
        seen["bytes"] = max(seen["bytes"], count_module_bytes([loop]))

    def run(resume: Path | None) -> Path:
        return assemble_run(recipe, place / "runs", resume, lambda said: None, watch=cut)[0]

    begin = watch.read_clocks()
    try:
        try:
            folder = run(None)
        except Stopped:
            if not limits.halted:
                raise
            folder = run(next((place / "runs").iterdir()))
    except Stopped as stopped:  # by a person: there is nothing to go on with
        raise Stopped(stopped.number) from None
    end = watch.read_clocks()
    limits.peak.note()
    load_model(RunFolder(folder).model)
    rows = RunFolder(folder).read_metrics()
    legs, watched = 2 if limits.halted else 1, watch.sum_laps(("whole", "reading"))
    start = Lap(  # each leg has read the stand-in, too
        max(0.0, (end[0] - begin[0] - watched.seconds) / legs + first.seconds - 2 * second.seconds),
        max(0.0, (end[1] - begin[1] - watched.cpu) / legs + first.cpu - 2 * second.cpu),
        0,
    )
    return ShortRun(
        watch,
        rows,
        read_shares(rows),
        reading,
        start,
        seen["train"],
        seen["bytes"],
        weigh_folder(RunFolder(folder)),
    )


def read_shares(rows: list[Row]) -> dict[str, float]:
    """By discovery, 0 where it never labelled anything, else 1: the whole budget."""
    shares: dict[str, float] = {}
    for row in rows:
        if row["kind"] == "discovery":
            name = row["discovery"]
            shares[name] = max(shares.get(name, 0.0), float(row["discovered"] > 0))
    return shares


def weigh_folder(folder: RunFolder) -> dict[str, int]:
    """Bytes of a run folder's parts; of checkpoints and of ledgers, of one."""
    checkpoints, ledgers = folder.list_checkpoints(), list(folder.ledger.glob("*.parquet"))
    rows = folder.read_metrics()
    return {
        "checkpoint": measure_bytes(checkpoints[-1]) if checkpoints else 0,
        "model": measure_bytes(folder.model),
        "initial": measure_bytes(folder.initial),
        "best": measure_bytes(folder.best),
        "ledger": max((f.stat().st_size for f in ledgers), default=0),
        "row": folder.metrics.stat().st_size // max(1, len(rows)),
    }


def refuse_idle_weights(recipe: Recipe, rows: list[Row]) -> None:
    """Refuse weights of loss terms that no step has given.

    Raises:
        FewLabelsError: naming them and the terms that there were.
    """
    given: set[str] = set()
    for row in rows:
        given |= set(row) if row["kind"] == "train" else set()
    terms = sorted(given - {"kind", "phase", "epoch", "lr", "loss", "round", "step"})
    if idle := [name for name in recipe.weights if name not in given]:
        raise FewLabelsError(
            f"weights: no step of the rehearsal gave {', '.join(idle)}, so these do nothing "
            f"(it gave {', '.join(terms)}); take them away"
        )
