"""What a model makes of a set of images, in evaluation mode, in as many processes as there are."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from fewlabels.data.pixels import Pixels, centre


@torch.no_grad()
def extract(
    accelerator: Accelerator,
    model: nn.Module,
    pixels: Pixels,
    image_size: int,
    what: tuple[str, ...] = ("embedding",),
    batch: int = 128,
    workers: int = 0,
    rows: np.ndarray | None = None,
) -> list[np.ndarray]:
    """The named fields of a model's Output for every image.

    Args:
        rows: positions (N,) of the images that are wanted; None is all.

    Returns:
        (N, D) float32 each, in the order of ``rows`` and the same in every process.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    processes, rank = accelerator.num_processes, accelerator.process_index
    wanted = np.arange(len(pixels)) if rows is None else rows
    share = -(-len(wanted) // processes)
    # Every process takes a stretch of equal length; the last image stands in past the end.
    mine = wanted[np.minimum(np.arange(rank * share, (rank + 1) * share), len(wanted) - 1)]
    positions = [mine[i : i + batch].tolist() for i in range(0, share, batch)]
    found: dict[str, list[Tensor]] = {name: [] for name in what}
    hidden = True if not accelerator.is_main_process else None
    loader = pixels.batches(positions, workers)
    for _, images in tqdm(loader, "embed", len(positions), disable=hidden, leave=False):
        images = centre(images, image_size).to(accelerator.device).float() / 255
        with accelerator.autocast():
            output = model(images)
        for name in what:
            found[name].append(getattr(output, name).float())
    for module, mode in training.items():
        module.training = mode
    gathered = [accelerator.gather(torch.cat(found[name])) for name in what]
    return [value[: len(wanted)].cpu().numpy() for value in gathered]
