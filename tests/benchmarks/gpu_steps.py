"""Two steps of every strategy in float32, bf16 and fp16: are all losses finite?

    python tests/benchmarks/gpu_steps.py     (a minute on a GPU, two on two cores, which have no fp16)

Each run has 1,200 images of digits, of which 40 are labelled (for retrieval 901, and none), a narrow network, a discovery
and a checkpoint, and is scored after each round. A line a strategy with its smallest and largest loss; the exit status is 1
if one is not finite.
"""

from __future__ import annotations

import io
import sys
import tempfile
from contextlib import redirect_stdout
from typing import Any

import torch

import fewlabels
from fewlabels.errors import FewLabelsError
from fewlabels.registry import strategies
from fewlabels.training.run_folder import RunFolder

RECIPE: dict[str, Any] = {
    "data": {"source": "digits", "split": "official", "labels": 40},
    "model": {"backbone": "convnet5", "image_size": 32, "backbone_options": {"width": 0.25}},
    "views": [{"name": "flip"}],
    "optimizer": {"name": "adam", "lr": 1e-3},
    "rounds": {"rounds": 2, "steps_per_epoch": 2},
    "evaluation": {"before": False},
    "train": {"log_every": 1},
}
RETRIEVAL = {
    "data": {"source": "digits", "split": "zero_shot", "labels": "none"},
    "discovery": {"name": "kmeans", "clusters": 10},
    "losses": "multi_similarity",
}


def write_recipe(name: str, precision: str) -> dict[str, Any]:
    """A recipe that trains a strategy for two rounds of two steps."""
    recipe = {**RECIPE, "train": {**RECIPE["train"], "precision": precision}, "strategy": name}
    if strategies.get(name).task == "pretext":
        return {**recipe, "strategy": "supervised", "pretrain": name}
    if strategies.get(name).task == "retrieval":
        own = {"name": name, "batch": 40, "per_class": 4}
        return {**recipe, **RETRIEVAL, "strategy": own}
    return recipe | {"discovery": {"name": "confident", "by": "student"}}


def run_steps(name: str, precision: str) -> str:
    """The smallest and largest loss of a run; or why it ended, as with a loss that is not finite."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        try:
            run = fewlabels.train(write_recipe(name, precision), out=folder)
        except FewLabelsError as error:
            return f"{precision}: FAILED, {error}"
        parts = [run.folder, run.folder / "pretrain"]
        rows = [row for part in parts for row in RunFolder(part).read_metrics()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    return f"{precision}: {min(losses):.3g} to {max(losses):.3g}"


def main() -> int:
    """Run all strategies in all precisions that this device has."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the processor"
    precisions = ["no", "bf16", *(["fp16"] if torch.cuda.is_available() else [])]
    print(f"on {device}", flush=True)
    failed = 0
    for name in strategies.list_offers():
        told = [run_steps(name, precision) for precision in precisions]
        failed += sum("FAILED" in each for each in told)
        print(f"{name:20} {'; '.join(told)}", flush=True)
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
