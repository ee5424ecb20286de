"""The benchmarks, from their usual folders or from the Hub, with splits and counts checked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from fewlabels.contracts import Records
from fewlabels.data import layouts
from fewlabels.data.table import from_dataset, open_dataset
from fewlabels.errors import DataError
from fewlabels.paths import locate, looked_for
from fewlabels.registry import sources

Counts = Mapping[str, tuple[int, int]]  # images and classes of each part


class Benchmark:
    """What all benchmarks share; each names its folders, its Hub id, its layout and its counts.

    Args:
        root: its folder; null: a folder of the usual name under a data root.
        id: read it from the Hub instead; ``default`` is the copy whose columns are known here.
        revision: of the Hub's copy.
        check_counts: refuse a copy that has not the published number of images and classes.
    """

    default_split: Literal["official", "zero_shot", "all"] = "official"
    title: ClassVar[str]
    home: ClassVar[str]  # where a person gets it
    folders: ClassVar[tuple[str, ...]]
    hub: ClassVar[str]
    config: ClassVar[str | None] = None
    columns: ClassVar[tuple[str, str]] = ("image", "label")
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    counts: ClassVar[Counts]
    photographs: ClassVar[bool] = True  # of many sizes; equal ones were resized by somebody

    def __init__(
        self,
        *,
        root: str | None = None,
        id: str | None = None,
        revision: str | None = None,
        check_counts: bool = True,
    ) -> None:
        self.root, self.id, self.revision = root, id, revision
        self.check_counts = check_counts

    def load(self) -> Records:
        """Records with the column ``split`` as publications use it.

        Raises:
            DataError: no copy found, a layout that is not known, or wrong counts.
        """
        records = self.from_hub() if self.id is not None else self.read(self.place())
        split = np.asarray(self.official(records))
        records = Records(
            records.images,
            records.truth,
            records.classes,
            {**records.columns, "split": split},
            records.names,
        )
        if self.check_counts:
            self.count(records)
        return records

    def place(self) -> Path:
        """The folder of the local copy."""
        wanted = [self.root] if self.root is not None else list(self.folders)
        for folder in wanted:
            found = locate(folder)
            if found is not None:
                return found
        raise DataError(
            f"{self.title} is not here: download it ({self.home}) to "
            f"{looked_for(wanted[0])}, or set data.id: default to read {self.hub} from the Hub"
        )

    def read(self, root: Path) -> Records:
        """Records of a local copy."""
        raise NotImplementedError

    def official(self, records: Records) -> Sequence[str] | np.ndarray:
        """The part of each image."""
        return records.columns["split"]

    def from_hub(self) -> Records:
        """Records of the Hub's copy."""
        name = self.hub if self.id == "default" else str(self.id)
        data = open_dataset(name, self.config, revision=self.revision)
        missing = [split for split in self.splits if split not in data]
        if missing:
            raise DataError(f"{name} has no split {missing[0]!r} (it has: {', '.join(data)})")
        image, label = self.columns
        records = from_dataset({split: data[split] for split in self.splits}, image, label)
        sizes = {records.images[i].size for i in range(0, len(records), max(1, len(records) // 20))}
        if self.photographs and len(records) > 1 and len(sizes) == 1:
            warnings.warn(
                f"{name}: every image looked at has the size {sizes.pop()}; they were resized, "
                "so figures do not compare with those of the original photographs",
                stacklevel=2,
            )
        return records

    def count(self, records: Records) -> None:
        """Refuse wrong counts."""
        split = records.columns["split"]
        for part, (images, classes) in self.counts.items():
            chosen = np.isin(split, part.split("+"))
            found = int(chosen.sum()), len(np.unique(records.truth[chosen]))
            if found != (images, classes):
                raise DataError(
                    f"{self.title}: {part} has {found[0]:,} images of {found[1]:,} classes, not "
                    f"{images:,} of {classes:,}; the download is incomplete or of another "
                    "version (data.check_counts: false lets it through)"
                )


class ZeroShot(Benchmark):
    """Trains on the first half of the classes, retrieves the second: no official file says so."""

    half: ClassVar[int]

    def official(self, records: Records) -> np.ndarray:
        """By class number; the classification split that the copy may have is not used."""
        return np.where(records.truth < self.half, "train", "test")


@sources.register("cub200")
class CUB200(ZeroShot):
    """CUB-200-2011: 11,788 photographs of birds; classes 1-100 train, 101-200 are retrieved."""

    title = "CUB-200-2011"
    home = "https://data.caltech.edu/records/65de6-vp158"
    folders = ("CUB_200_2011", "cub200")
    hub = "Donghyun99/CUB-200-2011"
    half = 100
    counts: ClassVar[Counts] = {"train": (5864, 100), "test": (5924, 100)}

    def read(self, root: Path) -> Records:
        """``images.txt`` and ``image_class_labels.txt``, or the folders of ``images/`` alone."""
        return layouts.cub(root)


@sources.register("cars196")
class Cars196(ZeroShot):
    """Cars-196: 16,185 photographs; classes 1-98 train, 99-196 are retrieved."""

    title = "Cars-196"
    home = "its first site is gone; Kaggle has copies under 'Stanford Cars'"
    folders = ("cars196", "stanford_cars", "CARS_196")
    hub = "tanganke/stanford_cars"
    half = 98
    counts: ClassVar[Counts] = {"train": (8054, 98), "test": (8131, 98)}

    def read(self, root: Path) -> Records:
        """``cars_annos.mat``, the devkit, or Kaggle's CSV files."""
        return layouts.cars(root)


@sources.register("sop")
class SOP(Benchmark):
    """Stanford Online Products: 120,053 photographs of 22,634 products."""

    title = "Stanford Online Products"
    home = "https://cvgl.stanford.edu/projects/lifted_struct/"
    folders = ("Stanford_Online_Products", "sop")
    hub = "nyris/stanford-online-products-v1"
    columns = ("image", "item_id")
    counts: ClassVar[Counts] = {"train": (59551, 11318), "test": (60502, 11316)}

    def read(self, root: Path) -> Records:
        """``Ebay_train.txt`` and ``Ebay_test.txt``."""
        return layouts.sop(root)


@sources.register("inshop")
class InShop(Benchmark):
    """DeepFashion In-Shop: 52,712 photographs of 7,982 items; queries search a gallery."""

    title = "In-Shop Clothes Retrieval"
    home = "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html"
    folders = ("Inshop_Clothes", "In-shop Clothes Retrieval Benchmark", "inshop")
    hub = "Marqo/deepfashion-inshop"
    counts: ClassVar[Counts] = {
        "train": (25882, 3997),
        "query": (14218, 3985),
        "gallery": (12612, 3985),
    }

    def read(self, root: Path) -> Records:
        """``list_eval_partition.txt``, in the folder or in its ``Eval/``."""
        return layouts.inshop(root)

    def from_hub(self) -> Records:
        """Refused: the Hub's copies have no partition."""
        raise DataError(
            f"{self.title}: {self.hub} has no partition and lacks 121 images, so its figures would "
            "not be the official ones; set data.root to a folder with list_eval_partition.txt"
        )


@sources.register("cifar10")
class CIFAR10(Benchmark):
    """CIFAR-10: 50,000 + 10,000 images of 32 x 32 pixels."""

    title = "CIFAR-10"
    home = "https://www.cs.toronto.edu/~kriz/cifar.html"
    folders = ("cifar10", "cifar-10-batches-py", "cifar-10-batches-bin")
    hub = "uoft-cs/cifar10"
    columns = ("img", "label")
    photographs = False
    counts: ClassVar[Counts] = {"train": (50000, 10), "test": (10000, 10)}

    def read(self, root: Path) -> Records:
        """The Python or binary batches, or ``train.parquet`` and ``test.parquet``."""
        return layouts.cifar(root, "label")


@sources.register("cifar100")
class CIFAR100(Benchmark):
    """CIFAR-100: 50,000 + 10,000 images of 32 x 32 pixels, with its 100 fine classes."""

    title = "CIFAR-100"
    home = "https://www.cs.toronto.edu/~kriz/cifar.html"
    folders = ("cifar100", "cifar-100-python", "cifar-100-binary")
    hub = "uoft-cs/cifar100"
    columns = ("img", "fine_label")
    photographs = False
    counts: ClassVar[Counts] = {"train": (50000, 100), "test": (10000, 100)}

    def read(self, root: Path) -> Records:
        """The Python or binary batches, or ``train.parquet`` and ``test.parquet``."""
        return layouts.cifar(root, "fine_label")


@sources.register("svhn")
class SVHN(Benchmark):
    """SVHN, cropped digits: 73,257 + 26,032 images of 32 x 32 pixels, without the extra ones."""

    title = "SVHN"
    home = "http://ufldl.stanford.edu/housenumbers/"
    folders = ("svhn", "SVHN")
    hub = "ufldl-stanford/svhn"
    config = "cropped_digits"
    photographs = False
    counts: ClassVar[Counts] = {"train": (73257, 10), "test": (26032, 10)}

    def read(self, root: Path) -> Records:
        """``train_32x32.mat`` and ``test_32x32.mat``, or parquet files."""
        return layouts.svhn(root)
