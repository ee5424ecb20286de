"""Pictures with something to see in them, made where they are needed."""

import numpy as np
import torch
from PIL import Image

from fewlabels.ops import geometry


def texture(seed, size=256):
    """Noise of several scales, as a photograph has it."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.random((cells, cells)).astype(np.float32)).resize(
                (size, size), Image.Resampling.BICUBIC
            )
        )
        for cells in (6, 16, 40)
    ]
    image = np.clip(sum(layers) / 3, 0, 1)
    return Image.fromarray((255 * image).astype(np.uint8)).convert("RGB")


def moved(image, angle=0.0, zoom=1.0, x=0.0, y=0.0, tilt=1.0):
    """The image under a known affine map, and that map (2, 3) in [-1, 1]."""
    one = torch.tensor
    matrix = geometry.compose_maps(
        geometry.rotation_matrix(one([angle])),
        geometry.scaling_matrix(one([zoom * tilt]), one([zoom])),
        geometry.shift_matrix(one([x]), one([y])),
    )
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    warped = geometry.warp_images(pixels, matrix)[0].permute(1, 2, 0).byte().numpy()
    return Image.fromarray(warped), matrix[0, :2].numpy()
