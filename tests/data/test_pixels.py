import numpy as np
import pytest
import torch
from accelerate import Accelerator
from pictures import texture
from PIL import Image
from torch import nn

from fewlabels import Embedder
from fewlabels.contracts import Output
from fewlabels.data.lazy_images import from_files
from fewlabels.data.pixels import Pixels, crop_centre
from fewlabels.errors import DataError
from fewlabels.evaluation.extract import BACKBONE, extract_fields


def to_tensor(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


class Counting(list):
    """Images that count how often they are decoded."""

    asked = 0

    def __getitem__(self, i):
        self.asked += 1
        return super().__getitem__(i)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return Counting(
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(10)
    )


ROWS = np.array([7, 2, 9, 0, 5])


def test_images_within_the_budget_are_decoded_once(images):
    pixels = Pixels(images, ROWS, to_tensor).decode_all(5 * 108, quiet=True)
    first = images.asked
    assert first <= 6
    assert pixels.nbytes == 540
    taken = pixels.take_rows(np.array([4, 0]))
    assert images.asked == first
    assert torch.equal(taken, torch.stack([to_tensor(list.__getitem__(images, i)) for i in (5, 7)]))


def test_images_beyond_the_budget_are_read_when_asked_for_and_are_the_same(images):
    kept = Pixels(images, ROWS, to_tensor).decode_all(1e9, quiet=True)
    lazy = Pixels(images, ROWS, to_tensor).decode_all(100, quiet=True)
    assert lazy.nbytes == 0
    order = np.array([3, 3, 1])
    assert torch.equal(lazy.take_rows(order), kept.take_rows(order))
    assert all(torch.equal(lazy[i][1], kept[i][1]) for i in range(5))


class Damaged(list):
    """Images of which one cannot be read."""

    def __getitem__(self, i):
        if i == 9:
            raise DataError("photos/9.jpg cannot be read; remove it")
        return super().__getitem__(i)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_one_sentence_also_from_a_worker(images, workers):
    pixels = Pixels(Damaged(images), ROWS, to_tensor)
    with pytest.raises(DataError, match="^photos/9.jpg cannot be read; remove it$"):
        list(pixels.iterate_batches([[0, 1], [2, 3]], workers))


def write_photos(folder, broken):
    """Ten photos, of which some are empty files."""
    for i in range(10):
        texture(i, 8).save(folder / f"{i}.png")
        if i in broken:
            (folder / f"{i}.png").write_bytes(b"")
    return from_files(sorted(folder.glob("*.png")))


@pytest.mark.parametrize("budget", [1e9, 1], ids=["kept", "read lazily"])
@pytest.mark.parametrize("workers", [0, 1])
def test_all_damaged_images_are_named_at_once(workers, budget, tmp_path):
    pixels = Pixels(write_photos(tmp_path, (0, 2, 5, 9)), ROWS, to_tensor)

    def read():
        pixels.decode_all(budget, quiet=True)
        list(pixels.iterate_batches([[0, 1], [2, 3, 4]], workers))

    with pytest.raises(DataError) as caught:
        read()
    said = str(caught.value)
    assert said.startswith("4 images cannot be read: ")
    assert [f"{i}.png (" in said for i in range(10)] == [i in (0, 2, 5, 9) for i in range(10)]
    assert said.endswith("repair or remove them, or leave such images out with data.max_bad: 4")
    assert pixels.kept is None


def test_of_many_damaged_images_ten_are_named(tmp_path):
    images = write_photos(tmp_path, range(10))
    pixels = Pixels(images, np.arange(10).repeat(3), to_tensor)
    with pytest.raises(DataError, match=r"^30 images cannot be read: .* and 20 more; repair"):
        pixels.decode_all(1e9, quiet=True)


@pytest.mark.parametrize("lazy", [True, False], ids=["files", "a plugin's list"])
def test_an_image_that_no_model_takes_is_named(lazy, tmp_path):
    Image.new("RGB", (2000, 10)).save(tmp_path / "panorama.png")
    files = [tmp_path / "panorama.png"]
    images = from_files(files) if lazy else [Image.open(file) for file in files]
    prepare = Embedder("convnet3", image_size=8).resize_to_square
    named = "panorama.png" if lazy else "image 0"
    with pytest.raises(DataError, match=rf"{named}: .* 2000 x 10 pixels is too narrow; crop it"):
        Pixels(images, np.array([0]), prepare).decode_all(1e9, quiet=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_was_away_for_a_moment_is_one_sentence(workers, tmp_path, monkeypatch):
    pixels = Pixels(write_photos(tmp_path, [2]), ROWS, to_tensor)
    monkeypatch.setattr(Pixels, "find_unreadable", lambda self: [])
    with pytest.raises(DataError, match=r"^\S*2\.png: not readable as an image \(.*; repair .*it$"):
        list(pixels.iterate_batches([[0, 1]], workers))


def test_the_centre_is_the_middle():
    assert crop_centre(torch.arange(49).view(1, 7, 7), 3).tolist() == [
        [[16, 17, 18], [23, 24, 25], [30, 31, 32]]
    ]


class Mean(nn.Module):
    """Means and a batch norm, so that a forgotten evaluation mode shows."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, images):
        mean = images.mean((2, 3))
        return Output(features=mean, embedding=self.norm(mean))


@pytest.mark.parametrize("budget", [1e9, 1])
def test_extraction_keeps_order_mode_and_statistics(images, budget):
    pixels = Pixels(images, ROWS, to_tensor).decode_all(budget, quiet=True)
    model = Mean().train()
    features, embedding = extract_fields(
        Accelerator(cpu=True), model, pixels, 4, ("features", "embedding"), batch=2
    )
    expected = crop_centre(pixels.take_rows(np.arange(5)), 4).float().div(255).mean((2, 3))
    np.testing.assert_allclose(features, expected, rtol=1e-6)
    assert embedding.shape == (5, 3)
    assert model.training
    assert (model.norm.running_mean == 0).all()


def test_the_frozen_backbone_is_seen_without_the_block_that_a_recipe_puts_into_it(images):
    pixels = Pixels(images, ROWS, to_tensor).decode_all(1e9, quiet=True)
    options = {"image_size": 4, "embedding_size": 3, "backbone_options": {"width": 0.25}}
    torch.manual_seed(0)
    plain = Embedder("convnet3", **options)
    torch.manual_seed(0)  # CBAM as its paper starts it halves features and more
    block = {"name": "cbam", "after": "conv2", "start": "paper"}
    model = Embedder("convnet3", **options, blocks=[block])

    def look(model):
        return extract_fields(Accelerator(cpu=True), model, pixels, 4, (BACKBONE, "features"))

    backbone, features = look(model)
    assert np.array_equal(backbone, look(plain)[1])
    assert not np.allclose(backbone, features)
    assert np.array_equal(look(model)[1], features)  # and the block is back
