"""What the whole run costs here, from its plan and what was measured of a short one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from fewlabels.rehearsal.measure import Rehearsal
from fewlabels.rehearsal.plan import PhasePlan, name_stage
from fewlabels.rehearsal.shortened import has_no_weights_here
from fewlabels.rehearsal.stopwatch import Lap
from fewlabels.runs.frozen_baseline import count_frozen, find_frozen_size, prepares_otherwise

PARTS = ("loader", "forward", "backward", "rest")


class Cost(NamedTuple):
    """Seconds of one kind of work in the whole run, on the clock and of the processor."""

    name: str
    seconds: float
    cpu: float
    how: str = ""


@dataclass(frozen=True)
class StepCost:
    """One step of a stage in the whole run: seconds by part, and of how many images it was."""

    plan: PhasePlan
    whole: Lap
    parts: dict[str, float]
    measured: int  # images of the steps that were measured


def cost_steps(found: Rehearsal) -> dict[str, StepCost]:
    """A step of each stage that the whole run has."""
    costs = {}
    for stage, plan in found.plan.phases.items():
        if not plan.steps:
            continue
        known = stage if found.watch.laps.get(f"whole {stage}") else find_likest(found, stage)
        images = found.watch.average(f"whole {known}").images
        ratio = plan.images / max(1, images)
        laps = {part: found.watch.average(f"{part} {known}", skip=1) for part in PARTS}
        # An optimiser's step does not depend on the images.
        laps = {p: lap if p == "rest" else scale(lap, ratio) for p, lap in laps.items()}
        seconds, cpu = (sum(lap[i] for lap in laps.values()) for i in (0, 1))
        parts = {part: lap.seconds for part, lap in laps.items()}
        costs[stage] = StepCost(plan, Lap(seconds, cpu, plan.images), parts, images)
    return costs


def find_likest(found: Rehearsal, stage: str) -> str:
    """The stage of the same phase that was measured."""
    phase = stage.partition(", from")[0]
    names = [name_stage(phase, discovered) for discovered in (True, False)]
    return next((n for n in names if found.watch.laps.get(f"whole {n}")), stage)


def cost_run(found: Rehearsal) -> list[Cost]:
    """All that the whole run does, in the order in which it is first done."""
    plan, whole, watch = found.plan, found.whole, found.watch
    count = len(found.facts.data.records)
    per_image = scale(found.reading, 1 / max(1, found.reading.images))
    costs = [
        cost("start, saving and loading", found.start, 1),
        cost("reading and examining", per_image, count),
    ]
    decoded = watch.total("decode")
    kept = (plan.train if whole.keeps[0] else 0) + (
        plan.scored if whole.keeps[1] and whole.parts.searched is not whole.parts.pixels else 0
    )
    costs.append(cost("decoding once", scale(decoded, 1 / max(1, decoded.images)), kept))
    for stage, step in cost_steps(found).items():
        costs.append(cost(f"steps of {stage}", step.whole, step.plan.steps))
    return costs + cost_side_work(found)


def cost_side_work(found: Rehearsal) -> list[Cost]:
    """Discovery, what phases begin with, evaluation and checkpoints."""
    plan, whole, watch = found.plan, found.whole, found.watch
    trained, scored = watch.total("extract"), watch.total("extract scored")
    each = scale(trained, 1 / trained.images) if trained.images else None
    each_scored = scale(scored, 1 / scored.images) if scored.images else each
    begins, extracted = begin_phases(found)
    costs = [
        cost("features for discovery", each or each_scored, plan.extracted),
        cost("features for what phases begin with", each or each_scored, extracted),
        begins,
    ]
    for name, _ in whole.loops[0].discoverer.components:
        if growth := found.discoveries.get(name):
            seconds, cpu = growth.at(plan.train)
            how = growth.describe(plan.train)
        else:
            lap = watch.average(f"discovery {name}")
            ratio = plan.train / max(1, found.small)
            seconds, cpu = ratio * lap.seconds, ratio * lap.cpu
            how = f"measured on {found.small:,} images, at most in proportion"
        times = plan.discoveries
        costs.append(Cost(f"discovery {name}", times * seconds, times * cpu, how))
    images = whole.before + plan.evaluations * whole.evaluated
    costs.append(cost("features for evaluation", each_scored, images))
    frozen = watch.total("frozen backbone")
    each_frozen = scale(frozen, 1 / frozen.images) if frozen.images else each_scored
    share = enlarge_frozen(found) * count_frozen_images(found)
    costs.append(cost("the frozen backbone beside it", each_frozen, share))
    seconds, cpu = found.scoring.at(plan.scored)
    times = plan.evaluations + (2 if whole.before else 0)
    how = found.scoring.describe(plan.scored)
    costs.append(Cost("scores", times * seconds, times * cpu, how))
    ratio = whole.module_bytes / max(1, found.module_bytes)
    costs.append(cost("checkpoints", watch.average("checkpoint"), ratio * plan.checkpoints))
    return [each for each in costs if each.seconds]


def count_frozen_images(found: Rehearsal) -> int:
    """Images that the frozen backbone sees beside the whole run."""
    return count_frozen(found.recipe, found.whole.parts)


def enlarge_frozen(found: Rehearsal) -> float:
    """By how much more pixels such an image of the whole run has than one of the shortened run.

    Without the weights of the whole run the shortened one knows no images but its own.
    """
    model = found.whole.parts.builder.model
    if not has_no_weights_here(found.recipe):
        return 1.0
    return (find_frozen_size(found.recipe, model) / model.image_size) ** 2


def begin_phases(found: Rehearsal) -> tuple[Cost, int]:
    """The work with which phases begin in the whole run, and how many images that extracts."""
    images, seconds, cpu = 0, 0.0, 0.0
    for loop in found.whole.loops:
        own, lap = found.whole.measure_start(loop)
        images, seconds, cpu = images + own, seconds + lap.seconds, cpu + lap.cpu
        for phase in loop.strategy.phases(loop.make_round(loop.schedule.total - 1)):
            own, lap = found.whole.measure_begin(loop, phase, loop.state.label_state)
            stages = [name_stage(phase.name, discovered) for discovered in (True, False)]
            times = sum(found.plan.phases[s].begins for s in stages if s in found.plan.phases)
            images += times * own
            seconds, cpu = seconds + times * lap.seconds, cpu + times * lap.cpu
    return Cost("what phases begin with", seconds, cpu), images


def cost(name: str, lap: Lap | None, times: float) -> Cost:
    """The cost of so many laps."""
    return Cost(name, times * lap.seconds, times * lap.cpu) if lap else Cost(name, 0.0, 0.0)


def scale(lap: Lap, factor: float) -> Lap:
    """A share of a lap."""
    return Lap(factor * lap.seconds, factor * lap.cpu, round(factor * lap.images))


class Room(NamedTuple):
    """Bytes: of memory at most, of a GPU's, of data on the disk and of the run folder."""

    memory: int
    device: int
    data: int
    folder: int


