"""Tensors in a safetensors file: the one place where such a file is written or read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewlabels.errors import FewLabelsError
from fewlabels.files import open_regular

LONGEST_HEADER = 10_000_000
"""Bytes allowed for the names and shapes of all tensors; those of 1,000 tensors take 100,000."""


def write_tensors(
    file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors to a file, which others may read as far as umask says.

    Raises:
        OSError: it cannot be written; the error names the file.
    """
    # safetensors refuses tensors that share memory or are not contiguous.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with open(file, "wb") as empty:  # safetensors replaces it by one that its owner alone may read
        mode = stat.S_IMODE(os.fstat(empty.fileno()).st_mode)
    try:
        save_file(whole, file, metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(None, str(error), str(file)) from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error
    os.chmod(file, mode)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors in a file that may be of somebody else's making.

    Raises:
        FewLabelsError: a pipe, a device, or more than this machine's memory holds.
        OSError: it is not there, or may not be read.
        ValueError: it is damaged.
    """
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        header = int.from_bytes(stream.read(8), "little")
    if header > LONGEST_HEADER:
        raise ValueError(f"a header of {header:,} bytes, and {LONGEST_HEADER:,} are many")
    if size > (memory := measure_memory()):
        raise FewLabelsError(
            f"{file}: {size / 2**30:,.0f} GiB, more than the {memory / 2**30:,.0f} GiB of memory "
            "here; choose a smaller model, or a larger machine"
        )
    try:
        return load_file(file)
    except (SafetensorError, MemoryError) as error:
        raise ValueError(str(error)) from error


def measure_memory() -> float:
    """Bytes of this machine's memory; infinity where it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows, and systems that lack the names
        return float("inf")
