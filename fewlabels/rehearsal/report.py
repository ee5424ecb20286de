"""A rehearsal in words: a line, or a page."""

from __future__ import annotations

from collections.abc import Mapping

from fewlabels.rehearsal.costs import (
    PARTS,
    Cost,
    cost_run,
    cost_steps,
    count_decoded,
    measure_room,
)
from fewlabels.rehearsal.elsewhere import cost_elsewhere, find_rate
from fewlabels.rehearsal.facts import describe_labels
from fewlabels.rehearsal.measure import Rehearsal


def format_time(seconds: float) -> str:
    """Seconds in the largest unit of which there are two or more."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def format_bytes(count: float) -> str:
    """Bytes as MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def sum_costs(costs: list[Cost]) -> float:
    """Seconds in all."""
    return sum(each.seconds for each in costs)


def format_line(found: Rehearsal, rates: Mapping[str, float], imported: int, device: str) -> str:
    """One recipe's rehearsal in a line."""
    plan, room = found.plan, measure_room(found, imported)
    seen = sum(own.steps * own.images for own in plan.phases.values())
    costs = cost_run(found)
    cpu = format_time(sum(each.cpu for each in costs))
    words = [
        f"{plan.steps:,} steps",
        f"{seen:,} images seen",
        f"{count_decoded(found):,} decoded",
        f"{format_time(sum_costs(costs))} here ({device}; {cpu} of the processor)",
        f"{format_bytes(room.memory)} memory",
        f"{format_bytes(room.data + room.folder)} disk",
    ]
    if find_rate(found, rates):
        words.insert(4, f"{format_time(sum_costs(cost_elsewhere(found, rates)))} there")
    return f"{', '.join(words)}; rehearsed in {found.seconds:.0f} s"


def format_page(found: Rehearsal, rates: Mapping[str, float], imported: int, device: str) -> str:
    """One recipe's rehearsal in full."""
    costs, room, plan = cost_run(found), measure_room(found, imported), found.plan
    lines = [f"rehearsed in {found.seconds:.0f} s on {device}", *describe_standin(found)]
    lines += ["", "The whole run"]
    lines += format_steps(found)
    lines.append(
        f"  {plan.discoveries} discoveries, {plan.evaluations} evaluations of {plan.scored:,} "
        f"images, {plan.checkpoints} checkpoints; {count_decoded(found):,} images decoded"
    )
    lines += ["", f"Its time here ({device})", *format_costs(costs)]
    if find_rate(found, rates):
        given = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
        there = cost_elsewhere(found, rates)
        lines += ["", f"Its time there (images a second: {given})", *format_costs(there)]
    disk = f"{format_bytes(room.data)} of data" if room.data else "data as they are"
    lines += ["", f"Memory at most {format_bytes(room.memory)}"]
    if room.device:
        lines[-1] += f", and {format_bytes(room.device)} of the GPU"
    lines.append(f"Disk: {disk}, {format_bytes(room.folder)} for the run folder")
    return "\n".join(lines)


def describe_standin(found: Rehearsal) -> list[str]:
    """What the rehearsal looked at."""
    counts = describe_labels(found.facts.data)
    labelled = f", {counts['labelled']:,} labelled" if counts["labelled"] else ""
    lines = [
        f"  data: {counts['train']:,} images train{labelled}, of {counts['classes']:,} classes; "
        f"{counts['test']:,} are tested ({found.facts.origin})"
    ]
    if found.standin.records is not None:
        width, height = found.facts.sides
        lines.append(
            f"  on {len(found.standin.records):,} stand-in images of {width} x {height} in the "
            f"layout of {found.recipe.source.name}, of which {found.small:,} trained"
        )
    else:
        lines.append(f"  on the images of {found.recipe.source.name} themselves")
    if found.limits.random:
        lines.append(f"  with random weights of {found.recipe.model.backbone}: nothing was fetched")
    if found.limits.halted:
        lines.append("  it was stopped in its second round, gone on with, saved and loaded again")
    return [*lines, *(f"  {remark}" for remark in found.recipe.remarks)]


def format_steps(found: Rehearsal) -> list[str]:
    """The steps of each stage, and what one takes by part."""
    head = f"  {'steps of':44}{'steps':>11}{'images a step':>15}{'s a step':>10}"
    lines = [head + "".join(f"{part:>10}" for part in PARTS)]
    for stage, step in cost_steps(found).items():
        row = f"  {stage:44}{step.plan.steps:11,}{step.plan.images:15,}{step.whole.seconds:10.3f}"
        row += "".join(f"{step.parts[part]:10.3f}" for part in PARTS)
        if step.measured != step.plan.images:
            row += f"  (measured with {step.measured} images, in proportion)"
        lines.append(row)
    return lines


def format_costs(costs: list[Cost]) -> list[str]:
    """A line for each kind of work, and their sum."""
    lines = [
        f"  {each.name:52}{format_time(each.seconds):>12}{f'  {each.how}' if each.how else ''}"
        for each in costs
        if each.seconds >= 0.05
    ]
    cpu = sum(each.cpu for each in costs)
    own = f"  ({format_time(cpu)} of the processor)" if cpu else ""
    return [*lines, f"  {'in all':52}{format_time(sum_costs(costs)):>12}{own}"]
