"""Pretraining: a run of its own before the run, on the same images and without their labels."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from fewlabels.checkpoint import checkpoints
from fewlabels.contracts import Strategy
from fewlabels.metrics import Metrics
from fewlabels.models.running import Running
from fewlabels.plan import Plan
from fewlabels.rounds import Loop


def pretrain(
    accelerator: Accelerator,
    strategy: Strategy,
    running: Running,
    folder: Path,
    make_loop: Callable[..., Loop],
    seed: int,
    **plan: Any,
) -> Path:
    """Train the student of a pretext strategy, and keep its backbone.

    A run that was stopped goes on; one that has ended is not run again.

    Args:
        folder: of this run: its checkpoints and metrics, and ``backbone.safetensors``.
        make_loop: makes a Loop; what the two runs have in common is set.
        plan: how steps are carried out.

    Returns:
        The file of the backbone's weights.
    """
    place = folder / "backbone.safetensors"
    if place.is_file():
        return place
    main = accelerator.is_main_process
    if main:
        folder.mkdir(exist_ok=True)
    metrics = Metrics(folder / "metrics.jsonl" if main else None)
    if not checkpoints(folder / "checkpoints"):
        metrics.cut(0)  # of a run that was stopped before its first checkpoint
    schedule = Plan(
        epochs_per_round=strategy.epochs,  # type: ignore[attr-defined]
        evaluate_every=0,
        **plan,
    )
    loop = make_loop(
        strategy=strategy,
        running=running,
        plan=schedule,
        seed=seed,
        weights=strategy.weights,
        evaluate=lambda when, discoveries: [],
        embed=lambda name, what: None,
        folder=folder,
        metrics=metrics,
    )
    loop.prepare()
    loop.run()
    if main:
        seconds = sum(row["seconds"] for row in metrics.rows() if row["kind"] == "round")
        metrics.write([{"kind": "end", "minutes": seconds / 60, "steps": loop.at.step}])
        backbone: Any = running.plain("student").backbone
        tensors = {k: v.detach().cpu().contiguous() for k, v in backbone.state_dict().items()}
        half = place.with_suffix(".half")
        save_file(tensors, half)
        os.replace(half, place)
    accelerator.wait_for_everyone()
    return place


def start_from(place: Path, backbone: nn.Module) -> None:
    """Fill a backbone; its classifier, which pretraining did not have, stays as it is."""
    unknown = backbone.load_state_dict(load_file(place), strict=False).unexpected_keys
    assert not unknown, f"{place} is of another backbone: {unknown[:3]}"


def cost(folder: Path) -> dict[str, float]:
    """Minutes and steps of a pretraining; nothing where there was none."""
    path = folder / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    ends = [row for row in map(json.loads, lines) if row["kind"] == "end"]
    return {key: ends[-1][key] if ends else 0 for key in ("minutes", "steps")}
