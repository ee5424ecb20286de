"""Every layout in which a benchmark comes, built small from real digits."""

import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits

from fewlabels.components.sources.benchmarks import (
    CIFAR10,
    CIFAR100,
    CUB200,
    SOP,
    SVHN,
    Cars196,
    InShop,
)
from fewlabels.errors import DataError

DIGITS = load_digits()


def jpeg(path, i=0, size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = Image.fromarray((DIGITS.images[i] * 15.9).astype(np.uint8)).resize(size)
    grey.convert("RGB").save(path)


def cell(path):
    """An image as a copy that is passed on holds it: with its bytes."""
    return {"bytes": path.read_bytes(), "path": path.name}


def load(kind, root, **options):
    return kind(root=str(root), check_counts=False, **options).load()


def test_cub_has_names_with_blanks(tmp_path):
    jpeg(tmp_path / "images" / "001.A" / "a b.jpg")
    (tmp_path / "images.txt").write_text("1 001.A/a b.jpg \n")
    (tmp_path / "image_class_labels.txt").write_text("1 1\n")
    assert load(CUB200, tmp_path).names == ["images/001.A/a b.jpg"]


def splits(records):
    return dict(zip(records.names, records.columns["split"].tolist(), strict=True))


def test_cub_by_its_text_files_and_by_its_folders_alike(tmp_path):
    names = [
        "001.Albatross/a.jpg",
        "100.Pelican/b.jpg",
        "101.Pelican/c.jpg",
        "200.Yellowthroat/d.jpg",
    ]
    for name in names:
        jpeg(tmp_path / "images" / name)
    folders = load(CUB200, tmp_path)
    (tmp_path / "images.txt").write_text("\n".join(f"{i} {n}" for i, n in enumerate(names, 1)))
    (tmp_path / "image_class_labels.txt").write_text("1 1\n2 100\n3 101\n4 200\n")
    texts = load(CUB200, tmp_path)
    for records in (folders, texts):
        assert records.truth.tolist() == [0, 99, 100, 199]
        assert records.columns["split"].tolist() == ["train", "train", "test", "test"]
        assert records.classes[0] == "Albatross"
        assert records.images[3].size == (12, 9)


def cars_annotations(rows):
    kinds = [("fname", object), ("class", object)]
    return {"annotations": np.array(rows, dtype=kinds).reshape(1, -1)}


def test_cars_as_one_file_as_devkit_and_as_kaggle_gives_it(tmp_path):
    one = tmp_path / "one"
    rows = [(f"car_ims/{i}.jpg", 1, 1, 2, 2, number, 0) for i, number in enumerate((1, 98, 99))]
    for i in range(3):
        jpeg(one / "car_ims" / f"{i}.jpg", i)
    kinds = [(n, object) for n in ("path", "x1", "y1", "x2", "y2", "class", "test")]
    savemat(one / "cars_annos.mat", {"annotations": np.array(rows, dtype=kinds).reshape(1, -1)})
    records = load(Cars196, one)
    assert records.truth.tolist() == [0, 97, 98]
    assert records.columns["split"].tolist() == ["train", "train", "test"]

    devkit = tmp_path / "two"
    (devkit / "devkit").mkdir(parents=True)
    for part, file, number in (
        ("train", "cars_train_annos.mat", 5),
        ("test", "cars_test_annos_withlabels.mat", 120),
    ):
        jpeg(devkit / f"cars_{part}" / "00001.jpg")
        savemat(devkit / "devkit" / file, cars_annotations([("00001.jpg", number)]))
    records = load(Cars196, devkit)
    assert splits(records) == {"cars_train/00001.jpg": "train", "cars_test/00001.jpg": "test"}
    assert records.truth.tolist() == [4, 119]

    kaggle = tmp_path / "test" / "three"  # a name on the way that is also that of a part
    kaggle.mkdir(parents=True)
    (kaggle / "names.csv").write_text("Acura\nAudi\n")
    for part, number in (("train", 1), ("test", 2)):
        jpeg(kaggle / "car_data" / "car_data" / part / "Acura" / "00001.jpg")
        (kaggle / f"anno_{part}.csv").write_text(f"00001.jpg,1,1,2,2,{number}\n")
    records = load(Cars196, kaggle)
    assert [name.split("/")[2] for name in records.names] == ["train", "test"]
    assert records.truth.tolist() == [0, 1]
    assert records.classes == ("Acura", "Audi")


def test_sop_by_its_ebay_files(tmp_path):
    head = "image_id class_id super_class_id path\n"
    for name in ("bicycle_final/1_0.jpg", "chair_final/2_0.jpg"):
        jpeg(tmp_path / name)
    (tmp_path / "Ebay_train.txt").write_text(head + "1 1 1 bicycle_final/1_0.jpg\n")
    (tmp_path / "Ebay_test.txt").write_text(head + "2 11319 2 chair_final/2_0.jpg\n")
    records = load(SOP, tmp_path)
    assert splits(records) == {"bicycle_final/1_0.jpg": "train", "chair_final/2_0.jpg": "test"}
    assert records.truth.tolist() == [0, 11318]


@pytest.mark.parametrize("place", ["img_highres", "Img/img_highres"])
def test_inshop_with_the_larger_images(tmp_path, place):
    jpeg(tmp_path / place / "a.jpg")
    text = "1\nimage_name item_id evaluation_status\nimg/a.jpg id_1 train\n"
    (tmp_path / "list_eval_partition.txt").write_text(text)
    assert load(InShop, tmp_path).names == [f"{place}/a.jpg"]


def no_pickle(root):
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (root / name).write_bytes(pickle.dumps([1]))


def short_binary(root):
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (root / f"{name}.bin").write_bytes(b"0" * 100)


def cub_lists(images, labels):
    def write(root):
        (root / "images.txt").write_bytes(images)
        (root / "image_class_labels.txt").write_bytes(labels)

    return write


TWO = b"1 001.A/a.jpg\n2 001.A/b.jpg\n"
DAMAGED = {
    "a batch that is no dict": (CIFAR10, no_pickle, "not a CIFAR batch \\(it holds a list"),
    "a binary batch cut short": (CIFAR10, short_binary, r"data_batch_1\.bin: is cut short"),
    "an empty partition": (
        InShop,
        lambda root: (root / "list_eval_partition.txt").write_text(""),
        "lists no image",
    ),
    "a label that is not there": (
        CUB200,
        cub_lists(TWO, b"1 1\n"),
        r"leaves out 001\.A/b\.jpg",
    ),
    "a label line cut short": (
        CUB200,
        cub_lists(TWO, b"1 1\n2"),
        r"not read as CUB-200-2011 \(ValueError: .*\); a file is missing or damaged",
    ),
    "names that are not UTF-8": (
        CUB200,
        cub_lists(b"1 001.\xe9/a.jpg\n", b"1 1\n"),
        r"not read as CUB-200-2011 \(UnicodeDecodeError",
    ),
    "empty annotations": (
        Cars196,
        lambda root: (root / "cars_annos.mat").write_bytes(b""),
        r"not read as Cars-196 \(MatReadError",
    ),
    "annotations of something else": (
        Cars196,
        lambda root: savemat(root / "cars_annos.mat", {"x": 1}),
        r"not read as Cars-196 \(KeyError: 'annotations'",
    ),
    "a row cut short": (
        SOP,
        lambda root: [
            (root / f"Ebay_{part}.txt").write_text("a header\n1 1 1 a.jpg\n2 1\n")
            for part in ("train", "test")
        ],
        r"not read as Stanford Online Products \(IndexError",
    ),
    "a partition cut short": (
        InShop,
        lambda root: (root / "list_eval_partition.txt").write_text("2\na b c\nx 1 train\ny 1"),
        r"not read as In-Shop Clothes Retrieval \(ValueError",
    ),
    "a batch without labels": (
        CIFAR10,
        lambda root: [
            (root / name).write_bytes(pickle.dumps({b"data": np.zeros((1, 3072), np.uint8)}))
            for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
        ],
        r"not read as CIFAR-10 \(KeyError: b'labels'",
    ),
    "an empty file of digits": (
        SVHN,
        lambda root: (root / "train_32x32.mat").write_bytes(b""),
        r"train_32x32\.mat: not SVHN's \(Mat file appears",
    ),
    "no class names": (
        Cars196,
        lambda root: (root / "anno_train.csv").write_text("1.jpg,1,1,2,2,1\n"),
        "has no names.csv",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_download_is_named_instead_of_a_traceback(case, tmp_path):
    kind, damage, sentence = DAMAGED[case]
    damage(tmp_path)
    with pytest.raises(DataError, match=sentence):
        load(kind, tmp_path)


@pytest.mark.parametrize("folder", ["Eval", "."])
def test_inshop_by_its_partition_file(tmp_path, folder):
    lines = ["img/a.jpg id_1 train", "img/b.jpg id_2 query", "img/c.jpg id_2 gallery"]
    base = tmp_path / "Img" if folder == "Eval" else tmp_path
    for line in lines:
        jpeg(base / line.split()[0])
    (tmp_path / folder).mkdir(exist_ok=True)
    path = tmp_path / folder / "list_eval_partition.txt"
    path.write_text("\n".join(["3", "image_name item_id evaluation_status", *lines]))
    records = load(InShop, tmp_path)
    assert records.columns["split"].tolist() == ["train", "query", "gallery"]
    assert records.truth.tolist() == [0, 1, 1]
    assert len(records.images[2].getbands()) == 3
    path.write_text("\n".join(["4", "image_name item_id evaluation_status", *lines]))
    with pytest.raises(DataError, match="says 4 images and lists 3"):
        load(InShop, tmp_path)


def test_inshops_true_counts_pass_and_one_image_less_is_an_error(tmp_path):
    """25,882 train, 14,218 query, 12,612 gallery; 52,712 images of 7,982 items in all."""
    jpeg(tmp_path / "img" / "a.jpg")
    parts = {
        "train": (25882, 0, 3997),
        "query": (14218, 3997, 3985),
        "gallery": (12612, 3997, 3985),
    }
    lines = [
        f"img/a.jpg id_{first + i % items:08d} {part}"
        for part, (count, first, items) in parts.items()
        for i in range(count)
    ]
    path, head = tmp_path / "list_eval_partition.txt", "image_name item_id evaluation_status"
    path.write_text("\n".join([str(len(lines)), head, *lines]))
    records = InShop(root=str(tmp_path)).load()
    assert (len(records), len(records.classes)) == (52712, 7982)
    lines.remove("img/a.jpg id_00003997 query")
    path.write_text("\n".join([str(len(lines)), head, *lines]))
    sentence = "query has 14,217 images of 3,985 classes, not 14,218 of 3,985; the download is"
    with pytest.raises(DataError, match=sentence):
        InShop(root=str(tmp_path)).load()


def cifar_rows(count):
    return np.random.default_rng(0).integers(0, 256, (count, 3072), dtype=np.uint8)


def test_cifar_in_all_its_forms_is_the_same_images(tmp_path):
    import datasets

    pixels, labels = cifar_rows(12), [i % 10 for i in range(12)]
    names = [f"class{n}" for n in range(10)]
    python, binary, parquet = (tmp_path / n for n in ("py", "bin", "pq"))
    for folder in (python, binary, parquet):
        folder.mkdir()
    for i, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
        part = slice(2 * i, 2 * i + 2)
        batch = {b"data": pixels[part], b"labels": labels[part]}
        (python / name).write_bytes(pickle.dumps(batch, protocol=2))
        rows = np.concatenate([np.array(labels[part], np.uint8)[:, None], pixels[part]], 1)
        (binary / f"{name}.bin").write_bytes(rows.tobytes())
    (python / "batches.meta").write_bytes(
        pickle.dumps({b"label_names": [n.encode() for n in names]})
    )
    (binary / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    images = [Image.fromarray(p.reshape(3, 32, 32).transpose(1, 2, 0)) for p in pixels]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    for part, rows in (("train", slice(0, 10)), ("test", slice(10, 12))):
        data = {"image": images[rows], "label": labels[rows]}
        datasets.Dataset.from_dict(data, features).to_parquet(parquet / f"{part}.parquet")
    for folder in (python, binary, parquet):
        records = load(CIFAR10, folder)
        assert records.columns["split"].tolist() == ["train"] * 10 + ["test"] * 2
        assert records.truth.tolist() == labels
        assert records.classes == tuple(names)
        assert np.array_equal(np.asarray(records.images[11]), np.asarray(images[11]))


def test_cifar100_uses_its_fine_classes(tmp_path):
    for name, count in (("train", 4), ("test", 2)):
        fine, coarse = [99 - i for i in range(count)], [0] * count
        batch = {b"data": cifar_rows(count), b"fine_labels": fine, b"coarse_labels": coarse}
        (tmp_path / name).write_bytes(pickle.dumps(batch))
    meta = {b"fine_label_names": [f"fine{i}".encode() for i in range(100)]}
    (tmp_path / "meta").write_bytes(pickle.dumps(meta))
    records = load(CIFAR100, tmp_path)
    assert records.truth.tolist() == [99, 98, 97, 96, 99, 98]
    assert records.classes[99] == "fine99"


class Malicious:
    def __reduce__(self):
        import os

        return os.system, ("touch pwned",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Malicious()}))
    with pytest.raises(DataError, match=r"not a CIFAR batch \(it asks for posix.system\)"):
        load(CIFAR10, tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_cifar100_in_binary_form_has_its_fine_label_second(tmp_path):
    for name, count in (("train", 4), ("test", 2)):
        labels = np.stack([np.full(count, 7), 99 - np.arange(count)], 1).astype(np.uint8)
        rows = np.concatenate([labels, cifar_rows(count)], 1)
        (tmp_path / f"{name}.bin").write_bytes(rows.tobytes())
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"fine{i}" for i in range(100)))
    records = load(CIFAR100, tmp_path)
    assert records.truth.tolist() == [99, 98, 97, 96, 99, 98]
    first = cifar_rows(4)[0].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(records.images[0]), first)


