"""The benchmark data sets: where to get each, its splits and its counts."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from fewlabels.components.sources import layouts
from fewlabels.components.sources.benchmark import Benchmark, Counts
from fewlabels.contracts import Records
from fewlabels.data.hf_dataset import from_dataset, open_dataset
from fewlabels.errors import DataError
from fewlabels.registry import sources


class ZeroShot(Benchmark):
    """Base of benchmarks whose first half of the classes trains; the second half is retrieved.

    Publications split by class number; no file of these data sets says so.
    """

    half: ClassVar[int]
    disjoint = True

    def official(self, records: Records) -> np.ndarray:
        """The split by class number; a classification split of the copy is ignored."""
        return np.where(records.truth < self.half, "train", "test")


@sources.register("cub200")
class CUB200(ZeroShot):
    """CUB-200-2011: 11,788 photographs of birds; classes 1-100 train, 101-200 are retrieved.

    Options and errors are those of :class:`Benchmark`.

    Source: Wah et al., "The Caltech-UCSD Birds-200-2011 dataset", 2011.
    Recipe: `data: {source: cub200, labels: none}`
    """

    title = "CUB-200-2011"
    home = "https://data.caltech.edu/records/65de6-vp158"
    folders = ("CUB_200_2011", "cub200")
    hub = "Donghyun99/CUB-200-2011"
    half = 100
    counts: Counts = {"train": (5864, 100), "test": (5924, 100)}

    def read(self, root: Path) -> Records:
        """``images.txt`` and ``image_class_labels.txt``, or the folders of ``images/`` alone."""
        return layouts.read_cub(root)


@sources.register("cars196")
class Cars196(ZeroShot):
    """Cars-196: 16,185 photographs of cars; classes 1-98 train, 99-196 are retrieved.

    Options and errors are those of :class:`Benchmark`.

    Source: Krause et al., "3D object representations for fine-grained categorization", 3dRR
    workshop, 2013.
    Recipe: `data: {source: cars196, labels: none}`
    """

    title = "Cars-196"
    home = "its first site is gone; Kaggle has copies under 'Stanford Cars'"
    folders = ("cars196", "stanford_cars", "CARS_196")
    hub = "tanganke/stanford_cars"
    half = 98
    counts: Counts = {"train": (8054, 98), "test": (8131, 98)}

    def read(self, root: Path) -> Records:
        """``cars_annos.mat``, the devkit, or Kaggle's CSV files."""
        return layouts.read_cars(root)


@sources.register("sop")
class SOP(Benchmark):
    """Stanford Online Products: 120,053 photographs of 22,634 products; half of these train.

    Options and errors are those of :class:`Benchmark`.

    Source: Oh Song et al., "Deep metric learning via lifted structured feature embedding", CVPR
    2016.
    Recipe: `data: {source: sop, labels: none}`
    """

    title = "Stanford Online Products"
    home = "https://cvgl.stanford.edu/projects/lifted_struct/"
    folders = ("Stanford_Online_Products", "sop")
    hub = "nyris/stanford-online-products-v1"
    columns = ("image", "item_id")
    disjoint = True
    counts: Counts = {"train": (59551, 11318), "test": (60502, 11316)}

    def read(self, root: Path) -> Records:
        """``Ebay_train.txt`` and ``Ebay_test.txt``."""
        return layouts.read_sop(root)


@sources.register("inshop")
class InShop(Benchmark):
    """DeepFashion In-Shop: 52,712 photographs of 7,982 clothes; queries search a gallery.

    Options and errors are those of :class:`Benchmark`, but the Hub's copies are refused, since none
    has the official split.

    Source: Liu et al., "DeepFashion: Powering robust clothes recognition and retrieval with rich
    annotations", CVPR 2016.
    Recipe: `data: {source: inshop, labels: all}`
    """

    title = "In-Shop Clothes Retrieval"
    home = "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html"
    folders = ("Inshop_Clothes", "In-shop Clothes Retrieval Benchmark", "inshop")
    hub = "Marqo/deepfashion-inshop"
    disjoint = True
    counts: Counts = {
        "train": (25882, 3997),
        "query": (14218, 3985),
        "gallery": (12612, 3985),
    }

    def read(self, root: Path) -> Records:
        """``list_eval_partition.txt``, in the folder or in its ``Eval/``."""
        return layouts.read_inshop(root)

    def otherwise(self) -> str:
        """Only a local copy has the official split."""
        return f"with list_eval_partition.txt, which the Hub's copy ({self.hub}) lacks"

    def read_from_hub(self) -> Records:
        """Refuse the Hub's copies, which do not have the official split.

        Raises:
            DataError: always.
        """
        other = "" if self.id in ("default", self.hub) else f"{self.id} is not read: "
        raise DataError(
            f"{self.title}: {other}{self.hub} has no partition and lacks 121 images, so its "
            "figures would not be the official ones; set data.root to a folder with "
            "list_eval_partition.txt"
        )


