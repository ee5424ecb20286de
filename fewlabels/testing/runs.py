"""Short complete runs of a strategy on a few small images, in one process and in two."""

from __future__ import annotations

import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import fewlabels
from fewlabels.contracts import Part, Stream
from fewlabels.recipe.recipe import Recipe, recipe_from
from fewlabels.registry import REGISTRIES
from fewlabels.testing.subject import Subject
from fewlabels.training.run_folder import RunFolder

_PLACE = tempfile.TemporaryDirectory(prefix="fewlabels-conformance-")
_RUNS: dict[tuple[str, Changed], ShortRun] = {}
_PAIRS: dict[str, ShortRun | str] = {}
Changed = Literal["nothing", "hidden labels", "weights", "weights and labels"]
"""What a strategy is given otherwise: other labels in streams that hide them; 0 as the weight of
each label; other labels of weight 0."""
SECONDS = 300  # for each recipe in two processes


@dataclass
class StepRecord:
    """What was recorded during a run's steps; parameters are given by their paths."""

    steps: set[int | None] = field(default_factory=set)  # what phases say of their number
    terms: list[tuple[str, Tensor]] = field(default_factory=list)
    trained: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    leaks: set[str] = field(default_factory=set)  # parameters of averages with a gradient


@dataclass
class ShortRun:
    """A finished run: its folder, its recipe, and what was recorded of its steps."""

    folder: Path
    recipe: Recipe
    seen: StepRecord

    @property
    def data(self) -> Path:
        """The folder of the images that the run was trained on."""
        return Path(self.recipe.source.options["path"])

    def read_rows(self, kind: str, part: str = "") -> list[dict[str, Any]]:
        """Rows of metrics.jsonl, or of a part such as ``pretrain``; empty if it does not exist."""
        rows = RunFolder(self.folder / part).read_metrics()
        return [row for row in rows if row["kind"] == kind]


def recipe_of(subject: Subject, name: str | None = None) -> dict[str, Any]:
    """A recipe that runs the strategy for a few steps on 40 images of 4 classes.

    Args:
        name: of the strategy to use; None: the subject's own.
    """
    component: Any = subject.component
    strategy = {"name": name or subject.name, **subject.options}
    recipe: dict[str, Any] = {
        "name": _name_subject(subject),
        "data": {"source": "folder", "path": str(_make_images()), "split": "official", "labels": 4},
        "model": {
            "backbone": "convnet3",
            "image_size": 16,
            "embedding_size": 8,
            "backbone_options": {"width": 0.25},
            "freeze_batchnorm": "statistics",
        },
        "views": {"name": "flip"},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "rounds": {"rounds": 2, "steps_per_epoch": 2},
        "evaluation": {"before": False, "every": 0},
        "train": {"checkpoint_every": 1, "keep_checkpoints": 99, "log_every": 1},
        "strategy": strategy,
        "discovery": {"name": "confident", "by": "student"},
    }
    if component.task == "pretext":
        recipe["strategy"] = {"name": "supervised", "labelled": 8, "batch": 8}
        recipe["pretrain"] = strategy
    elif component.task == "retrieval":
        recipe["data"]["labels"] = "none"
        recipe["discovery"] = {"name": "kmeans", "clusters": 4}
        recipe["losses"] = "multi_similarity"
    return {**recipe, **subject.recipe}


def run_of(subject: Subject, changed: Changed = "nothing") -> ShortRun:
    """Run the subject in this process and record its steps; a second call returns the same run."""
    key = _name_subject(subject), changed
    if key not in _RUNS:
        with _watch_strategy(subject, changed) as (name, seen):
            recipe = recipe_from(recipe_of(subject, name))
            out = Path(_PLACE.name) / changed.replace(" ", "-")
            folder = fewlabels.train(recipe, out=out).folder
        own = recipe_from(recipe_of(subject))  # to be resumed without being watched
        RunFolder(folder).recipe.write_text(own.to_yaml(), "utf-8")
        metrics, watched = RunFolder(folder).metrics, json.dumps(name)
        unwatched = json.dumps(subject.name).ljust(len(watched))  # checkpoints note where lines end
        metrics.write_text(metrics.read_text("utf-8").replace(watched, unwatched), "utf-8")
        _RUNS[key] = ShortRun(folder, own, seen)
    return _RUNS[key]


