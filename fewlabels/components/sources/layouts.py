"""Read the folders in which benchmarks are distributed, as records with a column ``split``."""

from __future__ import annotations

import csv
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.contracts import Records
from fewlabels.data.find_images import image_files, refuse_undecodable_names
from fewlabels.data.hf_dataset import from_dataset, open_dataset
from fewlabels.data.lazy_images import from_arrays, from_files
from fewlabels.errors import DataError

Listing = Sequence[tuple[str, int, str]]  # path below the folder, class number, part


def make_records_from_files(root: Path, listing: Listing, classes: Sequence[str] = ()) -> Records:
    """Make records of listed image files.

    Raises:
        DataError: a listed file does not exist, or its name is not UTF-8.
    """
    names = [name for name, _, _ in listing]
    files = [root / name for name in names]
    lost = next((file for file in files if not file.is_file()), None)
    if lost is not None:
        raise DataError(f"{lost} is listed but not there; unpack the images again")
    truth = np.array([number for _, number, _ in listing], np.int64)
    refuse_undecodable_names(root, names)
    classes = classes or [str(n) for n in range(truth.max(initial=-1) + 1)]
    split = np.array([part for _, _, part in listing])
    return Records(from_files(files), truth, tuple(classes), {"split": split}, names)


def make_records_from_arrays(
    parts: dict[str, tuple[np.ndarray, np.ndarray]], classes: Sequence[str]
) -> Records:
    """Make records of uint8 arrays (N, H, W, 3) and labels (N,), by part."""
    images = np.concatenate([pixels for pixels, _ in parts.values()])
    truth = np.concatenate([labels for _, labels in parts.values()]).astype(np.int64)
    split = np.repeat(list(parts), [len(labels) for _, labels in parts.values()])
    names = [f"{part} {i}" for part, (_, labels) in parts.items() for i in range(len(labels))]
    return Records(from_arrays(images), truth, tuple(classes), {"split": split}, names)


