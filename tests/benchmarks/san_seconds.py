"""Seconds of a training step with SAN against one without, and those of SAN's parts.

    python tests/benchmarks/san_seconds.py [BACKBONE PIXELS BATCH AFTER...]

By default GoogLeNet at 227 pixels, 16 images, SAN after inception5a (7 x 7 positions) and after
inception4e (14 x 14): forward, multi-similarity loss, the three terms of SAN, backward, Adam. Steps
with and without take turns in one process; the median of the paired ratios of 15. About 4 minutes
on two cores. Results: docs/results/.
"""

import itertools
import statistics
import sys
import time

import torch

from fewlabels import Embedder
from fewlabels.components.blocks import san_weights as weighing
from fewlabels.components.losses.multi_similarity import MultiSimilarity
from fewlabels.contracts import collect_terms
from fewlabels.models.insert import layout_after

TURNS = 15


def stepper(backbone: str, pixels: int, batch: int, after: str | None):
    """A function that takes one training step and gives its seconds."""
    torch.manual_seed(0)
    san = {"name": "san", "predictor": "conv", "normalise": "sinkhorn", "scale": None}
    blocks = [{**san, "after": after}] if after else []
    model = Embedder(backbone, image_size=pixels, embedding_size=512, blocks=blocks).train()
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    images = torch.rand(batch, 3, pixels, pixels).contiguous(memory_format=torch.channels_last)
    labels, loss = torch.arange(batch) // 4, MultiSimilarity()
    counted = [name for name in ("san.entropy", "san.correlation", "san.coherence") if after]

    def step() -> float:
        start = time.perf_counter()
        with collect_terms() as terms:
            total = loss(model(images).embedding, labels)
            total = total + sum(0.01 * terms[name][0] for name in counted)
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    return step


def seconds(function, turns: int = 5) -> float:
    """Median of ``turns`` calls after a first."""
    function()
    stamps = [time.perf_counter()]
    for _ in range(turns):
        function()
        stamps.append(time.perf_counter())
    return statistics.median(b - a for a, b in itertools.pairwise(stamps))


def parts(batch: int, channels: int, side: int) -> None:
    """Forward and backward of each of SAN's parts by itself."""
    count = side * side
    logits = torch.randn(batch, count, count, requires_grad=True)
    maps = torch.rand(batch, channels, side, side)
    logs = weighing.normalise_by_sinkhorn(logits.detach(), 20).requires_grad_()
    weights = logs.detach().exp().requires_grad_()
    each = {
        "sinkhorn": lambda: weighing.normalise_by_sinkhorn(logits, 20).sum().backward(),
        "entropy": lambda: weighing.assembly_entropy(logs).backward(),
        "correlation": lambda: weighing.assembly_correlation(weights).backward(),
        "coherence": lambda: weighing.assembly_coherence(weights, maps).backward(),
        "assembly": lambda: (maps.flatten(2) @ weights).sum().backward(),
    }
    for name, function in each.items():
        print(f"    {name}: {1000 * seconds(function):.1f} ms")


def main() -> None:
    """Print the ratio for each place."""
    backbone, pixels, batch, *places = sys.argv[1:] or ["googlenet", "227", "16"]
    given = (int(pixels), int(batch))
    without = stepper(backbone, *given, None)
    for after in places or ["inception5a", "inception4e"]:
        bare = Embedder(backbone, image_size=given[0], embedding_size=8).backbone
        layout = layout_after(bare, after, given[0])
        channels, side = layout.channels, layout.height
        step = stepper(backbone, *given, after)
        times = [(without(), step()) for _ in range(TURNS + 1)][1:]
        plain, full = (statistics.median(t) for t in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        print(f"{backbone}, {pixels} pixels, {batch} images, SAN after {after} ({side} x {side}):")
        print(f"  without {plain:.3f} s, with {full:.3f} s, ratio {ratio:.3f}")
        parts(given[1], channels, side)


if __name__ == "__main__":
    main()