@sources.register("cifar10")
class CIFAR10(Benchmark):
    """CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels in 10 classes.

    Options and errors are those of :class:`Benchmark`.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    Recipe: `data: {source: cifar10, split: official, labels: 4000}`
    """

    title = "CIFAR-10"
    home = "https://www.cs.toronto.edu/~kriz/cifar.html"
    folders = ("cifar10", "cifar-10-batches-py", "cifar-10-batches-bin")
    hub = "uoft-cs/cifar10"
    columns = ("img", "label")
    photographs = False
    counts: Counts = {"train": (50000, 10), "test": (10000, 10)}

    def read(self, root: Path) -> Records:
        """The Python or binary batches, or ``train.parquet`` and ``test.parquet``."""
        return layouts.read_cifar(root, "label")


@sources.register("cifar100")
class CIFAR100(Benchmark):
    """CIFAR-100: 50,000 training and 10,000 test images of 32 x 32 pixels in 100 classes.

    Options and errors are those of :class:`Benchmark`.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    Recipe: `data: {source: cifar100, split: official, labels: 10000}`
    """

    title = "CIFAR-100"
    home = "https://www.cs.toronto.edu/~kriz/cifar.html"
    folders = ("cifar100", "cifar-100-python", "cifar-100-binary")
    hub = "uoft-cs/cifar100"
    columns = ("img", "fine_label")
    photographs = False
    counts: Counts = {"train": (50000, 100), "test": (10000, 100)}

    def read(self, root: Path) -> Records:
        """The Python or binary batches, or ``train.parquet`` and ``test.parquet``."""
        return layouts.read_cifar(root, "fine_label")


@sources.register("svhn")
class SVHN(Benchmark):
    """SVHN, cropped house-number digits: 73,257 training and 26,032 test images of 32 x 32 pixels.

    Other options, and errors, are those of :class:`Benchmark`.

    Args:
        extra: train on the 531,131 easier images of the part ``extra`` too.

    Source: Netzer et al., "Reading digits in natural images with unsupervised feature learning",
    NIPS workshop, 2011.
    Recipe: `data: {source: svhn, split: official, labels: 250}`
    """

    title = "SVHN"
    home = "http://ufldl.stanford.edu/housenumbers/"
    folders = ("svhn", "SVHN")
    hub = "ufldl-stanford/svhn"
    config = "cropped_digits"
    photographs = False
    counts: Counts = {"train": (73257, 10), "test": (26032, 10)}

    def __init__(
        self,
        *,
        root: str | None = None,
        id: str | None = None,
        revision: str | None = None,
        check_counts: bool = True,
        extra: bool = False,
    ) -> None:
        super().__init__(root=root, id=id, revision=revision, check_counts=check_counts)
        if extra:
            self.splits = (*self.splits, "extra")
            self.counts = {**self.counts, "train": (73257 + 531131, 10)}

    def read(self, root: Path) -> Records:
        """``train_32x32.mat`` and ``test_32x32.mat`` (10 is the digit 0), or parquet files."""
        if (root / "train.parquet").is_file():
            files = {n: layouts.require_file(root, f"{n}.parquet") for n in self.splits}
            parquet = {
                n: open_dataset("parquet", files={n: [file]}, split=n) for n, file in files.items()
            }
            return from_dataset(parquet, label="label")
        from scipy.io import loadmat

        arrays = {}
        for name in self.splits:
            file = layouts.require_file(root, f"{name}_32x32.mat")
            try:
                mat = loadmat(file)
                arrays[name] = (mat["X"].transpose(3, 0, 1, 2), mat["y"].ravel() % 10)
            except Exception as error:  # a damaged file fails in any way
                raise DataError(f"{file}: not SVHN's ({error}); download it again") from error
        return layouts.make_records_from_arrays(arrays, [str(n) for n in range(10)])

    def official(self, records: Records) -> np.ndarray:
        """The official split; the part ``extra`` is training data."""
        return np.where(records.columns["split"] == "test", "test", "train")
