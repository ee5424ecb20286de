"""What is found of images before labels are drawn: those that cannot be read, and copies."""

import numpy as np
import pytest
from pictures import texture
from PIL import Image

from fewlabels.components.sources.folder import Folder
from fewlabels.contracts import Records
from fewlabels.data.examine import (
    LeftOut,
    examine_images,
    leave_out_rows,
    read_left_out,
    write_left_out,
)
from fewlabels.data.splits import Split, split_rows
from fewlabels.errors import DataError


def write_photos(root, broken=()):
    """Ten photos of two classes, five in each part, of which some are empty files."""
    for i in range(10):
        file = root / ("train" if i < 5 else "test") / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        texture(i, 8).save(file)
        if i in broken:
            file.write_bytes(b"")
    return root


def examine(root, max_bad=0.0, drop=False, kind="official"):
    records = Folder(path=str(root)).load()
    return examine_images(records, split_rows(records, kind), max_bad, drop, quiet=True)


@pytest.mark.parametrize(
    ("broken", "max_bad", "allowed"),
    [
        ((), 0.01, True),
        ((3,), 0.01, False),
        ((3,), 0.1, True),
        ((3, 7), 0.1, False),
        ((3, 7), 0.2, True),
        ((3,), 1, True),
        ((3, 7), 1, False),
        ((3, 7), 2, True),
        ((3, 7), 500, True),
    ],
)
def test_a_share_or_a_number_of_images_may_be_left_out(broken, max_bad, allowed, tmp_path):
    root = write_photos(tmp_path, broken)
    if not allowed:
        with pytest.raises(
            DataError, match=rf"leave such images out with data.max_bad: {len(broken)}"
        ):
            examine(root, max_bad)
        return
    found = examine(root, max_bad)
    assert [image.name.rpartition("/")[2] for image in found.left_out] == [
        f"{i}.png" for i in sorted(broken, key=lambda i: i < 5)
    ]
    assert len(found.remarks) == bool(broken)


def test_more_than_may_be_are_named_at_once(tmp_path):
    with pytest.raises(DataError) as caught:
        examine(write_photos(tmp_path, (0, 4, 7)), 0.01)
    said = str(caught.value)
    assert said.startswith("3 images cannot be read: ")
    assert [f"/{i}.png (" in said for i in range(10)] == [i in (0, 4, 7) for i in range(10)]


def test_an_image_that_no_model_takes_is_one_that_cannot_be_read(tmp_path):
    write_photos(tmp_path)
    Image.new("RGB", (2000, 10)).save(tmp_path / "train" / "a" / "0.png")
    [image] = examine(tmp_path, 1).left_out
    assert image.name == "train/a/0.png"
    assert "too narrow" in image.reason


def test_copies_between_train_and_test_are_found_by_their_pixels(tmp_path):
    write_photos(tmp_path)
    texture(0, 8).save(tmp_path / "test" / "a" / "again.bmp")  # of 0.png, which trains
    texture(1, 8).save(tmp_path / "train" / "b" / "again.bmp")  # of 1.png, which trains too
    texture(6, 8).save(tmp_path / "test" / "a" / "once more.bmp")  # of 6.png, also of the test
    found = examine(tmp_path)
    assert (found.copies, found.left_out) == (1, ())
    assert found.remarks == (
        "training images that are copies of test images: 1, as train/a/0.png of test/a/again.bmp; "
        "data.drop_duplicates: true leaves them out",
    )
    dropped = examine(tmp_path, drop=True)
    assert [tuple(image)[1:] for image in dropped.left_out] == [
        ("train/a/0.png", "a copy of test/a/again.bmp")
    ]
    assert examine(tmp_path, kind="all").copies == 0  # all of them train, and are the test


def test_pictures_of_the_same_bytes_in_another_shape_are_no_copies(tmp_path):
    for part, shape in (("train", (4, 2)), ("test", (2, 4))):
        (tmp_path / part / "a").mkdir(parents=True)
        Image.new("RGB", shape).save(tmp_path / part / "a" / "0.png")
    assert examine(tmp_path).copies == 0


ROWS = np.arange(6)


def leave_out(*rows):
    return [LeftOut(row, f"{row}.png", f"a copy of {row + 6}.png") for row in rows]


def test_rows_leave_every_part_and_others_keep_their_numbers():
    split = leave_out_rows(Split(ROWS[:3], ROWS[3:], ROWS[3:5], ROWS[4:]), leave_out(1, 4))
    assert [part.tolist() for part in split] == [[0, 2], [3, 5], [3], [5]]
    assert leave_out_rows(Split(ROWS, ROWS, ROWS, None), []).gallery is None


@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_a_part_that_would_be_empty_is_named(part):
    parts = [ROWS, ROWS, ROWS, ROWS]
    parts[part] = ROWS[:2]
    sentence = (
        rf"data\.{Split._fields[part]}: all of its images are left out, as 0\.png \(a copy of "
        r"6\.png\); .* data\.drop_duplicates: false"
    )
    with pytest.raises(DataError, match=sentence):
        leave_out_rows(Split(*parts), leave_out(0, 1))


def test_what_was_left_out_is_remembered_for_the_same_images_alone(tmp_path):
    names = ["a.png", 'odd, "b".png', "c\n.png"]
    records = Records([None] * 3, np.zeros(3, np.int64), ("a",), {}, names)
    left_out = tuple(LeftOut(i, name, "it, too") for i, name in enumerate(names))
    write_left_out(tmp_path / "left_out.csv", left_out)
    assert read_left_out(tmp_path / "left_out.csv", records).left_out == left_out
    for other in (names[::-1], names[:2]):
        changed = Records([None] * 3, np.zeros(3, np.int64), ("a",), {}, other)
        assert read_left_out(tmp_path / "left_out.csv", changed) is None
    assert read_left_out(tmp_path / "gone.csv", records) is None