def test_svhn_reads_extra_images_only_when_asked_and_then_trains_on_them(tmp_path):
    import datasets

    mat, parquet = tmp_path / "mat", tmp_path / "parquet"
    for number, part in enumerate(("train", "test", "extra"), 1):
        mat.mkdir(exist_ok=True)
        pixels = np.zeros((32, 32, 3, 1), np.uint8)
        savemat(mat / f"{part}_32x32.mat", {"X": pixels, "y": np.array([[number]])})
        jpeg(tmp_path / f"{part}.png", size=(32, 32))
        rows = {"image": [cell(tmp_path / f"{part}.png")], "label": [number]}
        data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        parquet.mkdir(exist_ok=True)
        data.to_parquet(parquet / f"{part}.parquet")
    for root in (mat, parquet):
        assert load(SVHN, root).truth.tolist() == [1, 2]
        records = load(SVHN, root, extra=True)
        assert records.truth.tolist() == [1, 2, 3]
        assert records.columns["split"].tolist() == ["train", "test", "train"]
    with pytest.raises(DataError, match="train has 2 images of 2 classes, not 604,388 of 10"):
        SVHN(root=str(mat), extra=True).load()
    (mat / "test_32x32.mat").write_bytes(b"junk" * 50)
    with pytest.raises(DataError, match=r"test_32x32\.mat: not SVHN's"):
        load(SVHN, mat)


