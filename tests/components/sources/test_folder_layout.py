"""What a folder of folders means: a split, classes, or one folder too many around them."""

import os
import sys
import unicodedata

import pytest
from PIL import Image

from fewlabels.components.sources.folder import Folder
from fewlabels.errors import DataError


@pytest.fixture
def load(tmp_path):
    """Records of images of these names."""

    def read(*names, **tables):
        for name in names:
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
        return Folder(path=str(tmp_path / "photos"), **tables).load()

    return read


def known_of(records):
    """Part and class by name."""
    split = records.columns.get("split", [None] * len(records))
    classes = [records.classes[n] if n >= 0 else None for n in records.truth]
    return {
        name: (part, label) for name, part, label in zip(records.names, split, classes, strict=True)
    }


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (("train", "valid", "test"), ("train", "val", "test")),  # Roboflow's export
        (("Train", "Test"), ("train", "test")),
        (("TRAIN", "VAL"), ("train", "test")),
        (("training", "validation"), ("train", "test")),
        (("train", "dev"), ("train", "test")),
        (("train", "eval"), ("train", "test")),
        (("train", "holdout"), ("train", "test")),
        (("training_set", "test_set"), ("train", "test")),
        (("trainset", "testset"), ("train", "test")),
        (("train_images", "test_images"), ("train", "test")),
        (("train data", "test-data"), ("train", "test")),
        (("train", "query", "gallery"), ("train", "query", "gallery")),
        (("train", "query", "gallery", "val"), ("train", "query", "gallery", "val")),
        (("train", "training", "test"), ("train", "train", "test")),
        (("query", "gallery"), ("query", "gallery")),
        (("train",), ("train",)),
        (("data/training",), ("train",)),
    ],
)
def test_folders_called_as_the_parts_of_a_split_are_no_classes(load, folders, parts):
    records = load(*(f"{folder}/{kind}/1.png" for folder in folders for kind in ("cat", "dog")))
    assert records.classes == ("cat", "dog")
    assert known_of(records) == {
        f"{folder}/{kind}/1.png": (part, kind)
        for folder, part in zip(folders, parts, strict=True)
        for kind in ("cat", "dog")
    }


def test_what_is_called_unlabeled_has_no_label(load):
    records = load("cat/1.png", "dog/1.png", "unlabeled/1.png", "Unlabelled/deep/2.png")
    assert records.classes == ("cat", "dog")
    assert known_of(records)["unlabeled/1.png"] == (None, None)
    assert known_of(records)["Unlabelled/deep/2.png"] == (None, None)


def test_an_unlabeled_part_of_a_split_trains_without_labels(load):
    records = load("train/cat/1.png", "test/cat/1.png", "unlabeled/1.png", "unlabeled/x/2.png")
    assert known_of(records) == {
        "train/cat/1.png": ("train", "cat"),
        "test/cat/1.png": ("test", "cat"),
        "unlabeled/1.png": ("train", None),
        "unlabeled/x/2.png": ("train", None),
    }


def test_a_part_of_images_alone_has_no_labels(load):
    records = load("train/cat/1.png", "train/dog/1.png", "test/1.png", "test/2.png")
    assert known_of(records)["test/2.png"] == ("test", None)
    assert records.classes == ("cat", "dog")


def test_a_split_beside_which_a_folder_is_none_is_refused(load):
    sentence = (
        r"the folders test, train are parts of a split, and extra not; name its folders train, "
        r"val, test and unlabeled, or move extra elsewhere"
    )
    with pytest.raises(DataError, match=sentence):
        load(*(f"{part}/cat/1.png" for part in ("train", "test", "extra")))


def test_a_class_that_is_called_as_a_part_is_one_among_others_and_told(load):
    records = load("train/1.png", "car/1.png", "ship/1.png")  # vehicles
    assert records.classes == ("car", "ship", "train")
    assert "the folder train is taken for a class, not for a split" in records.remarks[0]


def test_a_split_within_each_class_is_none_and_told(load):
    records = load("cat/train/1.png", "cat/test/1.png", "dog/train/1.png")
    assert records.classes == ("cat", "dog")
    assert "test, train lie within the classes, where they are no split" in records.remarks[0]
    assert not load("owl/1.png").remarks


