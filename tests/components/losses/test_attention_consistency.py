"""Equations 4.2 and 4.4-4.6 against loops, and a blob of attention that moves with its image."""

import math

import numpy as np
import pytest
import torch

from fewlabels.components.losses.attention_consistency import AttentionConsistency
from fewlabels.ops import geometry
from fewlabels.ops.geometry import keypoint_mask


def maps(*size, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def homographies(count, seed=0):
    """Crops, turns, zooms and tilts."""
    rng = torch.Generator().manual_seed(seed)
    u = torch.rand(count, 8, generator=rng)
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    tilt = geometry.perspective_matrix(
        corners + 0.3 * (torch.rand(count, 4, 2, generator=rng) - 0.5)
    )
    return geometry.compose_maps(
        geometry.scaling_matrix(0.8 + u[:, 0], 0.8 + u[:, 1]),
        geometry.rotation_matrix(u[:, 2] - 0.5),
        geometry.shift_matrix(u[:, 3] - 0.5, u[:, 4] - 0.5),
        tilt,
    )


def sample(grid, x, y):
    """One value of a map (H, W) at x, y in [-1, 1], bilinear; past the border, the border."""
    height, width = grid.shape
    column, row = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
    column, row = min(max(column, 0), width - 1), min(max(row, 0), height - 1)
    left, top = min(int(column), width - 1), min(int(row), height - 1)
    right, below = min(left + 1, width - 1), min(top + 1, height - 1)
    a, b = column - left, row - top
    return (1 - b) * ((1 - a) * grid[top, left] + a * grid[top, right]) + b * (
        (1 - a) * grid[below, left] + a * grid[below, right]
    )


def by_loops(first, second, matrix, valid):
    """Eq. 4.2 with T read backwards: each position of the second map looks where it came from."""
    total, count = 0.0, 0
    for one, two, m, mask in zip(first, second, matrix, valid, strict=True):
        inverse = torch.linalg.inv(m.double())
        height, width = mask.shape
        for i in range(height):
            for j in range(width):
                if mask[i, j]:
                    x, y = (2 * j + 1) / width - 1, (2 * i + 1) / height - 1
                    u, v, w = (inverse @ torch.tensor([x, y, 1.0], dtype=torch.double)).tolist()
                    total += (sample(one[0], u / w, v / w) - two[0, i, j]).item() ** 2
                    count += 1
    return total / count


@pytest.mark.parametrize("size", [(7, 7), (5, 9)])
def test_it_is_equation_4_2(size):
    first, second = maps(4, 1, *size, seed=1), maps(4, 1, *size, seed=2)
    matrix = homographies(4)
    valid = geometry.valid_mask(matrix, *size)
    assert 0 < valid.sum() < valid.numel()
    loss = AttentionConsistency()(first, second, matrix, valid)
    assert loss.item() == pytest.approx(by_loops(first, second, matrix, valid), rel=1e-4)


def test_positions_that_do_not_count_have_neither_value_nor_gradient():
    first, second = maps(3, 1, 7, 7, seed=1), maps(3, 1, 7, 7, seed=2).requires_grad_()
    matrix = homographies(3, seed=3)
    valid = geometry.valid_mask(matrix, 7, 7)
    loss = AttentionConsistency()(first, second, matrix, valid)
    loss.backward()
    assert (second.grad[:, 0][~valid] == 0).all()
    assert (second.grad[:, 0][valid] != 0).any()
    spoilt = torch.where(valid[:, None], second.detach(), 1e6)
    torch.testing.assert_close(AttentionConsistency()(first, spoilt, matrix, valid), loss.detach())


def test_both_maps_learn_and_no_valid_position_is_no_loss():
    first, second = (maps(2, 1, 6, 6, seed=s).requires_grad_() for s in (1, 2))
    matrix = homographies(2)
    nowhere = torch.zeros(2, 6, 6, dtype=torch.bool)
    AttentionConsistency()(first, second, matrix, geometry.valid_mask(matrix, 6, 6)).backward()
    assert first.grad.abs().max() > 0
    assert second.grad.abs().max() > 0
    loss = AttentionConsistency()(first, second, matrix, nowhere)
    loss.backward()
    assert loss.item() == 0
    assert first.grad.isfinite().all()


def blob(matrix, size):
    """A wide bell at the middle of the source, as its image under ``matrix`` shows it."""
    back = geometry.source_points(matrix, *size)
    return torch.exp(-(back.square().sum(3)) / (2 * 0.4**2))[:, None]


def test_attention_that_moves_with_the_image_costs_nothing():
    matrix = homographies(6, seed=5)
    size = (28, 28)
    still, moved = blob(geometry.identity_matrix(6), size), blob(matrix, size)
    valid = geometry.valid_mask(matrix, *size)
    loss = AttentionConsistency()
    assert loss(still, moved, matrix, valid) < 1e-4
    assert loss(still, still, matrix, valid) > 100 * loss(still, moved, matrix, valid)


def test_the_mask_is_equations_4_4_and_4_5():
    points = 2 * maps(2, 3, 2, seed=4) - 1
    there = torch.tensor([[True, True, False], [True, False, False]])
    mask = keypoint_mask(points, there, (4, 6), sigma=0.3)
    assert mask.shape == (2, 1, 4, 6)
    for b in range(2):
        for i in range(4):
            for j in range(6):
                x, y = (2 * j + 1) / 6 - 1, (2 * i + 1) / 4 - 1
                bells = [
                    math.exp(-((x - px) ** 2) / (2 * 0.3**2) - (y - py) ** 2 / (2 * 0.3**2))
                    for (px, py), is_there in zip(
                        points[b].tolist(), there[b].tolist(), strict=True
                    )
                    if is_there
                ]
                assert mask[b, 0, i, j].item() == pytest.approx(min(1, sum(bells)), rel=1e-5)


def pair_with_keypoints(scale=1.0):
    """Attention and keypoints of a first image, and both as an affine map moves them."""
    matrix = geometry.compose_maps(
        geometry.scaling_matrix(torch.tensor([scale])),
        geometry.rotation_matrix(torch.tensor([0.3])),
        geometry.shift_matrix(torch.tensor([0.25]), torch.tensor([-0.3])),
    )
    points = torch.tensor([[[0.1, 0.0], [-0.2, 0.15], [0.0, -0.25]]])
    there = torch.ones(1, 3, dtype=torch.bool)
    size = (28, 28)
    first, second = blob(geometry.identity_matrix(1), size), blob(matrix, size)
    masks = (
        keypoint_mask(points, there, size, 0.2),
        keypoint_mask(geometry.map_points(matrix, points), there, size, 0.2),
    )
    near = geometry.valid_mask(matrix, *size) & (masks[1][:, 0] > 0.01)
    return first, second, matrix, near, masks


@pytest.mark.parametrize("scale", [1.0, 1.3, 0.7])
def test_equation_4_6_aligned_forgives_motion_at_any_scale_and_punishes_dimming(scale):
    first, second, matrix, near, (_, mask) = pair_with_keypoints(scale)
    loss = AttentionConsistency()
    aligned = loss(first, second, matrix, near, mask)
    assert aligned < 1e-4
    # Masking both maps and then moving one does not give that: the masks do not move alike.
    masks = pair_with_keypoints(scale)[4]
    if scale != 1:
        assert loss(first * masks[0], second * masks[1], matrix, near) > 10 * aligned
    assert loss(first, 0.5 * second, matrix, near, mask) > 100 * aligned
    moved = geometry.warp_images(first, matrix, padding="border")
    by_hand = ((mask * (moved - 0.5 * second))[0, 0][near[0]] ** 2).mean()
    assert loss(first, 0.5 * second, matrix, near, mask).item() == pytest.approx(by_hand.item())


def test_equation_4_6_printed_punishes_motion_and_not_attention_that_vanishes():
    first, second, _, _, masks = pair_with_keypoints()
    first, second = first * masks[0], second * masks[1]
    loss, still = AttentionConsistency(), geometry.identity_matrix(1)
    everywhere = torch.ones(1, 28, 28, dtype=torch.bool)
    printed = loss(first, second, still, everywhere)
    assert printed > 1e-2
    assert loss(0 * first, 0 * second, still, everywhere) == 0
    assert printed.item() == pytest.approx((first - second).square().mean().item(), rel=1e-5)


# ---------------------------------------------------------------------------- correlation


def test_the_correlation_is_numpys_over_valid_positions():
    first, second = maps(3, 1, 5, 6, seed=1), maps(3, 1, 5, 6, seed=2)
    still, valid = geometry.identity_matrix(3), maps(3, 5, 6, seed=3) > 0.4
    loss = AttentionConsistency(form="correlation")(first, second, still, valid)
    expected = [
        1 - np.corrcoef(one[0][mask], two[0][mask])[0, 1]
        for one, two, mask in zip(first.numpy(), second.numpy(), valid.numpy(), strict=True)
    ]
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_correlation_weighs_positions_by_the_mask():
    first, second = maps(1, 1, 4, 4, seed=1), maps(1, 1, 4, 4, seed=2)
    still, valid = geometry.identity_matrix(1), torch.ones(1, 4, 4, dtype=torch.bool)
    weight = torch.randint(1, 4, (1, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    loss = AttentionConsistency(form="correlation")(first, second, still, valid, weight / 3)
    often = weight.flatten()  # a weight of 3 is a position that comes three times
    one, two = (m.flatten().repeat_interleave(often).numpy() for m in (first, second))
    assert loss.item() == pytest.approx(1 - np.corrcoef(one, two)[0, 1], rel=1e-5)


def test_the_correlation_ignores_scale_and_offset_and_a_flat_map_is_no_minimum():
    matrix, size = homographies(6, seed=5), (28, 28)
    still, moved = blob(geometry.identity_matrix(6), size), blob(matrix, size)
    valid = geometry.valid_mask(matrix, *size)
    loss = AttentionConsistency(form="correlation")
    assert loss(still, moved, matrix, valid) < 1e-2
    torch.testing.assert_close(
        loss(0.3 * still + 0.2, moved, matrix, valid), loss(still, moved, matrix, valid)
    )
    flat = torch.full_like(still, 0.5)
    assert loss(flat, flat, matrix, valid).item() == pytest.approx(1, abs=1e-3)
    assert AttentionConsistency()(flat, flat, matrix, valid) < 1e-12


def test_training_on_the_correlation_widens_maps_and_on_squares_flattens_them():
    start = 0.5 + 0.02 * maps(8, 1, 7, 7, seed=1)
    matrix = homographies(8, seed=2)
    valid = geometry.valid_mask(matrix, 7, 7)
    spreads = {}
    for form in ("printed", "correlation"):
        torch.manual_seed(0)
        gate = torch.nn.Conv2d(1, 1, 3, padding=1)
        optimizer = torch.optim.Adam(gate.parameters(), 0.03)
        pair = geometry.warp_images(start, matrix, padding="border")
        pair = pair + 0.01 * maps(8, 1, 7, 7, seed=3)
        for _ in range(60):
            one, two = ((20 * gate(m - 0.51)).sigmoid() for m in (start, pair))
            optimizer.zero_grad()
            AttentionConsistency(form=form)(one, two, matrix, valid).backward()
            optimizer.step()
        spreads[form] = (one.flatten(1).std(1) / one.flatten(1).mean(1)).median().item()
    assert spreads["correlation"] > 3 * spreads["printed"]


@pytest.mark.parametrize("form", ["printed", "correlation"])
def test_flat_maps_and_pairs_without_valid_positions_give_finite_gradients(form):
    first = torch.full((3, 1, 6, 6), 0.5, requires_grad=True)
    second = torch.cat([torch.full((1, 1, 6, 6), 0.5), maps(2, 1, 6, 6)]).requires_grad_()
    valid = torch.ones(3, 6, 6, dtype=torch.bool)
    valid[2] = False
    loss = AttentionConsistency(form=form)(first, second, geometry.identity_matrix(3), valid)
    loss.backward()
    assert loss.isfinite()
    assert first.grad.isfinite().all()
    assert second.grad.isfinite().all()
    assert (second.grad[2] == 0).all()


def test_it_runs_under_autocast():
    first, second = maps(2, 1, 7, 7, seed=1), maps(2, 1, 7, 7, seed=2)
    matrix = homographies(2)
    valid = geometry.valid_mask(matrix, 7, 7)
    plain = AttentionConsistency()(first, second, matrix, valid)
    with torch.autocast("cpu", torch.bfloat16):
        low = AttentionConsistency()(first.bfloat16(), second.bfloat16(), matrix, valid)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(plain.item(), rel=0.05)