def test_svhn_calls_its_tenth_label_zero(tmp_path):
    for part, labels in (("train", [1, 10, 3]), ("test", [10])):
        pixels = np.zeros((32, 32, 3, len(labels)), np.uint8)
        pixels[..., -1] = 7
        savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels, "y": np.array(labels)[:, None]})
    records = load(SVHN, tmp_path)
    assert records.truth.tolist() == [1, 0, 3, 0]
    assert np.asarray(records.images[2]).max() == 7


@pytest.mark.parametrize("kind", [CUB200, Cars196, SOP, InShop, CIFAR10, CIFAR100, SVHN])
def test_a_missing_data_set_says_what_to_download_and_where_to_put_it(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("FEWLABELS_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        kind().load()
    sentence = str(caught.value)
    assert kind.title in sentence
    assert kind.home in sentence
    assert str(tmp_path) in sentence
    assert kind.hub in sentence
    # In-Shop's copy on the Hub is refused, so nobody is sent there.
    assert ("data.id: default" in sentence) == (kind is not InShop)


def test_two_copies_or_a_revision_of_none_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.root and data\.id name two copies"):
        CUB200(root=str(tmp_path), id="default").load()
    with pytest.raises(DataError, match=r"set data\.id: default with it"):
        CUB200(root=str(tmp_path), revision="main").load()


def test_wrong_counts_are_an_error_with_both_numbers(tmp_path):
    jpeg(tmp_path / "images" / "001.Albatross" / "a.jpg")
    with pytest.raises(DataError, match=r"train has 1 images of 1 classes, not 5,864 of 100"):
        CUB200(root=str(tmp_path)).load()


def test_a_folder_of_another_data_set_is_recognised(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for kind, missing in (
        (SOP, "Ebay_train.txt"),
        (InShop, "list_eval_partition"),
        (SVHN, "train_32x32"),
    ):
        with pytest.raises(DataError, match=missing):
            load(kind, tmp_path)


@pytest.fixture
def hub_copy(tmp_path):
    """A copy of a Hub data set with the classification split: classes shared by both parts."""
    import datasets

    sizes = {"train": [(10, 8), (12, 9)], "test": [(9, 9), (8, 12)]}
    for part, shapes in sizes.items():
        images = []
        for i, size in enumerate(shapes):
            path = tmp_path / "raw" / part / f"{i}.png"
            jpeg(path, i, size)
            images.append(cell(path))
        data = datasets.Dataset.from_dict({"image": images, "label": [0, 150]})
        place = tmp_path / "hub" / "data" / f"{part}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        data.cast_column("image", datasets.Image()).to_parquet(place)
    return tmp_path / "hub"


def test_a_hub_copy_is_split_by_class_not_by_its_own_parts(hub_copy):
    records = CUB200(id=str(hub_copy), check_counts=False).load()
    assert records.truth.tolist() == [0, 150, 0, 150]
    assert records.columns["split"].tolist() == ["train", "test", "train", "test"]


def test_a_hub_copy_with_other_column_names_is_read(tmp_path):
    import datasets

    for part in ("train", "test"):
        jpeg(tmp_path / "x" / f"{part}.png", 0, (32, 32))
        rows = {"picture": [cell(tmp_path / "x" / f"{part}.png")], "labels": [3]}
        data = datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image())
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        data.to_parquet(tmp_path / "hub" / "data" / f"{part}.parquet")
    records = CIFAR10(id=str(tmp_path / "hub"), check_counts=False).load()
    assert records.truth.tolist() == [3, 3]
    assert sorted(records.columns["split"].tolist()) == ["test", "train"]


def test_a_hub_copy_of_resized_pixels_is_warned_of(tmp_path):
    import datasets

    for part in ("train", "test"):
        path = tmp_path / "x" / f"{part}.png"
        jpeg(path, 0, (16, 16))
        data = datasets.Dataset.from_dict({"image": [cell(path)] * 3, "label": [0, 1, 150]})
        place = tmp_path / "hub" / "data" / f"{part}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        data.cast_column("image", datasets.Image()).to_parquet(place)
    with pytest.warns(UserWarning, match=r"has the size \(16, 16\); they were resized"):
        CUB200(id=str(tmp_path / "hub"), check_counts=False).load()


def test_inshop_is_not_read_from_copies_without_a_partition():
    with pytest.raises(DataError, match="lacks 121 images"):
        InShop(id="default").load()
    with pytest.raises(DataError, match="me/mine is not read"):
        InShop(id="me/mine").load()
