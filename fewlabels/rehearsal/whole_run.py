"""The whole run as it would begin, without its images: what it keeps, and how fast it embeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fewlabels.contracts import LabelState, Phase
from fewlabels.models.modes import evaluating
from fewlabels.recipe.recipe import Recipe
from fewlabels.rehearsal.facts import Facts
from fewlabels.rehearsal.plan import count_images, count_module_bytes
from fewlabels.rehearsal.side_work import draw_features
from fewlabels.rehearsal.stopwatch import Lap, Stopwatch
from fewlabels.runs.check_start import plain_accelerator, start_without_images
from fewlabels.runs.parts import RunParts
from fewlabels.training.loop import Loop


@dataclass
class WholeRun:
    """A run of the full counts whose images are not there.

    Attributes:
        images_a_second: that the network embeds here, in training mode no faster.
        keeps: bytes of decoded training and of tested images that it keeps in memory; 0: they are
            read at each access.
        passes: width of what an evaluation scores, by model.
        before, evaluated: images extracted before training, and in one evaluation.
        module_bytes: of all parameters and buffers.
        begun: what phases and strategies begin with, once it was measured.
    """

    parts: RunParts
    loops: list[Loop]
    images_a_second: float
    keeps: tuple[int, int]
    passes: dict[str, int]
    before: int
    evaluated: int
    module_bytes: int
    begun: dict[str, tuple[int, Lap]] = field(default_factory=dict)

    def find_divisor(self, seconds: float) -> int:
        """By what the images of a step are divided, so that it takes about so long."""
        if torch.cuda.is_available():
            return 1
        phases = [p for each in self.loops for p in each.strategy.phases(each.make_round(0))]
        most = max(count_images(phase, 1)[0] for phase in phases)
        return max(1, round(4 * most / self.images_a_second / seconds))

    def measure_begin(self, loop: Loop, phase: Phase, found: LabelState) -> tuple[int, Lap]:
        """Images that one begin of a phase extracts, and the time of all else in it."""
        if phase.name not in self.begun:
            extract = CountingExtract(loop)
            watch = Stopwatch()
            with watch.measure("begin"):
                loop.strategy.begin(phase, loop.modules, found, extract)
            self.begun[phase.name] = extract.count, watch.average("begin")
        return self.begun[phase.name]

    def measure_start(self, loop: Loop) -> tuple[int, Lap]:
        """Images that the start of a strategy extracts, and the time of all else in it."""
        key = f"start of loop {self.loops.index(loop)}"
        if key not in self.begun:
            extract, watch = CountingExtract(loop), Stopwatch()
            with watch.measure("start"):
                loop.strategy.start(loop.modules, extract)
            self.begun[key] = extract.count, watch.average("start")
        return self.begun[key]


class CountingExtract:
    """Features of nothing, of as many images as are asked for; counts these."""

    def __init__(self, loop: Loop) -> None:
        model: Any = loop.modules.plain(loop.strategy.deploys)
        self.size, self.count = len(loop.trainer.batches.pixels), 0
        self.widths = {
            "features": model.feature_size,
            "embedding": getattr(model, "embedding_size", model.feature_size),
            "logits": len(getattr(model, "classes", ())) or 1,
        }

    def __call__(self, model: str, what: str = "embedding", rows: Any = None) -> np.ndarray:
        """As contracts.Extract."""
        count = self.size if rows is None else len(rows)
        self.count += count
        return draw_features(count, self.widths[what])


def look_at_whole(recipe: Recipe, facts: Facts) -> WholeRun:
    """Begin a run on data of which only the counts are known.

    Raises:
        FewLabelsError: what a run would refuse.
    """
    with plain_accelerator() as accelerator:
        parts, loops = start_without_images(recipe, accelerator, facts.data)
    model: Any = parts.modules.plain(parts.strategy.deploys)
    if recipe.model.frozen:  # what is trained does not see images
        model = parts.builder.model
    before = count_scored(parts, "before", {})
    passes: dict[str, int] = {}
    evaluated = count_scored(parts, "trained", passes)
    return WholeRun(
        parts,
        loops,
        measure_speed(model),
        find_kept(recipe, parts, model.resize_size),
        passes,
        before,
        evaluated,
        count_module_bytes(loops),
    )


def count_scored(parts: RunParts, when: str, passes: dict[str, int]) -> int:
    """Images that one evaluation extracts; ``passes`` gets the width of what each model gives."""
    counted = [0]

    def extract(name: str, fields: Sequence[str]) -> list[np.ndarray]:
        model: Any = parts.modules.plain(name)
        counted[0] += len(parts.scoring.rows)
        network: Any = getattr(model, "decision", model)
        widths = {"embedding": getattr(network, "embedding_size", 1)}
        widths |= {"features": network.feature_size, "logits": len(getattr(network, "classes", ()))}
        passes.update({name: widths[fields[-1]]})
        return [np.zeros((1, 1), np.float32) for _ in fields]

    parts.scoring.run_models(when, 1, extract)
    return counted[0]


def find_kept(recipe: Recipe, parts: RunParts, side: int) -> tuple[int, int]:
    """Bytes of decoded training and of other tested images that fit into the recipe's memory."""
    budget, image = recipe.data.memory * 2**30, 3 * side**2
    train = len(parts.pixels) * image
    kept = train if train <= budget else 0
    if parts.searched is parts.pixels:
        return kept, kept
    test = len(parts.searched) * image
    return kept, test if test <= budget - kept else 0


@torch.no_grad()
def measure_speed(model: Any) -> float:
    """Images that a model embeds in a second, here and now."""
    count = 4 if model.image_size > 100 else 16
    images = torch.rand(count, 3, model.image_size, model.image_size)
    with evaluating(model):
        model(images)
        begin = time.perf_counter(), time.process_time()
        model(images)
        taken = time.perf_counter() - begin[0], time.process_time() - begin[1]
    return count / max(1e-9, min(taken))  # what else the machine does counts little
