"""Where images come from: what is read, what is refused, and with which sentence."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from fewlabels.components.sources.digits import Digits, draw_digit
from fewlabels.components.sources.folder import Folder
from fewlabels.components.sources.hub import Hub
from fewlabels.components.sources.parquet import Parquet
from fewlabels.errors import DataError
from fewlabels.evaluation.retrieval import evaluate_retrieval
from fewlabels.files import find_path


def digit(i):
    """A real handwritten digit as an RGB image."""
    return Image.fromarray((load_digits().images[i] * 15.9).astype(np.uint8)).convert("RGB")


def write(path, i=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    digit(i).save(path)


# ---------------------------------------------------------------- digits


@pytest.mark.parametrize(("warp", "low", "high"), [(True, 0.58, 0.68), (False, 0.97, 0.99)])
def test_raw_pixels_score_on_digits_what_makes_them_a_task(warp, low, high):
    records = Digits(warp=warp).load()
    assert (records.columns["split"] == "train").sum() == 1200
    test = np.flatnonzero(records.columns["split"] == "test")
    assert len(test) == 597
    pixels = np.stack([np.asarray(records.images[i]).ravel() for i in test]).astype(np.float32)
    score = evaluate_retrieval(pixels, records.truth[test], ks=(1,), nmi=False)["recall@1"]
    assert low <= score <= high


def test_an_unwarped_digit_fills_three_quarters_of_the_side_and_keeps_its_ink():
    pixels = np.full((8, 8), 16.0)
    drawn = np.asarray(draw_digit(pixels, None))[..., 0] / 255
    assert drawn.shape == (24, 24)
    assert drawn.sum() == pytest.approx(18 * 18, rel=0.01)
    assert (drawn[4:-4, 4:-4] == 1).all()
    assert drawn[:, :2].max() == drawn[:2].max() == 0
    assert (drawn == drawn[::-1, ::-1]).all()


def test_a_warped_digit_turns_about_its_middle_by_at_most_thirty_degrees():
    stroke = np.zeros((8, 8))
    stroke[3:5] = 16  # a level bar
    angles, moves = [], []
    for number in range(300):
        drawn = np.asarray(draw_digit(stroke, number))[..., 0].astype(float)
        y, x = np.mgrid[:24, :24] + 0.5 - 12
        mass = drawn.sum()
        cx, cy = (drawn * x).sum() / mass, (drawn * y).sum() / mass
        xx, yy = (drawn * (x - cx) ** 2).sum(), (drawn * (y - cy) ** 2).sum()
        xy = (drawn * (x - cx) * (y - cy)).sum()
        angles.append(np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)))
        moves.append((cx, cy))
    assert 25 < np.max(angles) < 32
    assert -32 < np.min(angles) < -25
    assert abs(np.mean(angles)) < 4
    assert 2 < np.abs(moves).max() < 3.7  # 15 % of 24 pixels is 3.6


# ---------------------------------------------------------------- folder


def test_one_folder_a_class(tmp_path):
    write(tmp_path / "b" / "deep" / "2.PNG")
    write(tmp_path / "a" / "1.jpg")
    write(tmp_path / ".hidden" / "x.jpg")
    (tmp_path / "a" / "._1.jpg").write_bytes(b"junk")
    records = Folder(path=str(tmp_path)).load()
    assert records.names == ["a/1.jpg", "b/deep/2.PNG"]
    assert records.classes == ("a", "b")
    assert records.truth.tolist() == [0, 1]
    assert records.images[0].size == (8, 8)


def test_a_flat_folder_has_no_labels_unless_a_table_gives_them(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.png", i)
    assert Folder(path=str(tmp_path)).load().truth.tolist() == [-1, -1, -1]
    (tmp_path / "labels.csv").write_text("file,label\n2.png,two\n0.png,zero\n")
    records = Folder(path=str(tmp_path)).load()
    assert records.classes == ("two", "zero")
    assert records.truth.tolist() == [1, -1, 0]


def test_train_and_test_folders_are_an_official_split(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png"):
        write(tmp_path / name)
    records = Folder(path=str(tmp_path)).load()
    assert records.columns["split"].tolist() == ["test", "train", "train"]
    assert records.truth.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val"), ["train", "test"]),
        (("test", "train", "val"), ["test", "train", "val"]),
    ],
)
def test_a_validation_folder_is_never_taken_for_a_class(folders, splits, tmp_path):
    for folder in folders:
        write(tmp_path / folder / "a" / "1.png")
    records = Folder(path=str(tmp_path)).load()
    assert records.columns["split"].tolist() == splits
    assert records.classes == ("a",)


def test_turned_and_transparent_images_look_as_a_person_sees_them(tmp_path):
    picture = Image.new("RGB", (6, 4))
    exif = picture.getexif()
    exif[274] = 6  # turned by a quarter
    picture.save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "b.png")
    images = Folder(path=str(tmp_path)).load().images
    assert images[0].size == (4, 6)
    assert images[1].getpixel((0, 0)) == (255, 255, 255)


FOLDER_MISTAKES = {
    "no folder": ({}, "no folder at"),
    "no images": ({"readme.txt": b"x"}, "no image in this folder"),
    "loose images": ({"a/1.png": None, "2.png": None}, "1 images lie outside the class folders"),
    "a table of other files": (
        {"1.png": None, "labels.csv": b"file,label\n9.png,x\n"},
        r"1 file is not among the images of the folder \(line 2: 9.png\)",
    ),
    "a table that lists twice": (
        {"1.png": None, "labels.csv": b"file,label\n1.png,x\n1.png,y\n"},
        r"1 file is listed twice \(lines 2 and 3: 1.png\)",
    ),
    "a table in another encoding": (
        {"1.png": None, "labels.csv": "file,label\n1.png,café\n".encode("latin-1")},
        "is not UTF-8",
    ),
    "a table without header": (
        {"1.png": None, "labels.csv": b"1.png,x\n"},
        "must name the columns file and label",
    ),
}


@pytest.mark.parametrize("case", FOLDER_MISTAKES)
def test_a_folder_that_is_wrong_says_how(case, tmp_path):
    files, sentence = FOLDER_MISTAKES[case]
    for name, content in files.items():
        if content is None:
            write(tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
    path = tmp_path if files else tmp_path / "gone"
    with pytest.raises(DataError, match=sentence):
        Folder(path=str(path)).load()


def test_no_folder_named_is_not_taken_for_the_current_one():
    with pytest.raises(DataError, match=r"data\.path is empty"):
        Folder().load()


def test_a_damaged_image_is_named_when_it_is_looked_at(tmp_path):
    write(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"not an image")
    images = Folder(path=str(tmp_path)).load().images
    images[0]
    with pytest.raises(DataError, match=r"2\.png: not readable as an image"):
        images[1]


# ---------------------------------------------------------------- parquet and hub


@pytest.fixture
def table(tmp_path):
    """A parquet file as the datasets library writes it: 12 digits, names, a shop, a note."""
    import datasets

    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["zero", "one", "two"]),
        shop=datasets.Value("string"),
    )
    rows = {
        "image": [digit(i) for i in range(12)],
        "label": [0, 1, 2] * 4,
        "shop": ["north", "south"] * 6,
    }
    path = tmp_path / "copy" / "data" / "train.parquet"
    path.parent.mkdir(parents=True)
    datasets.Dataset.from_dict(rows, features).to_parquet(path)
    datasets.Dataset.from_dict({k: v[:3] for k, v in rows.items()}, features).to_parquet(
        path.with_name("test.parquet")
    )
    return path


def test_parquet_gives_images_class_names_and_columns_to_select_by(table):
    records = Parquet(files=str(table)).load()
    assert len(records) == 12
    assert records.classes == ("zero", "one", "two")
    assert records.truth.tolist() == [0, 1, 2] * 4
    assert records.columns["shop"].tolist() == ["north", "south"] * 6
    assert "split" not in records.columns
    assert np.array_equal(np.asarray(records.images[7]), np.asarray(digit(7)))
    both = Parquet(files=[str(table), str(table)], label="shop").load()
    assert len(both) == 24
    assert both.classes == ("north", "south")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"files": "gone.parquet"}, "no file at gone.parquet"),
        ({"files": ""}, r"data\.files is empty"),
        ({"files": []}, r"data\.files is empty"),
        (
            {"label": "labl"},
            r"no column 'labl'; did you mean 'label'\? \(all: image, label, shop\)",
        ),
        ({"image": "picture"}, "no column 'picture'"),
    ],
)
def test_parquet_mistakes_name_the_nearest_column(table, options, sentence):
    with pytest.raises(DataError, match=sentence):
        Parquet(**{"files": str(table), **options}).load()


def test_parquet_of_other_programs_has_raw_bytes_and_gaps(tmp_path):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    digit(3).save(file, "png")
    table = {
        "image": [file.getvalue(), b"junk", None],
        "label": ["three", None, "three"],
        "split": ["train", "test", "test"],
        "official_split": ["test", "train", "test"],
        "box": [[1, 2], [3, 4], [5, 6]],
        "item": [111085122871, 7, 111085122871],
    }
    pq.write_table(pa.table(table), tmp_path / "raw.parquet")
    records = Parquet(files=str(tmp_path / "raw.parquet")).load()
    assert np.array_equal(np.asarray(records.images[0]), np.asarray(digit(3)))
    assert records.truth.tolist() == [0, -1, 0]
    assert records.columns["split"].tolist() == ["train", "test", "test"]
    assert set(records.columns) == {"split", "official_split", "item"}
    for row in (1, 2):
        with pytest.raises(DataError, match=f"row {row}: not readable as an image"):
            records.images[row]
    items = Parquet(files=str(tmp_path / "raw.parquet"), label="item").load()
    assert items.truth.tolist() == [1, 0, 1]
    assert items.classes == ("7", "111085122871")


def test_an_image_too_large_to_be_one_is_named(tmp_path, monkeypatch):
    write(tmp_path / "1.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"1\.png: not readable as an image"):
        Folder(path=str(tmp_path)).load().images[0]


def test_a_hub_data_set_is_found_under_the_data_roots(table, monkeypatch):
    monkeypatch.setenv("FEWLABELS_DATA", str(table.parents[2]))
    assert len(Hub(id="copy").load()) == 15


def test_a_hub_data_set_without_a_name_says_so():
    with pytest.raises(DataError, match=r"data\.id is empty"):
        Hub().load()


def test_a_hub_data_set_is_read_from_a_copy_with_its_splits(table):
    root = str(table.parents[1])
    records = Hub(id=root).load()
    assert sorted(records.columns["split"].tolist()) == ["test"] * 3 + ["train"] * 12
    only = Hub(id=root, splits=["test"], label="shop").load()
    assert len(only) == 3
    assert only.classes == ("north", "south")
    with pytest.raises(DataError, match=r"no split 'tset' \(it has: "):
        Hub(id=root, splits=["tset"]).load()


def test_without_a_network_a_hub_data_set_says_so(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="cannot be opened .* there is a network, or a copy"):
        Hub(id="nobody/nothing").load()


def test_grocery_reads_as_its_page_says():
    if find_path("grocery/all.parquet") is None:
        pytest.skip("grocery/all.parquet is not here; set FEWLABELS_DATA")
    records = Parquet(files="grocery/all.parquet").load()
    assert len(records) == 5421
    assert len(records.classes) == 81
    assert (records.truth <= 40).sum() == 3051
    official = records.columns["official_split"][records.truth > 40]
    assert [(official == part).sum() for part in ("test", "train")] == [1061, 1162]
    assert min(records.images[0].size) == 224
