"""The sources of this package keep what every source promises, on small copies of their layouts."""

import numpy as np
import pytest
from PIL import Image

from fewlabels.testing import conformance

pytestmark = pytest.mark.filterwarnings("ignore:.*they were resized")


def picture(i):
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 12, 3), np.uint8))


@pytest.fixture(autouse=True, scope="module")
def data(tmp_path_factory):
    """A folder, a copy of a Hub data set and In-Shop's layout, where relative paths are looked for."""
    import datasets

    root = tmp_path_factory.mktemp("data")
    for i in range(6):
        place = root / "photos" / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        picture(i).save(place / f"{i}.png")
    (root / "copy" / "data").mkdir(parents=True)
    for part in ("train", "test"):
        rows = {"image": [picture(i) for i in range(4)], "label": [0, 1, 2, 9]}
        features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
        table = datasets.Dataset.from_dict(rows, features)
        table.to_parquet(root / "copy" / "data" / f"{part}.parquet")
    (root / "shop" / "img").mkdir(parents=True)
    lines = ["img/0.png id_1 train", "img/1.png id_2 query", "img/2.png id_2 gallery"]
    for i in range(3):
        picture(i).save(root / "shop" / "img" / f"{i}.png")
    head = ["3", "image_name item_id evaluation_status"]
    (root / "shop" / "list_eval_partition.txt").write_text("\n".join([*head, *lines]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWLABELS_DATA", str(root))
        yield


COPY = {"id": "copy", "check_counts": False}


@conformance("source", "digits")
def test_digits(check):
    check()


@conformance("source", "folder", options={"path": "photos"})
def test_folder(check):
    check()


@conformance("source", "parquet", options={"files": "copy/data/train.parquet"})
def test_parquet(check):
    check()


@conformance("source", "hub", options={"id": "copy"})
def test_hub(check):
    check()


@conformance("source", "cub200", options=COPY)
def test_cub200(check):
    check()


@conformance("source", "cars196", options=COPY)
def test_cars196(check):
    check()


@conformance("source", "sop", options=COPY)
def test_sop(check):
    check()


@conformance("source", "inshop", options={"root": "shop", "check_counts": False})
def test_inshop(check):
    check()


@conformance("source", "cifar10", options=COPY)
def test_cifar10(check):
    check()


@conformance("source", "cifar100", options=COPY)
def test_cifar100(check):
    check()


@conformance("source", "svhn", options={"root": "copy/data", "check_counts": False})
def test_svhn(check):
    check()
