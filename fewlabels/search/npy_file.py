"""Reads .npy files that may be somebody else's: the header is checked before any data is read."""

from __future__ import annotations

import math
import os
from typing import IO

import numpy as np


def read_shape(stream: IO[bytes], dtype: type[np.generic]) -> tuple[int, ...]:
    """Read the header of an array, and give the shape it says; no data is read.

    Raises:
        ValueError: the array has another dtype or order, or this is no header as ``numpy.save``
            writes one.
    """
    try:
        # A header of a later version may be of 4 GB, which are read before they are looked at.
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("an .npy file of another version than 1.0")
        shape, by_columns, found = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # the header is Python's text, which fails to be read in many ways
        raise ValueError(str(error).partition("\n")[0]) from error
    if found != dtype or by_columns:
        order = " by columns" if by_columns else ""
        raise ValueError(f"numbers of the type {found}{order}, not {np.dtype(dtype)} by rows")
    return shape


def map_array(stream: IO[bytes], shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Map the array in a file into memory, where it is read as it is used.

    Raises:
        ValueError: the file holds another array, or is longer or shorter than that.
    """
    if (found := read_shape(stream, dtype)) != shape:
        raise ValueError(f"an array of the shape {found}, not {shape}")
    begin, size = stream.tell(), os.fstat(stream.fileno()).st_size
    expected = begin + math.prod(shape) * np.dtype(dtype).itemsize
    if size != expected:
        raise ValueError(f"{size:,} bytes, not {expected:,}")
    # asarray keeps the map, and drops memmap's ways: it would warn, copy and print otherwise.
    return np.asarray(np.memmap(stream, dtype, "r", begin, shape))


def read_array(stream: IO[bytes], shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Read an array whose header has been read; it cannot be written to.

    Raises:
        ValueError: there are too few bytes.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(stream.read(size), dtype).reshape(shape)
