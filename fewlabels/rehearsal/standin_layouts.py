"""Writes stand-in images in the folders in which benchmarks are distributed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fewlabels.contracts import Records
from fewlabels.rehearsal.standin_images import draw_standin, encode_jpeg

Sides = tuple[int, int]
Options = dict[str, object]


def write_files(root: Path, names: list[str], records: Records, sides: Sides) -> None:
    """An image file for each name below a folder."""
    for number, (name, kind) in enumerate(zip(names, records.truth.tolist(), strict=True)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_jpeg(draw_standin(number, kind, sides)))


def write_cub(root: Path, records: Records, sides: Sides) -> Options:
    """CUB-200-2011: images.txt and image_class_labels.txt beside images/."""
    names = [f"{t + 1:03d}.Bird_{t + 1}/{i}.jpg" for i, t in enumerate(records.truth)]
    write_files(root / "images", names, records, sides)
    lines = [f"{i + 1} {name}" for i, name in enumerate(names)]
    (root / "images.txt").write_text("\n".join(lines))
    labels = [f"{i + 1} {t + 1}" for i, t in enumerate(records.truth)]
    (root / "image_class_labels.txt").write_text("\n".join(labels))
    return {"root": str(root)}


def write_cars(root: Path, records: Records, sides: Sides) -> Options:
    """Cars-196: cars_annos.mat and car_ims/."""
    from scipy.io import savemat

    names = [f"car_ims/{i + 1:06d}.jpg" for i in range(len(records))]
    write_files(root, names, records, sides)
    fields = ["relative_im_path", "x1", "y1", "x2", "y2", "class", "test"]
    rows = np.zeros(len(names), [(field, object) for field in fields])
    for row, name, kind in zip(rows, names, records.truth.tolist(), strict=True):
        row["relative_im_path"], row["class"] = name, kind + 1
        for field in ("x1", "y1", "x2", "y2", "test"):
            row[field] = 0
    classes = np.array([f"car {n}" for n in range(196)], object)
    savemat(root / "cars_annos.mat", {"annotations": rows, "class_names": classes})
    return {"root": str(root)}


def write_sop(root: Path, records: Records, sides: Sides) -> Options:
    """Stanford Online Products: Ebay_train.txt, Ebay_test.txt and a folder of images."""
    names = [f"thing_final/{t + 1}_{i}.jpg" for i, t in enumerate(records.truth)]
    write_files(root, names, records, sides)
    for part in ("train", "test"):
        lines = [
            f"{i + 1} {records.truth[i] + 1} 1 {names[i]}"
            for i in np.flatnonzero(records.columns["split"] == part)
        ]
        head = "image_id class_id super_class_id path"
        (root / f"Ebay_{part}.txt").write_text("\n".join([head, *lines]))
    return {"root": str(root)}


def write_inshop(root: Path, records: Records, sides: Sides) -> Options:
    """In-Shop: list_eval_partition.txt and img/."""
    names = [f"img/id_{t + 1:08d}/{i}.jpg" for i, t in enumerate(records.truth)]
    write_files(root, names, records, sides)
    parts = records.columns["split"]
    lines = [
        f"{name} id_{t + 1:08d} {part}"
        for name, t, part in zip(names, records.truth, parts, strict=True)
    ]
    head = [str(len(lines)), "image_name item_id evaluation_status"]
    (root / "list_eval_partition.txt").write_text("\n".join([*head, *lines]))
    return {"root": str(root)}


def draw_arrays(records: Records, sides: Sides) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (N, H, W, 3) and labels (N,) of each part."""
    found = {}
    for part in np.unique(records.columns["split"]):
        rows = np.flatnonzero(records.columns["split"] == part)
        images = [np.asarray(draw_standin(i, int(records.truth[i]), sides)) for i in rows.tolist()]
        found[str(part)] = (np.stack(images), records.truth[rows])
    return found


def write_cifar10(root: Path, records: Records, sides: Sides) -> Options:
    """CIFAR-10: five pickled training batches, one of the test, and the names."""
    parts = draw_arrays(records, sides)
    root.mkdir(parents=True)
    for part, (images, labels) in parts.items():
        names = [f"data_batch_{i}" for i in range(1, 6)] if part == "train" else ["test_batch"]
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        for name, own in zip(names, np.array_split(np.arange(len(rows)), len(names)), strict=True):
            batch = {b"data": rows[own], b"labels": labels[own].tolist()}
            (root / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {b"label_names": [name.encode() for name in records.classes]}
    (root / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return {"root": str(root)}


def write_cifar100(root: Path, records: Records, sides: Sides) -> Options:
    """CIFAR-100: pickles train, test and meta."""
    root.mkdir(parents=True)
    for part, (images, labels) in draw_arrays(records, sides).items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        batch = {b"data": rows, b"fine_labels": labels.tolist()}
        (root / part).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {b"fine_label_names": [name.encode() for name in records.classes]}
    (root / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return {"root": str(root)}


def write_svhn(root: Path, records: Records, sides: Sides) -> Options:
    """SVHN: train_32x32.mat and test_32x32.mat, where 10 is the digit 0."""
    from scipy.io import savemat

    root.mkdir(parents=True)
    for part, (images, labels) in draw_arrays(records, sides).items():
        digits = np.where(labels == 0, 10, labels)[:, None]
        savemat(root / f"{part}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": digits})
    return {"root": str(root), "extra": False}


LAYOUTS: dict[str, Callable[[Path, Records, Sides], Options]] = {
    "cars196": write_cars,
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "cub200": write_cub,
    "inshop": write_inshop,
    "sop": write_sop,
    "svhn": write_svhn,
}
"""By source: writes records below a folder, and gives the options with which it is read."""
