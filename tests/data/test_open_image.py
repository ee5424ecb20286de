"""What becomes of a file before a model sees it: in bits, turns, formats and size."""

import io
import struct
import subprocess
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from fewlabels.cli.demo_answers import Answers
from fewlabels.data import open_image
from fewlabels.data.decode import decode_images
from fewlabels.data.lazy_images import from_files
from fewlabels.data.open_image import as_rgb
from fewlabels.errors import DataError, FewLabelsError

RANDOM = np.random.default_rng(0)
PICTURE = Image.fromarray(RANDOM.integers(0, 256, (29, 37, 3), dtype=np.uint8))
CLEAR = Image.fromarray(RANDOM.integers(0, 256, (29, 37, 4), dtype=np.uint8))


def read(content):
    with open_image.open_image(io.BytesIO(content)) as image:
        return image


def save(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey(values, kind):
    return Image.fromarray(np.array([values], kind))


# ---------------------------------------------------------------- eight bits

EIGHT_BITS = {
    "1": PICTURE.convert("1"),
    "L": PICTURE.convert("L"),
    "P": PICTURE.convert("P"),
    "RGB": PICTURE,
    "CMYK": PICTURE.convert("CMYK"),
    "YCbCr": PICTURE.convert("YCbCr"),
    "HSV": PICTURE.convert("HSV"),
    "LA": Image.merge("LA", CLEAR.split()[2:]),
    "RGBA": CLEAR,
}


@pytest.mark.parametrize("mode", EIGHT_BITS)
def test_images_of_8_bits_are_to_the_bit_what_pillow_makes_of_them(mode):
    image = EIGHT_BITS[mode]
    expected = image
    if "A" in mode:
        white = Image.new("RGBA", image.size, "white")
        expected = Image.alpha_composite(white, image.convert("RGBA"))
    assert as_rgb(image).tobytes() == expected.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_colour_that_is_declared_transparent_is_white(mode):
    image = EIGHT_BITS[mode]
    clear = image.getpixel((0, 0))
    rgb = np.asarray(read(save(image, transparency=clear)))
    hidden = np.asarray(image) == clear
    assert (rgb[hidden] == 255).all()
    assert np.array_equal(rgb[~hidden], np.asarray(image.convert("RGB"))[~hidden])


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_colours_that_were_multiplied_by_their_alpha_are_read(mode):
    plain = EIGHT_BITS[mode.upper()]
    assert as_rgb(plain.convert(mode)).size == plain.size


# ---------------------------------------------------------------- more than eight

GREYS = {
    "16 bits": (grey([0, 257, 25700, 65535], np.uint16), [0, 1, 100, 255]),
    "16 bits, rounded": (grey([128, 129, 385, 386], np.uint16), [0, 1, 1, 2]),
    "16 bits of a dark picture": (grey([0, 4095], np.uint16), [0, 16]),
    "32 bits that hold 16": (grey([0, 25700, 65535], np.int32), [0, 100, 255]),
    "32 bits that hold 8": (grey([0, 100, 255], np.int32), [0, 100, 255]),
    "floats of 0 to 1": (grey([0, 0.2, 1], np.float32), [0, 51, 255]),
    "floats that a filter moved": (grey([-5e-4, 0.5, 1 + 5e-4], np.float32), [0, 128, 255]),
    "floats of 0 to 255": (grey([0, 100, 255], np.float32), [0, 100, 255]),
}


@pytest.mark.parametrize("case", GREYS)
def test_greys_of_more_bits_keep_their_levels(case):
    image, expected = GREYS[case]
    assert np.asarray(as_rgb(image))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_files_of_16_bits_are_not_all_white(kind):
    image, expected = GREYS["16 bits"]
    assert np.asarray(read(save(image, kind)))[0, :, 0].tolist() == expected


def test_a_dark_file_whose_white_is_65535_is_dark():
    pgm = b"P5\n3 1\n65535\n" + np.array([0, 200, 255], ">u2").tobytes()
    assert np.asarray(read(pgm))[0, :, 0].tolist() == [0, 1, 1]


def test_a_grey_of_16_bits_that_is_declared_transparent_is_white():
    png = save(grey([300, 25700], np.uint16), transparency=300)
    assert np.asarray(read(png))[0, :, 0].tolist() == [255, 100]


@pytest.mark.parametrize(
    ("values", "kind", "sentence"),
    [
        ([-128, 110], np.int32, "its values are -128 to 110; save it with 8 or 16 bits"),
        ([0, 70000], np.int32, "its values are 0 to 70000; save it with 8 or 16 bits"),
        ([-3, 900], np.float32, r"its values are floats from -3 to 900; scale to 0\.\.1"),
        ([0, 1.5], np.float32, r"its values are floats from 0 to 1\.5"),
        ([0, np.nan], np.float32, "its values are floats from nan"),
    ],
)
def test_greys_that_do_not_say_what_is_white_are_refused_by_name(values, kind, sentence, tmp_path):
    grey(values, kind).save(tmp_path / "depth.tif")
    with pytest.raises(DataError, match=rf"depth\.tif: not readable as an image \({sentence}"):
        from_files([tmp_path / "depth.tif"])[0]


# ---------------------------------------------------------------- EXIF


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_image_is_turned_back_once(turn, kind):
    exif = Image.Exif()
    exif[274] = turn
    content = save(PICTURE, kind, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    rgb = read(content)
    assert rgb.tobytes() == expected.tobytes()
    assert rgb.size == expected.size
    assert as_rgb(rgb).tobytes() == rgb.tobytes()
    assert not rgb.info


def jpeg_with_tag(number, kind, count, value, more=b""):
    """A JPEG of 48 x 24 pixels that lies on its side, with one more tag in its EXIF."""
    content = save(PICTURE.resize((48, 24)), "jpeg")
    tags = struct.pack("<H", 2) + struct.pack("<HHI4s", 274, 3, 1, b"\6\0\0\0")
    tags += struct.pack("<HHI4s", number, kind, count, value)
    body = b"Exif\0\0II*\0\x08\0\0\0" + tags + bytes(4) + more
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]


AFTER = struct.pack("<I", 8 + 2 + 2 * 12 + 4)  # where values of more than four bytes stand
ODD = {
    "a brightness of -1/0": (0x9203, 10, 1, AFTER, struct.pack("<ii", -1, 0)),
    "a description that is a float": (0x10E, 11, 1, b"\0\0\x80\x3f"),
    "a description that is a fraction": (0x10E, 5, 1, AFTER, struct.pack("<II", 1, 2)),
    "a place below zero": (0x213, 9, 1, b"\xff\xff\xff\xff"),
    "a resolution of bytes": (0x11A, 7, 4, b"abcd"),
}


@pytest.mark.parametrize("case", ODD)
def test_a_photograph_with_an_odd_tag_is_turned_as_any_other(case):
    assert read(jpeg_with_tag(*ODD[case])).size == (24, 48)


def test_a_file_whose_exif_is_none_is_read():
    assert read(save(PICTURE, exif=b"Exif\0\0garbage")).tobytes() == PICTURE.tobytes()


# ---------------------------------------------------------------- formats and sizes

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 32
%%EndComments
0 0 1 setrgbcolor 0 0 32 32 rectfill showpage
%%EOF
"""


def test_postscript_by_the_name_of_a_photograph_is_never_run(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *words, **_: started.append(words))
    file = tmp_path / "photo.jpg"
    file.write_bytes(POSTSCRIPT)
    with pytest.raises(FewLabelsError, match=r"photo\.jpg: not readable as an image"):
        from_files([file])[0]
    with pytest.raises(FewLabelsError, match=r"photo\.jpg\) cannot be read"):
        list(decode_images([file], lambda image: image))
    assert Answers(None, tmp_path)(file, 1, 0, False).sentence.startswith("This file cannot be")
    assert Answers(None, tmp_path)._load_picture("photo.jpg") is None
    assert not started


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "QOI", "TGA"]
)
def test_what_people_have_for_photographs_is_opened(kind):
    assert read(save(PICTURE, kind)).size == PICTURE.size


@pytest.mark.parametrize("kind", ["ICO", "PCX", "SGI", "IM", "PDF", "EPS"])
def test_other_formats_are_not_opened(kind):
    with pytest.raises(ValueError, match="no image in a format that is read"):
        read(save(PICTURE, kind))


def png_head(side):
    """The head of a PNG of black and white, without its pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n\0\0\0\r" + head + struct.pack(">I", zlib.crc32(head))
    return start + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_larger_than_pillow_warns_of_is_refused_by_its_head():
    assert Image.MAX_IMAGE_PIXELS < 13_300**2 < 2 * Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError, match=r"13300 x 13300 pixels are more than 89,478,485; make it"):
        read(png_head(13_300))
    with pytest.raises(Image.DecompressionBombError):
        read(png_head(14_000))


def test_a_jpeg_is_decoded_smaller_only_while_it_is_larger_than_what_is_asked_for():
    content = save(Image.new("RGB", (900, 700)), "jpeg")
    for side, size in ((100, (225, 175)), (300, (450, 350)), (350, (450, 350)), (351, (900, 700))):
        with open_image.open_image(io.BytesIO(content), side=side) as image:
            assert image.size == size


def test_large_images_wait_for_each_other_and_small_ones_do_not(monkeypatch):
    contents = [save(PICTURE), save(PICTURE.resize((200, 200)))]
    monkeypatch.setattr(open_image, "LARGE", 10_000)
    everybody = threading.Barrier(4, timeout=10)
    lock, held, most = threading.Lock(), 0, 0

    def small(_):
        with open_image.open_image(io.BytesIO(contents[0])):
            everybody.wait()

    def large(_):
        nonlocal held, most
        with open_image.open_image(io.BytesIO(contents[1])):
            with lock:
                held += 1
                most = max(most, held)
            threading.Event().wait(0.01)
            with lock:
                held -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(small, range(4)))
        list(pool.map(large, range(8)))
    assert most == 1