def test_loose_images_in_a_part_are_named_with_their_folder(load):
    with pytest.raises(DataError, match=r"train: 1 images lie outside .* \(as 2\.png\)"):
        load("train/cat/1.png", "train/2.png", "test/cat/1.png")


@pytest.mark.parametrize("lone", ["photos", "a/b", "data", "train/deeper"])
def test_a_lone_folder_around_all_is_looked_into_and_told(load, lone):
    records = load(f"{lone}/cat/1.png", f"{lone}/dog/1.png")
    assert records.classes == ("cat", "dog")
    assert records.names == [f"{lone}/cat/1.png", f"{lone}/dog/1.png"]
    (remark,) = records.remarks
    assert f"all images lie in {lone}, which is no class" in remark


def test_a_lone_folder_may_hold_a_split_or_images_alone(load, tmp_path):
    records = load("data/train/cat/1.png", "data/test/cat/1.png")
    assert records.columns["split"].tolist() == ["test", "train"]
    assert records.classes == ("cat",)
    for part in ("train", "test"):
        (tmp_path / "photos" / "data" / part / "cat" / "1.png").unlink()
    records = load("images/1.png", "images/2.png")
    assert records.classes == ()
    assert records.truth.tolist() == [-1, -1]


def test_a_mac_s_folder_of_rubbish_leaves_a_lone_folder_lone(load, tmp_path):
    rubbish = tmp_path / "photos" / "__MACOSX" / "photos" / "cat" / "._1.png"
    rubbish.parent.mkdir(parents=True)
    rubbish.write_bytes(b"x")
    assert load("photos/cat/1.png", "photos/dog/1.png").classes == ("cat", "dog")


def test_folders_of_numbers_are_classes_in_their_order(load):
    records = load(*(f"{n}/1.png" for n in range(12)))
    assert records.classes == tuple(str(n) for n in range(12))
    assert records.names[1:3] == ["1/1.png", "10/1.png"]  # images keep the order of their paths
    assert records.truth[1:3].tolist() == [1, 10]


def test_one_name_in_two_forms_of_unicode_is_one_class(load):
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    records = load(*(f"{form}/{i}.png" for i, form in enumerate(forms)), "tea/1.png")
    assert records.classes == ("café", "tea")
    assert sorted(records.truth.tolist()) == [0, 0, 1]


def test_what_was_passed_over_is_told_and_named_where_nothing_is_left(load, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "IMG_1.HEIC").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no image in this folder; .*; IMG_1\.HEIC is passed over"):
        load()
    (remark,) = load("cat/1.png", "dog/1.png").remarks
    assert "IMG_1.HEIC is passed over: .heic is not read here; convert such files" in remark


def test_a_table_labels_a_split_and_a_folder_that_is_looked_into(load, tmp_path):
    load("all/train/1.png", "all/train/2.png", "all/test/1.png")
    table = tmp_path / "photos" / "all" / "labels.csv"
    table.write_text("file,label\ntrain/1.png,cat\ntest/1.png,dog\n")
    assert known_of(load()) == {
        "all/train/1.png": ("train", "cat"),
        "all/train/2.png": ("train", None),
        "all/test/1.png": ("test", "dog"),
    }


def test_a_folder_in_the_place_of_a_table_is_refused(load, tmp_path):
    (tmp_path / "tables").mkdir()
    with pytest.raises(DataError, match="tables is no file; name a CSV file"):
        load("1.png", "2.png", labels_csv=str(tmp_path / "tables"))


def test_a_table_that_lists_what_is_passed_over_is_told_why(load, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "2.heic").write_bytes(b"x")
    (tmp_path / "photos" / "labels.csv").write_text("file,label\n1.png,cat\n2.heic,cat\n")
    with pytest.raises(
        DataError, match=r"\(line 3: 2\.heic\); .*; 2\.heic is passed over: \.heic is"
    ):
        load("1.png")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_no_table_can_hold_are_refused_before_a_run_begins(load, tmp_path):
    load("cat/1.png")
    os.mkdir(os.fsencode(tmp_path / "photos") + b"/caf\xe9")
    with pytest.raises(DataError, match=r"the name 'caf\\udce9/1\.png' is not UTF-8; rename it"):
        load("caf\udce9/1.png")
