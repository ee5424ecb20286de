"""A matrix means the same for a point, an image and an attention map."""

import math

import pytest
import torch

from fewlabels.components.views.flip import Flip
from fewlabels.components.views.homography import Homography
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.ops import geometry


def blob(side, x, y, width):
    """A bump of ``width`` around the point (x, y) of [-1, 1]: (1, 1, side, side)."""
    cells = geometry.cell_centres(side, side).view(side, side, 2)
    return torch.exp(-((cells[..., 0] - x) ** 2 + (cells[..., 1] - y) ** 2) / (2 * width**2))[
        None, None
    ]


def centroid(maps):
    """The centre of mass of maps (B, 1, H, W), in [-1, 1]."""
    cells = geometry.cell_centres(*maps.shape[-2:])
    mass = maps.flatten(1)
    return mass @ cells / mass.sum(1, keepdim=True)


def random_maps(count, seed=0):
    views = [
        Homography(crop=(0.5, 1), rotation=30, zoom=(0.8, 1.2), shift=0.1, perspective=0.2),
        Flip(),
    ]
    images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    return Pipeline(views)(images, torch.Generator().manual_seed(seed)).matrix


def test_warping_then_reading_a_point_equals_mapping_the_point():
    side, matrix = 96, random_maps(100)
    warped = geometry.warp_images(blob(side, 0.2, -0.1, 0.08).expand(100, -1, -1, -1), matrix)
    mapped = geometry.map_points(matrix, torch.tensor([[[0.2, -0.1]]]).expand(100, 1, 2))[:, 0]
    inside = (mapped.abs() < 0.6).all(1)
    assert inside.sum() > 80
    error = (centroid(warped) - mapped)[inside].abs().max() * side / 2
    assert error < 0.5  # pixels


def test_a_small_map_warped_agrees_with_the_warped_image():
    matrix = random_maps(50, seed=1)
    fine = geometry.warp_images(blob(224, 0.1, 0.1, 0.3).expand(50, -1, -1, -1), matrix)
    coarse = geometry.warp_images(blob(28, 0.1, 0.1, 0.3).expand(50, -1, -1, -1), matrix)
    seen = torch.nn.functional.avg_pool2d(fine, 8)
    assert (seen - coarse).abs().max() < 0.06
    assert (centroid(seen) - centroid(coarse)).abs().max() * 14 < 0.25  # cells of 28


def test_matrices_do_what_their_names_say():
    one = torch.ones(1)
    corner = torch.tensor([[[1.0, -1.0]]])  # upper right

    def moved(matrix):
        return geometry.map_points(matrix, corner)[0, 0].tolist()

    assert moved(geometry.identity_matrix(1)) == [1, -1]
    assert moved(geometry.scaling_matrix(one * 2)) == [2, -2]
    assert moved(geometry.shift_matrix(one * 0.5, one)) == [1.5, 0]
    assert moved(geometry.rotation_matrix(one * math.pi / 2)) == pytest.approx([1, 1], abs=1e-6)
    assert moved(geometry.crop_matrix(torch.tensor([[0.0, -1.0, 1.0, 0.0]]))) == [1, -1]
    assert geometry.map_points(
        geometry.crop_matrix(torch.tensor([[0.0, -1.0, 1.0, 0.0]])), torch.zeros(1, 1, 2)
    )[0, 0].tolist() == [-1, 1]
    corners = torch.tensor([[[-1.0, -0.5], [0.8, -1.0], [1.0, 1.0], [-0.7, 0.9]]])
    square = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]])
    torch.testing.assert_close(
        geometry.map_points(geometry.perspective_matrix(corners), square), corners
    )


def test_composition_applies_the_first_first_and_inversion_undoes_it():
    turn, move = (
        geometry.rotation_matrix(torch.tensor([0.5])),
        geometry.shift_matrix(torch.ones(1), torch.zeros(1)),
    )
    points = torch.rand(1, 5, 2)
    both = geometry.map_points(geometry.compose_maps(turn, move), points)
    torch.testing.assert_close(both, geometry.map_points(move, geometry.map_points(turn, points)))
    back = geometry.map_points(geometry.invert_map(geometry.compose_maps(turn, move)), both)
    torch.testing.assert_close(back, points, atol=1e-5, rtol=0)


def test_positions_whose_source_is_outside_are_marked():
    right = geometry.shift_matrix(torch.ones(1), torch.zeros(1))  # half the view is new
    assert geometry.valid_mask(right, 4, 4)[0].tolist() == [[False, False, True, True]] * 4
    behind = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [5, 0, 1]]])
    assert not geometry.valid_mask(geometry.invert_map(behind), 4, 4).all()
    assert geometry.warp_images(torch.ones(1, 1, 4, 4), behind).isfinite().all()


def test_autocast_moves_no_pixel():
    images, maps = torch.rand(4, 1, 64, 64), random_maps(4)
    expected = geometry.warp_images(images, geometry.compose_maps(maps, maps))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            geometry.warp_images(images, geometry.compose_maps(maps, maps)), expected
        )


def test_inversion_is_that_of_linear_algebra():
    matrix = random_maps(100)
    expected = torch.linalg.inv(matrix.double()).float()
    torch.testing.assert_close(geometry.invert_map(matrix), expected, atol=1e-5, rtol=1e-5)


def test_the_identity_changes_no_pixel():
    images = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(geometry.warp_images(images, geometry.identity_matrix(2)), images)