def measure_room(found: Rehearsal, imported: int) -> Room:
    """Memory and disk of the whole run.

    Args:
        imported: bytes of this process before anything was rehearsed.
    """
    plan, whole, recipe = found.plan, found.whole, found.recipe
    model: Any = whole.parts.modules.plain(whole.parts.strategy.deploys)
    width = 4 * (model.feature_size + getattr(model, "embedding_size", 0))
    cuts = [step.plan.images / max(1, step.measured) for step in cost_steps(found).values()]
    steps = max(cuts, default=1.0)
    memory = imported + found.limits.peak.estimate(steps)
    pixels = {id(whole.parts.pixels): whole.keeps[0], id(whole.parts.searched): whole.keeps[1]}
    memory += sum(pixels.values())
    grown = max(0, whole.module_bytes - found.module_bytes)
    memory += grown + width * (plan.train + plan.scored)
    count, folder = len(found.facts.data.records), found.folder
    rows = plan.steps / recipe.train.log_every + 4 * plan.evaluations
    disk = recipe.train.keep_checkpoints * (folder["checkpoint"] + grown)
    disk += folder["model"] + folder["initial"] + folder["best"] + int(rows * folder["row"])
    ledgers = plan.discoveries * len(whole.loops[0].discoverer.components)
    disk += int(ledgers * folder["ledger"] * plan.train / max(1, found.small))
    data = int(found.standin.bytes_an_image * count)
    return Room(memory, int(steps * found.device_peak), data, disk)


def count_decoded(found: Rehearsal) -> int:
    """Images that are decoded in all: examined, once if they are kept, else at each access."""
    plan, whole, data = found.plan, found.whole, found.recipe.data
    every = plan.train + plan.scored
    decoded = every if data.max_bad or data.drop_duplicates else 0
    decoded += plan.train if whole.keeps[0] else plan.extracted + begin_phases(found)[1] + sum(
        own.steps * own.sources for own in plan.phases.values()
    )  # fmt: skip
    if whole.parts.searched is not whole.parts.pixels or not whole.keeps[1]:
        evaluated = whole.before + plan.evaluations * whole.evaluated
        decoded += plan.scored if whole.keeps[1] else evaluated
    if prepares_otherwise(found.recipe, whole.parts.builder.model):
        decoded += count_frozen_images(found)
    return decoded
