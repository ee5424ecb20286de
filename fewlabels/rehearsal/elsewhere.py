"""How long a run takes on another machine, of which a person knows how many images a second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fewlabels.errors import FewLabelsError
from fewlabels.rehearsal.costs import (
    Cost,
    begin_phases,
    cost_run,
    count_decoded,
    count_frozen_images,
)
from fewlabels.rehearsal.measure import Rehearsal

EMBED = 3.0
"""Times as fast as training is embedding alone, which has no backward pass, if nobody says."""
PARTS = ("train", "embed", "decode")


def parse_throughputs(words: Iterable[str]) -> dict[str, float]:
    """Images a second by name: of a backbone, of ``embed`` or ``decode``, or of ``train``.

    Args:
        words: ``900``, or ``NAME=900``; the tag after a backbone's name does not count.

    Raises:
        FewLabelsError: no number above 0, or none of training.
    """
    found = {}
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise FewLabelsError(
                f"--images-per-second {word}: expected a number above 0, or NAME=NUMBER with a "
                f"backbone or one of {', '.join(PARTS)}"
            )
        found[name.partition(".")[0] or "train"] = rate
    if found and not set(found) - {"embed", "decode"}:
        raise FewLabelsError(
            f"--images-per-second {', '.join(found)}: a time there needs images a second in "
            "training too: NUMBER, or NAME=NUMBER with a backbone"
        )
    return found


def name_unused(rates: Mapping[str, float], backbones: Iterable[str]) -> list[str]:
    """The names of rates that are neither of a part of the work nor of one of some backbones."""
    return sorted(set(rates) - set(PARTS) - {name.partition(".")[0] for name in backbones})


def find_rate(found: Rehearsal, rates: Mapping[str, float]) -> float | None:
    """Images a second in training there, of the recipe's backbone first; None if nobody says."""
    return rates.get(found.recipe.model.backbone.split(".")[0], rates.get("train"))


def cost_elsewhere(found: Rehearsal, rates: Mapping[str, float]) -> list[Cost]:
    """What the whole run costs there; discovery and scores as here, since they run on the CPU.

    Args:
        rates: with one for the recipe's backbone, or for ``train``.
    """
    train = find_rate(found, rates)
    assert train is not None
    embed = rates.get("embed", EMBED * train)
    plan, whole = found.plan, found.whole
    seen = sum(own.steps * own.images for own in plan.phases.values())
    embedded = plan.extracted + whole.before + plan.evaluations * whole.evaluated
    embedded += begin_phases(found)[1] + count_frozen_images(found)
    costs = [
        Cost(f"{seen:,} images in training", seen / train, 0.0),
        Cost(f"{embedded:,} images embedded", embedded / embed, 0.0),
    ]
    if "decode" in rates:
        decoded = count_decoded(found)
        costs.append(Cost(f"{decoded:,} images decoded", decoded / rates["decode"], 0.0))
    kept = ("discovery", "scores", "what phases")
    return costs + [each for each in cost_run(found) if each.name.startswith(kept)]