def require_file(root: Path, *names: str) -> Path:
    """Return the first of several files that exists.

    Raises:
        DataError: none of them exists.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root} has no {' or '.join(names)}; it is not the folder that was unpacked")


def read_words(path: Path, splits: int = -1) -> list[list[str]]:
    """Read the lines of a text file, each split at blanks, of which the last word may have some."""
    lines = path.read_text("utf-8").splitlines()
    return [line.strip().split(None, splits) for line in lines if line.strip()]


def read_cub(root: Path) -> Records:
    """Read CUB-200-2011; without its text files, classes are the folders of ``images/``."""
    if (root / "images.txt").is_file():
        label = {i: int(n) - 1 for i, n in read_words(require_file(root, "image_class_labels.txt"))}
        lines = read_words(root / "images.txt", 1)
        lost = [name for i, name in lines if i not in label]
        if lost:
            raise DataError(f"{root}/image_class_labels.txt leaves out {lost[0]}; unpack it again")
        listing = [(f"images/{name}", label[i], "") for i, name in lines]
    else:
        folder = root / "images" if (root / "images").is_dir() else root
        found = [path.relative_to(root).as_posix() for path in image_files(folder)]
        try:
            listing = [(n, int(n.split("/")[-2].split(".")[0]) - 1, "") for n in found]
        except (ValueError, IndexError) as error:
            raise DataError(f"{root} has no images.txt and no folders such as 001.Name") from error
    names = {n: Path(name).parent.name.split(".")[-1] for name, n, _ in listing}
    last = max(names, default=-1)
    return make_records_from_files(root, listing, [names.get(n, str(n)) for n in range(last + 1)])


def read_cars(root: Path) -> Records:
    """Read Cars-196 from ``cars_annos.mat``, from the devkit, or from Kaggle's CSV files."""
    from scipy.io import loadmat

    names: list[str] = []
    listing: list[tuple[str, int, str]] = []
    if (root / "cars_annos.mat").is_file():
        mat = loadmat(root / "cars_annos.mat", squeeze_me=True)
        names = [str(n) for n in np.atleast_1d(mat["class_names"])] if "class_names" in mat else []
        rows = np.atleast_1d(mat["annotations"])
        listing = [(str(row[0]), int(row[5]) - 1, "") for row in rows]
    elif (root / "devkit").is_dir():
        devkit = {"train": "cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
        for part, annotations in devkit.items():
            mat = loadmat(require_file(root, f"devkit/{annotations}", annotations), squeeze_me=True)
            for row in np.atleast_1d(mat["annotations"]):
                listing.append((f"cars_{part}/{row['fname']}", int(row["class"]) - 1, part))
    else:
        require_file(root, "anno_train.csv", "cars_annos.mat", "devkit/cars_train_annos.mat")
        lines = require_file(root, "names.csv").read_text("utf-8").splitlines()
        names = [line for line in lines if line]
        for part in ("train", "test"):
            # The same file name means different images in train/ and in test/.
            place = {
                path.name: path.relative_to(root).as_posix()
                for path in image_files(root / "car_data")
                if part in path.relative_to(root).parts  # root itself may lie below a "test"
            }
            with require_file(root, f"anno_{part}.csv").open(newline="") as file:
                for row in csv.reader(file):
                    listing.append((place.get(row[0], row[0]), int(row[5]) - 1, part))
    return make_records_from_files(root, listing, names)


def read_sop(root: Path) -> Records:
    """Read Stanford Online Products: lines ``image_id class_id super_class_id path``."""
    listing = [
        (row[3], int(row[1]) - 1, part)
        for part in ("train", "test")
        for row in read_words(require_file(root, f"Ebay_{part}.txt"), 3)[1:]
    ]
    return make_records_from_files(root, listing)


def read_inshop(root: Path) -> Records:
    """Read In-Shop's list: a count, a header, then lines ``image item status``."""
    path = require_file(root, "Eval/list_eval_partition.txt", "list_eval_partition.txt")
    rows = read_words(path)
    if len(rows) < 3:
        raise DataError(f"{path} lists no image; download it again")
    stated, listed = rows[0], rows[2:]
    if stated != [str(len(listed))]:
        raise DataError(f"{path}: says {' '.join(stated)} images and lists {len(listed)}")
    items = sorted({item for _, item, _ in listed})
    number = {item: i for i, item in enumerate(items)}
    # The list's img/ is here, in Img/, or is called img_highres/ (from img_highres.zip).
    moves = [("img/", "Img/img/"), ("img/", "Img/img_highres/"), ("img/", "img_highres/")]
    first = listed[0][0]
    old, new = next(
        (move for move in moves if (root / first.replace(*move, 1)).is_file()), ("img/", "img/")
    )
    listing = [(name.replace(old, new, 1), number[i], part) for name, i, part in listed]
    return make_records_from_files(root, listing, items)


def read_cifar(root: Path, label: str) -> Records:
    """Read CIFAR-10 (``label``) or -100 (``fine_label``): Python or binary batches, parquet."""
    if (root / "train.parquet").is_file():
        return read_parquet(root, label)
    fine = label == "fine_label"
    if any(root.glob("*.bin")):
        files = {"train": ["train.bin"], "test": ["test.bin"]} if fine else {
            "train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"],
        }  # fmt: skip
        skip = 2 if fine else 1  # a coarse label stands before the fine one
        parts = {}
        for part, names in files.items():
            raw = [np.fromfile(require_file(root, n), np.uint8) for n in names]
            short = [n for n, batch in zip(names, raw, strict=True) if batch.size % (skip + 3072)]
            if short:
                raise DataError(f"{root / short[0]}: is cut short; download it again")
            rows = np.concatenate(raw).reshape(-1, skip + 3072)
            parts[part] = (_convert_planes(rows[:, skip:]), rows[:, skip - 1])
        meta = require_file(root, "fine_label_names.txt" if fine else "batches.meta.txt")
        return make_records_from_arrays(
            parts, [line for line in meta.read_text().splitlines() if line.strip()]
        )
    files = {"train": ["train"], "test": ["test"]} if fine else {
        "train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"],
    }  # fmt: skip
    parts = {}
    for part, names in files.items():
        batches = [load_cifar_batch(require_file(root, name)) for name in names]
        key = b"fine_labels" if fine else b"labels"
        pixels = np.concatenate([batch[b"data"] for batch in batches])
        parts[part] = (_convert_planes(pixels), np.concatenate([batch[key] for batch in batches]))
    meta = load_cifar_batch(require_file(root, "meta" if fine else "batches.meta"))
    return make_records_from_arrays(
        parts, [n.decode() for n in meta[b"fine_label_names" if fine else b"label_names"]]
    )


def _convert_planes(rows: np.ndarray) -> np.ndarray:
    """Convert rows (N, 3072) of red, green and blue planes to images (N, 32, 32, 3)."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles the arrays of CIFAR batches and refuses everything else, which could run code."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def load_cifar_batch(path: Path) -> Any:
    """Load a pickled CIFAR batch.

    Raises:
        DataError: the file is damaged, or holds more than arrays.
    """
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(batch, dict):
            raise ValueError(f"it holds a {type(batch).__name__}")
        return batch
    except Exception as error:  # a damaged pickle can raise any exception
        raise DataError(f"{path}: not a CIFAR batch ({error}); it is not read further") from error


def read_parquet(root: Path, label: str) -> Records:
    """Read ``train.parquet`` and ``test.parquet``."""
    parts = {
        part: open_dataset(
            "parquet", files={part: [require_file(root, f"{part}.parquet")]}, split=part
        )
        for part in ("train", "test")
    }
    names = parts["train"].column_names
    return from_dataset(parts, label=label if label in names else "label")