@contextmanager
def _watch_strategy(subject: Subject, changed: Changed) -> Iterator[tuple[str, StepRecord]]:
    """Register, for the duration, a subclass of the strategy that records what its steps do."""
    component, seen = subject.component, StepRecord()
    assert inspect.isclass(component), f"strategy {subject.name!r} is no class"

    class Watched(component):  # type: ignore[misc, valid-type]
        __doc__ = component.__doc__
        __module__ = "conformance"

        def phases(self, round: Any) -> list[Any]:
            """The strategy's own phases, whose numbers of steps are recorded."""
            declared: list[Any] = super().phases(round)
            seen.steps |= {getattr(phase, "steps", None) for phase in declared}
            return declared

        def losses(self, phase: Any, models: Any, batch: Any, clock: Any) -> dict[str, Tensor]:
            """The strategy's own losses, recorded."""
            batch = {n: _change_part(changed, phase.streams[n], p) for n, p in batch.items()}
            found: dict[str, Tensor] = super().losses(phase, models, batch, clock)
            seen.terms += [(name, value.detach()) for name, value in found.items()]
            for module in (*phase.trains, *phase.averages):
                trained = module in phase.trains
                for path, parameter in models.plain(module).named_parameters():
                    name = f"{module}.{path}"
                    if trained and parameter.requires_grad and name not in seen.trained:
                        seen.trained.add(name)
                        parameter.register_post_accumulate_grad_hook(
                            lambda _, name=name: seen.reached.add(name)
                        )
                    elif not trained and parameter.grad is not None:
                        seen.leaks.add(name)
            return found

    name = f"{subject.name.replace(':', '.')}.watched"
    subject.registry.register(name)(Watched)
    try:
        yield name, seen
    finally:
        del subject.registry._registered[name]


def _change_part(changed: Changed, stream: Stream, part: Part) -> Part:
    """A part of a batch as a run is given it in which something is changed."""
    hides = stream.of in ("all", "unlabelled")
    if changed == "hidden labels" and hides:
        return part._replace(labels=torch.full_like(part.labels, 3))
    if changed.startswith("weights") and not hides:
        labels = (part.labels + 1) % 4 if changed == "weights and labels" else part.labels
        return part._replace(labels=labels, weights=torch.zeros_like(part.labels).float())
    return part


def in_two_processes(subject: Subject, expected: Sequence[Subject]) -> ShortRun:
    """Run the subject in two processes.

    Starting torch takes seconds, so all ``expected`` subjects are run with one start.

    Raises:
        AssertionError: the run failed; the message has its output.
    """
    pending = {
        _name_subject(each): each
        for each in [subject, *expected]
        if _name_subject(each) not in _PAIRS
    }
    while pending:
        out = Path(tempfile.mkdtemp(dir=_PLACE.name))
        modules = {  # what is registered by a decorator is known where its module is imported
            module
            for registry in REGISTRIES.values()
            for components in registry._registered.values()
            for module in components
            if not module.startswith("fewlabels.")
        }
        order = {key: recipe_from(recipe_of(each)) for key, each in pending.items()}
        for number, recipe in enumerate(order.values()):
            (out / f"{number:03d}.yaml").write_text(recipe.to_yaml(), "utf-8")
        told = _start_two([str(out), *sorted(modules)], SECONDS * len(order))
        before = len(pending)
        for key, recipe in order.items():
            run = ShortRun(out / recipe.name, recipe, StepRecord())
            if run.read_rows("end"):
                _PAIRS[key] = run
                del pending[key]
        if len(pending) == before or told:  # the first that has not ended is the one that failed
            for key in list(pending)[:1]:
                _PAIRS[key] = told
                del pending[key]
    found = _PAIRS[_name_subject(subject)]
    assert isinstance(found, ShortRun), f"in two processes it failed:\n{found}"
    return found


def _start_two(words: list[str], seconds: int) -> str:
    """Run ``fewlabels.testing.two_processes`` in two processes; the output of those that failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    same = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    files = [Path(words[0], f"printed-{rank}.txt") for rank in range(2)]  # a pipe would fill
    started = []
    for rank, file in enumerate(files):
        with file.open("w") as printed:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "fewlabels.testing.two_processes", *words],
                    env={**same, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                )
            )
    late = ""
    try:
        for process in started:
            process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        late = f"it did not end within {seconds} s\n"
    finally:
        for process in started:
            process.kill()
    told = [
        file.read_text("utf-8", "replace")[-2000:]
        for file, process in zip(files, started, strict=True)
        if process.wait()
    ]
    return late + "\n".join(sorted(told, key=lambda text: "closed by peer" in text))


def _make_images() -> Path:
    """A folder of 40 images of 4 classes, in ``train`` and ``test``; made once."""
    folder = Path(_PLACE.name) / "images"
    if not folder.exists():
        rng = np.random.default_rng(0)
        colours = rng.integers(40, 216, (4, 1, 1, 3))
        for i in range(40):
            place = folder / ("train" if i < 32 else "test") / "abcd"[i % 4]
            place.mkdir(parents=True, exist_ok=True)
            pixels = colours[i % 4] + rng.integers(-40, 40, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    return folder


def _name_subject(subject: Subject) -> str:
    """A run name that is unique for the strategy, its options and its recipe."""
    more = json.dumps([subject.options, subject.recipe], sort_keys=True, default=str)
    return f"{subject.name.replace(':', '.')}-{zlib.crc32(more.encode())}"
