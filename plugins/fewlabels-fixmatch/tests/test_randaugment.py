"""RandAugment: torchvision's operations, PIL as the judge, and a pure function of its draws."""

import numpy as np
import pytest
import torch
from fewlabels_fixmatch.randaugment import COLOURS, RandAugment
from PIL import Image, ImageEnhance, ImageOps

from fewlabels import views
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.ops import geometry


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    smooth = torch.rand(12, 3, 5, 5, generator=rng(5))
    smooth = torch.nn.functional.interpolate(smooth, 16, mode="bilinear")
    return (255 * smooth).to(torch.uint8)


BY_PIL = {
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 - 0.95 * s),
    "colour": lambda image, s: ImageEnhance.Color(image).enhance(1 - 0.95 * s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 - 0.95 * s),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "posterize": lambda image, s: ImageOps.posterize(image, round(8 - 4 * s)),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 - 0.95 * s),
    "solarize": lambda image, s: ImageOps.solarize(image, round(256 * (1 - s))),
}


@pytest.mark.parametrize("name", sorted(COLOURS))
@pytest.mark.parametrize("strength", [0.25, 0.75])
def test_an_operation_does_what_pil_does(images, name, strength):
    for image in images[:4]:
        ours = COLOURS[name](image[None].float() / 255, torch.tensor([strength]))[0]
        theirs = BY_PIL[name](Image.fromarray(image.permute(1, 2, 0).numpy()), strength)
        apart = np.abs(255 * ours.permute(1, 2, 0).numpy() - np.asarray(theirs, float))
        # PIL fills the dropped bits with zeros and rounds down; a rounding may be one level off.
        assert (
            (apart > 2.1).mean() < 0.01
            if name != "posterize"
            else apart.max() < 2 ** (4 * strength)
        )


def test_the_view_follows_its_generator_alone(images):
    view = Pipeline([views.get("randaugment")()])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = view(images, rng(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = view(images, rng(3))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.matrix, two.matrix)
    assert not torch.equal(view(images, rng(4)).images, one.images)


def test_processes_see_their_rows_of_the_very_views_that_one_process_sees(images):
    view = Pipeline([RandAugment()])
    whole = view(images, rng())
    parts = [view(images[r], rng(), r, 12).images for r in (slice(0, 6), slice(6, 12))]
    assert torch.equal(torch.cat(parts), whole.images)


def test_images_of_a_batch_change_each_in_its_own_way():
    same = (
        torch.randint(0, 256, (1, 3, 16, 16), generator=rng(5)).to(torch.uint8).repeat(40, 1, 1, 1)
    )
    made = Pipeline([RandAugment(cutout=0)])(same, rng()).images
    assert len(torch.unique(made, dim=0)) > 30


def test_turns_shears_and_shifts_are_in_the_matrix_and_within_their_ranges(images):
    for name, largest in [("rotate", 0.5), ("shear_x", 0.3), ("translate_y", 0.6)]:
        view = Pipeline([RandAugment(operations=[name], count=1, cutout=0)])
        many = view(images.repeat(20, 1, 1, 1), rng())
        assert torch.equal(
            many.images, geometry.warp_images(images.repeat(20, 1, 1, 1) / 255, many.matrix)
        )
        entry = {"rotate": (1, 0), "shear_x": (0, 1), "translate_y": (1, 2)}[name]
        moved = many.matrix[:, entry[0], entry[1]]
        assert 0.9 * largest < moved.max() <= largest
        assert -0.9 * largest > moved.min() >= -largest


def test_magnitude_nothing_leaves_turns_and_brightness_out(images):
    mild = RandAugment(operations=["rotate", "brightness", "solarize"], magnitude=0, cutout=0)
    assert torch.equal(Pipeline([mild])(images, rng()).images, images / 255)


def test_the_cut_square_is_grey_and_has_its_side(images):
    view = Pipeline([RandAugment(operations=["identity"], cutout=0.5)])
    made = view(images.repeat(20, 1, 1, 1), rng()).images
    cut = (made == 0.5).all(1)  # (B, 16, 16); no image holds this grey itself
    areas = cut.sum((1, 2))
    assert areas.max() in (64, 72)
    assert areas.min() >= 16  # a centre in the corner leaves a quarter
    kept = ~cut[:, None].expand_as(made)
    assert torch.equal(made[kept], (images.repeat(20, 1, 1, 1) / 255)[kept])
