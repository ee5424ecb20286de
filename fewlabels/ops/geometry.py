"""3x3 maps of the plane: compose, invert, warp images and attention maps alike.

Every matrix maps homogeneous points (x, y, 1) of a source to a destination, both in [-1, 1] with
``align_corners=False`` (-1 and 1 are the outer edges of the outermost pixels). The same matrix then
warps a 227-pixel image and its 7 x 7 map alike; pixel units would shift one against the other by up
to half a cell. All functions take and give a batch (B, 3, 3) of float32.

Matrix products are written out: ``@`` runs in bfloat16 under autocast, which moves the pixels of a
227-pixel image by up to one, and in TF32 on a GPU if a program allows that.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

Padding = Literal["zeros", "border", "reflection"]


def identity_matrix(count: int) -> Tensor:
    """``count`` identity maps (count, 3, 3)."""
    return torch.eye(3).repeat(count, 1, 1)


def scaling_matrix(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Stretch about the centre by factors (B,); negative factors mirror. ``y`` None: as ``x``."""
    matrix = identity_matrix(len(x))
    matrix[:, 0, 0] = x
    matrix[:, 1, 1] = x if y is None else y
    return matrix


def shift_matrix(x: Tensor, y: Tensor) -> Tensor:
    """Move by ``x`` and ``y`` (B,), in units of half a side."""
    matrix = identity_matrix(len(x))
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def rotation_matrix(angle: Tensor) -> Tensor:
    """Turn about the centre by (B,) radians, clockwise as seen (y points down)."""
    matrix = identity_matrix(len(angle))
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 1, 0] = angle.sin()
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    return matrix


def crop_matrix(box: Tensor) -> Tensor:
    """Enlarge boxes (B, 4), xyxy in [-1, 1], to the whole destination."""
    low, high = box[:, :2], box[:, 2:]
    matrix = identity_matrix(len(box))
    factor = 2.0 / (high - low)
    matrix[:, [0, 1], [0, 1]] = factor
    matrix[:, :2, 2] = -(low + high) / 2.0 * factor
    return matrix


def perspective_matrix(corners: Tensor) -> Tensor:
    """Send the corners of the square, clockwise from the upper left, to ``corners`` (B, 4, 2)."""
    source = corners.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]]).expand(len(corners), 4, 2)
    x, y = source.unbind(2)
    u, v = corners.unbind(2)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    # u (g x + h y + 1) = a x + b y + c and the same for v: eight equations for a..h
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], 2)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], 2)
    system = torch.cat([rows_u, rows_v], 1).double()  # (B, 8, 8)
    solution = torch.linalg.solve(system, torch.cat([u, v], 1).double())
    matrix = torch.cat([solution, solution.new_ones(len(corners), 1)], 1).view(-1, 3, 3)
    return matrix.to(corners.dtype)


def compose_maps(first: Tensor, *more: Tensor) -> Tensor:
    """One map that applies ``first``, then each of ``more`` in order."""
    for matrix in more:
        first = (matrix[:, :, :, None] * first[:, None]).sum(2)
    return first


def invert_map(matrix: Tensor) -> Tensor:
    """The inverse maps; a point in front of the horizon in one direction is so in the other."""
    a, b, c = matrix.unbind(1)
    cross = torch.linalg.cross
    adjugate = torch.stack([cross(b, c), cross(c, a), cross(a, b)], 2)
    return adjugate / (a * adjugate[:, :, 0]).sum(1)[:, None, None]


def map_points(matrix: Tensor, points: Tensor) -> Tensor:
    """Apply maps to points (B, n, 2); points on or behind the horizon go to infinity."""
    x, y = points[..., :1], points[..., 1:]
    m = matrix[:, None]
    ahead = x * m[..., 0] + y * m[..., 1] + m[..., 2]  # (B, n, 3)
    depth = ahead[..., 2:]
    return torch.where(depth > 1e-6, ahead[..., :2] / depth.clamp(min=1e-6), torch.inf)


def cell_centres(height: int, width: int) -> Tensor:
    """The centres of a grid's cells, row by row: (H * W, 2) as x, y in [-1, 1]."""
    y = (torch.arange(height) * 2 + 1) / height - 1
    x = (torch.arange(width) * 2 + 1) / width - 1
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], 1)


def source_points(matrix: Tensor, height: int, width: int) -> Tensor:
    """The source point of each cell of the destination: (B, H, W, 2) as x, y."""
    grid = cell_centres(height, width).to(matrix).expand(len(matrix), -1, -1)
    return map_points(invert_map(matrix), grid).view(-1, height, width, 2)


def valid_mask(matrix: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W) bool: cells of the destination whose source lies inside the image."""
    return (source_points(matrix, height, width).abs() <= 1).all(-1)


def warp_images(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int] | None = None,
    padding: Padding = "zeros",
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Tensor:
    """Warp images or feature maps (B, C, H, W) by ``matrix``, in one interpolation.

    Args:
        size: height and width of the result; None keeps those of ``images``.
        padding: how to fill cells whose source point lies outside the image.
        mode: "nearest" copies pixels; for maps that send centres of pixels to centres of pixels.

    Returns:
        (B, C, *size) in the floating type of ``images``.
    """
    height, width = size or images.shape[-2:]
    grid = source_points(matrix, height, width).to(images)
    # Far outside is outside; an infinite coordinate would make NaN.
    grid = grid.nan_to_num(posinf=1e4, neginf=-1e4).clamp(-1e4, 1e4)
    return grid_sample(images, grid, mode=mode, padding_mode=padding, align_corners=False)


def keypoint_mask(
    points: Tensor, there: Tensor, size: tuple[int, int], sigma: float = 0.2
) -> Tensor:
    """G = min(1, sum of Gaussians about keypoints), which weighs attention maps (Eq. 4.4, 4.5).

    Args:
        points: (B, P, 2) as x, y in [-1, 1].
        there: (B, P) bool, false for padding.
        size: height and width of the mask.
        sigma: standard deviation of a Gaussian, in units of half a side.

    Returns:
        (B, 1, *size).
    """
    cells = cell_centres(*size).to(points)  # (H * W, 2)
    squares = (points[:, :, None] - cells).square().sum(3)  # (B, P, H * W)
    bells = torch.exp(-squares / (2 * sigma**2)) * there[:, :, None]
    return bells.sum(1).clamp(max=1).view(-1, 1, *size)
