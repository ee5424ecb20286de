"""Views: the same draws everywhere, one interpolation, and the matrix that was applied."""

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torchvision.transforms.v2 import functional as F

from fewlabels.components.views.colour_jitter import ColourJitter, turn_hue
from fewlabels.components.views.flip import Flip
from fewlabels.components.views.homography import Homography
from fewlabels.components.views.pad_and_crop import PadAndCrop
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.errors import ComponentError, DataError
from fewlabels.ops import geometry


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.randint(0, 256, (12, 3, 16, 16), generator=rng(5)).to(torch.uint8)


EVERYTHING = [
    Homography(crop=(0.5, 1.0), rotation=20, zoom=(0.8, 1.2), shift=0.1, perspective=0.1),
    Flip(),
    ColourJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1),
]


def test_processes_see_their_rows_of_the_very_views_that_one_process_sees(images):
    view = Pipeline(EVERYTHING, 12)
    whole = view(images, rng())
    parts = [view(images[r], rng(), r, 12) for r in (slice(0, 6), slice(6, 12))]
    assert torch.equal(torch.cat([p.images for p in parts]), whole.images)
    assert torch.equal(torch.cat([p.matrix for p in parts]), whole.matrix)
    some = torch.tensor([7, 0, 3])
    assert torch.equal(view(images[some], rng(), some, 12).images, whole.images[some])
    assert whole.images.shape == (12, 3, 12, 12)
    assert whole.images.min() >= 0
    assert whole.images.max() <= 1


def test_views_differ_between_generators_and_between_images(images):
    one, two = Pipeline(EVERYTHING)(images, rng(1)), Pipeline(EVERYTHING)(images, rng(2))
    assert not torch.equal(one.matrix, two.matrix)
    assert len({tuple(m.flatten().tolist()) for m in one.matrix}) == 12


def test_the_matrix_returned_is_the_one_that_was_applied(images):
    view = Pipeline([EVERYTHING[0], Flip()])(images, rng())
    again = geometry.warp_images(images.float() / 255, view.matrix)
    assert torch.equal(view.images, again)


class Both:
    """Shifts an image, and greys it by the same number."""

    draws = 1

    def matrix(self, draws, side):
        return geometry.shift_matrix(draws[:, 0], torch.zeros(len(draws)))

    def colour(self, images, draws):
        return images * 0 + draws[:, :1, None, None]


def test_a_view_of_geometry_and_colours_gets_the_same_draws_for_both(images):
    view = Pipeline([Both(), Flip(probability=0)])(images, rng())
    assert torch.equal(view.matrix[:, 0, 2], view.images[:, 0, 0, 0])


def test_no_views_give_the_image_itself(images):
    view = Pipeline([])(images, rng())
    assert torch.equal(view.images, images.float() / 255)
    assert torch.equal(view.matrix, geometry.identity_matrix(12))
    view = Pipeline([Homography(crop=None)])(images, rng())
    assert torch.equal(view.images, images.float() / 255)


@pytest.mark.parametrize("side", [16, 30, 227])
def test_a_flip_blurs_no_pixel(images, side):
    large = torch.randint(0, 256, (2, 3, side, side), generator=rng()).to(torch.uint8)
    view = Pipeline([Flip(probability=1.0)])(large, rng())
    assert torch.equal(view.images, large.flip(-1).float() / 255)
    view = Pipeline([Flip(probability=0.5)])(images, rng())
    mirrored = view.matrix[:, 0, 0] < 0
    assert 0 < mirrored.sum() < 12


@pytest.mark.parametrize("side", [16, 30])
def test_pad_and_crop_gives_the_very_windows_of_the_mirrored_image(side):
    images = torch.randint(0, 256, (40, 3, side, side), generator=rng(5)).to(torch.uint8)
    view = Pipeline([PadAndCrop(pad=3)])(images, rng())
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), mode="symmetric")
    windows = sliding_window_view(padded, (side, side), (2, 3))  # (B, C, 7, 7, S, S)
    shifts = (view.matrix[:, :2, 2] * side / 2).round().long()
    assert shifts.abs().max() == 3
    assert len(shifts.unique(dim=0)) > 20
    for i, (x, y) in enumerate(shifts.tolist()):
        assert torch.equal(view.images[i] * 255, torch.tensor(windows[i, :, 3 - y, 3 - x]).float())


def test_crops_keep_their_share_of_the_area_and_stay_inside():
    views = Pipeline([Homography(crop=(0.3, 0.6), ratio=(0.9, 1.1))])
    matrix = views(torch.zeros(500, 3, 4, 4, dtype=torch.uint8), rng()).matrix
    area = 1 / matrix[:, 0, 0] / matrix[:, 1, 1]
    assert 0.3 <= area.min() < 0.33
    assert 0.57 < area.max() <= 0.6
    corners = torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]]).expand(500, 2, 2)
    assert geometry.map_points(geometry.invert_map(matrix), corners).abs().max() <= 1 + 1e-5


def test_wide_ratios_do_not_cost_area():
    view = Pipeline([Homography(crop=(0.9, 1.0), ratio=(0.5, 2.0))])
    matrix = view(torch.zeros(500, 3, 4, 4, dtype=torch.uint8), rng()).matrix
    area = 1 / matrix[:, 0, 0] / matrix[:, 1, 1]
    assert 0.9 - 1e-5 < area.min() < 0.91
    assert area.max() > 0.99


def test_what_would_come_out_distorted_or_folded_is_refused():
    with pytest.raises(DataError, match="square images, got 8 x 12"):
        Pipeline([Flip()])(torch.zeros(1, 3, 8, 12, dtype=torch.uint8), rng())
    with pytest.raises(ComponentError, match="reflection and zeros"):
        Pipeline([Homography(), PadAndCrop()])
    Pipeline([Homography(padding="reflection"), Flip(), PadAndCrop()])
    with pytest.raises(ComponentError, match="perspective 0.6"):
        Homography(perspective=0.6)
    for wrong in ({"crop": (0.0, 1.0)}, {"zoom": (1.2, 0.8)}, {"ratio": (-1.0, 1.0)}):
        with pytest.raises(ComponentError, match=f"{next(iter(wrong))} .* is no range"):
            Homography(**wrong)


@pytest.mark.parametrize("seed", range(3))
def test_colours_change_as_torchvision_changes_them(images, seed):
    jitter = ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
    floats = images.float() / 255
    draws = torch.rand(12, 4, generator=rng(seed))
    ours = jitter.colour(floats, draws)
    for i, (b, c, s, h) in enumerate(draws.tolist()):
        theirs = F.adjust_brightness(floats[i], 0.6 + 0.8 * b)
        theirs = F.adjust_contrast(theirs, 0.6 + 0.8 * c)
        theirs = F.adjust_saturation(theirs, 0.6 + 0.8 * s)
        theirs = F.adjust_hue(theirs, -0.2 + 0.4 * h)
        torch.testing.assert_close(ours[i], theirs, atol=2e-3, rtol=0)


def test_grey_has_no_hue_to_turn():
    grey = torch.full((2, 3, 4, 4), 0.3)
    torch.testing.assert_close(turn_hue(grey, torch.tensor([0.1, -0.4])), grey)
