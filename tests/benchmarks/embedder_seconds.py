"""Milliseconds an image of EfficientNet-Lite0 at 112 px: embedding, and a training step of 120.

OMP_NUM_THREADS=1 python tests/benchmarks/embedder_seconds.py     (a minute on one core)

With and without the layers of high resolution trained; run it again with glibc told to keep freed memory
(MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=16000000000).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from fewlabels import Embedder
from fewlabels.models.modes import set_training

EARLY = ("conv_stem", "bn1", "blocks.0", "blocks.1")


def milliseconds(work: Callable[[], object], images: int) -> float:
    """The middle of five, after one that does not count."""
    seconds = []
    for _ in range(6):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return 1000 * sorted(seconds[1:])[2] / images


def main() -> None:
    torch.manual_seed(0)
    model = Embedder("tf_efficientnet_lite0", embedding_size=512, image_size=112)
    model.to(memory_format=torch.channels_last)
    images = torch.rand(120, 3, 112, 112).to(memory_format=torch.channels_last)

    def step() -> None:
        model(images).embedding.square().mean().backward()

    with torch.no_grad():
        print(f"embedding {milliseconds(lambda: model.eval()(images), 120):.1f} ms an image")
    set_training(model, freeze_statistics=True)
    print(f"training {milliseconds(step, 120):.1f} ms")
    for path, parameter in model.backbone.named_parameters():
        parameter.requires_grad_(not path.startswith(EARLY))
    model.zero_grad()
    print(f"training, {', '.join(EARLY)} fixed, {milliseconds(step, 120):.1f} ms")


if __name__ == "__main__":
    main()
