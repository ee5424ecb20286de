"""What a person calls an image is found, or is counted with the reason why it is not read."""

import os

import pytest
from PIL import Image, features

from fewlabels.data import find_images as module
from fewlabels.data.decode import files_of
from fewlabels.data.find_images import find_images
from fewlabels.errors import ModelError


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path.with_suffix(".png"))
    path.with_suffix(".png").rename(path)
    return path


def names(folder):
    return [file.relative_to(folder).as_posix() for file in find_images(folder).files]


WRITTEN = {
    "JPEG": (".jpg", ".JPEG", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pnm"),
    "TGA": (".tga",),
    "QOI": (".qoi",),
    "MPO": (".mpo",),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "AVIF": (".avif",),
}
PARTS = {
    "AVIF": "avif",
    "JPEG2000": "jpg_2000",
    "WEBP": "webp",
}  # which Pillow may be built without


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_picture_is_found_under_each_suffix_that_its_format_has(kind, tmp_path):
    if kind in PARTS and not features.check(PARTS[kind]):
        pytest.skip(f"this Pillow has no {kind}")
    for suffix in WRITTEN[kind]:
        Image.new("RGB", (8, 8)).save(tmp_path / f"a{suffix}", kind)
    files, remarks = find_images(tmp_path)
    assert {file.suffix for file in files} == set(WRITTEN[kind])
    assert remarks == ()
    for file in files:
        with Image.open(file) as image:
            image.load()


def test_what_is_not_read_is_counted_by_its_kind(tmp_path):
    write(tmp_path / "cat" / "1.png")
    for name in ("2.HEIC", "3.heic", "4.NEF", "5.ico", "notes.txt", "labels.csv", "Thumbs.db"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    files, remarks = find_images(tmp_path)
    assert len(files) == 1
    assert sorted(remarks) == [
        "2 files are passed over, as cat/2.HEIC: .heic is not read here; convert such files to JPEG",
        "cat/4.NEF is passed over: .nef is not read here; convert such files to JPEG",
        "cat/5.ico is passed over: .ico is not read here; convert such files to JPEG",
        "cat/gone.jpg is passed over: the link leads nowhere",
        "cat/pipe.png is passed over: it is no regular file",
    ]


def test_a_format_that_a_plugin_of_pillow_adds_is_read(tmp_path, monkeypatch):
    (tmp_path / "1.heic").write_bytes(b"x")
    assert names(tmp_path) == []
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")  # as pillow_heif does
    assert names(tmp_path) == ["1.heic"]


def test_a_pillow_without_avif_says_so(tmp_path, monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.EXTENSION, ".avif", raising=False)
    (tmp_path / "1.avif").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"no image in this folder; .* 1\.avif is passed over"):
        files_of(tmp_path)


def test_thumbnails_and_rubbish_of_storage_devices_are_no_images(tmp_path):
    write(tmp_path / "cat" / "00.png")
    write(tmp_path / "cat" / "@eaDir" / "00.png" / "SYNOFILE_THUMB_M.jpg")
    write(tmp_path / "dog" / "@eaDir" / "00.png" / "SYNOFILE_THUMB_M.jpg")
    write(tmp_path / "#recycle" / "old.png")
    write(tmp_path / "__MACOSX" / "cat" / "._00.png")
    files, remarks = find_images(tmp_path)
    assert files == [tmp_path / "cat" / "00.png"]
    assert sorted(remarks) == [
        "#recycle/old.png is passed over: #recycle is a folder that a system keeps for itself",
        "2 files are passed over, as cat/@eaDir/00.png/SYNOFILE_THUMB_M.jpg: @eaDir is a folder "
        "that a system keeps for itself",
    ]


def test_hidden_files_are_none_and_nobody_is_told(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "._a.png")
    write(tmp_path / ".git" / "b.png")
    assert find_images(tmp_path) == ([tmp_path / "a.png"], ())


def test_links_to_folders_and_files_are_followed_and_loops_end(tmp_path):
    store, photos = tmp_path / "store", tmp_path / "photos"
    write(store / "owl" / "1.png")
    write(photos / "cat" / "1.png")
    (photos / "owl").symlink_to(store / "owl")
    (photos / "again").symlink_to(store / "owl")  # no loop, and yet each image counts once
    (photos / "cat" / "2.png").symlink_to(store / "owl" / "1.png")
    (photos / "cat" / "up").symlink_to(photos)
    (store / "owl" / "self").symlink_to(store / "owl")
    remarks = find_images(photos).remarks
    assert names(photos) == ["again/1.png", "cat/1.png", "cat/2.png"]
    assert remarks == (
        "3 files are passed over, as again/self: it leads to a folder that is read already",
    )


def test_links_from_folder_to_folder_do_not_multiply_images(tmp_path):
    for i in range(8):
        write(tmp_path / str(i) / "1.png")
        for j in range(8):
            if i != j:
                (tmp_path / str(i) / f"to {j}").symlink_to(f"../{j}")
    files, remarks = find_images(tmp_path)
    assert [file.parent.name for file in files] == [*"01234567"]
    assert remarks == (
        "56 files are passed over, as 0/to 1: it leads to a folder that is read already",
    )


def test_a_folder_is_read_where_it_lies_and_not_by_a_link_that_comes_first(tmp_path):
    write(tmp_path / "b" / "deep" / "1.png")
    (tmp_path / "a").symlink_to("b")
    assert names(tmp_path) == ["b/deep/1.png"]
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to(tmp_path)
    assert names(tmp_path) == ["b/deep/1.png"]


def test_a_folder_that_may_not_be_entered_is_told(tmp_path, monkeypatch):
    write(tmp_path / "cat" / "1.png")
    write(tmp_path / "dog" / "1.png")
    stat = os.stat

    def refuse(place, *more, **options):
        if os.path.basename(place) == "dog":
            raise PermissionError(13, "Permission denied", str(place))
        return stat(place, *more, **options)

    monkeypatch.setattr(module.os, "stat", refuse)
    found = find_images(tmp_path)
    monkeypatch.undo()
    assert found == (
        [tmp_path / "cat" / "1.png"],
        ("dog is passed over: the folder cannot be listed (Permission denied)",),
    )


def test_the_order_is_that_of_the_paths(tmp_path):
    for name in ("b/1.png", "a b/1.png", "a/z.png", "a/2.png", "a/10.png", "a-b.png", "B/1.png"):
        write(tmp_path / name)
    found = find_images(tmp_path).files
    assert found == sorted(tmp_path.rglob("*.png"))


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    write(tmp_path / "cat" / "1.png")
    write(tmp_path / "dog" / "1.png")
    write(tmp_path / "lost+found" / "1.png")
    scandir = os.scandir

    def refuse(place):
        if os.path.basename(place) in ("dog", "lost+found"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(module.os, "scandir", refuse)
    assert find_images(tmp_path) == (
        [tmp_path / "cat" / "1.png"],
        ("dog is passed over: the folder cannot be listed (Permission denied)",),
    )


def test_who_asks_for_files_is_told_what_was_passed_over(tmp_path):
    write(tmp_path / "1.png")
    (tmp_path / "2.svg").write_text("<svg/>")
    said = []
    assert files_of(tmp_path, said.append) == [tmp_path / "1.png"]
    assert said == [
        f"{tmp_path}: 2.svg is passed over: .svg is not read here; convert such files to JPEG"
    ]
