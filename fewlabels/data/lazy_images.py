"""Sequences of images that are decoded only when they are indexed."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from PIL import Image
from tqdm import tqdm

from fewlabels.data.open_image import ImageSource, open_image
from fewlabels.errors import DataError, UnreadableImageError

MOST_THREADS = 16
"""That decode: each holds an image of up to 16 million pixels."""

T = TypeVar("T")


class LazyImages(Sequence[Image.Image]):
    """N images, each opened when it is asked for.

    Args:
        read: gives what is to be opened as image i: a file, an open one, or a picture.
        name: what a person would call image i, for the sentence when it cannot be read.
    """

    def __init__(
        self, count: int, read: Callable[[int], ImageSource], name: Callable[[int], str]
    ) -> None:
        self.size, self.read, self.name = count, read, name

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, i: int) -> Image.Image: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Image.Image]: ...
    def __getitem__(self, i: int | slice) -> Image.Image | Sequence[Image.Image]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(self.size))]
        return self.prepare_image(i, lambda image: image)

    def prepare_image(self, i: int, prepare: Callable[[Image.Image], T]) -> T:
        """``prepare`` of image i, while no other large one is open.

        Raises:
            UnreadableImageError: it cannot be read, or ``prepare`` cannot make anything of it.
        """
        if not -self.size <= i < self.size:
            raise IndexError(i)
        try:
            with open_image(self.read(i % self.size)) as image:
                return prepare(image)
        except Exception as error:  # decoders raise what they like
            raise UnreadableImageError(self.name(i % self.size), describe_reason(error)) from error


def prepare_image(images: Sequence[Image.Image], i: int, prepare: Callable[[Image.Image], T]) -> T:
    """``prepare`` of image i of any sequence.

    Raises:
        UnreadableImageError: it cannot be read, or ``prepare`` cannot make anything of it.
        DataError: a plugin's sequence says so in its own words.
    """
    if isinstance(images, LazyImages):
        return images.prepare_image(i, prepare)
    try:
        return prepare(images[i])
    except DataError:
        raise
    except Exception as error:
        raise UnreadableImageError(f"image {i}", describe_reason(error)) from error


def try_images(
    images: Sequence[Image.Image],
    rows: np.ndarray,
    prepare: Callable[[Image.Image], T],
    what: str,
    quiet: bool = False,
) -> Generator[T | UnreadableImageError, None, None]:
    """``prepare`` of the images of some rows in order, in threads; or what is wrong with one.

    Args:
        what: a word for the progress bar.
        quiet: no such bar.
    """

    def try_image(row: int) -> T | UnreadableImageError:
        try:
            return prepare_image(images, row, prepare)
        except UnreadableImageError as error:
            return error

    # Decoding and resizing release the interpreter's lock, so threads are enough.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        done = pool.map(try_image, rows.tolist())
        try:
            yield from tqdm(done, what, len(rows), disable=quiet or None, leave=False)
        finally:  # who has seen enough does not wait for the others
            pool.shutdown(wait=False, cancel_futures=True)


def describe_reason(error: BaseException) -> str:
    """What an exception says; some say nothing but their name."""
    return str(error) or type(error).__name__


# Functions of a module and partial(), not lambdas: processes that read lazily must pickle them.


def from_files(files: Sequence[Path]) -> LazyImages:
    """Images in files."""
    return LazyImages(len(files), files.__getitem__, partial(name_image, "", files))


def from_arrays(images: np.ndarray) -> LazyImages:
    """Images of a uint8 array (N, H, W, 3)."""
    return LazyImages(len(images), partial(_get_array, images), partial(name_image, "image ", None))


def _get_array(images: np.ndarray, i: int) -> Image.Image:
    return Image.fromarray(images[i])


def name_image(before: str, names: Sequence[Any] | None, i: int) -> str:
    """The name of image i: its own, or its number, after a word."""
    return f"{before}{i if names is None else names[i]}"
