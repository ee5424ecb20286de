"""The largest memory of this process so far, where the system tells it."""

from __future__ import annotations

import ctypes
import functools
import gc
from contextlib import suppress
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """The largest memory since it was made, though parts of that time are measured apart.

    Attributes:
        base: bytes at the beginning; 0 where nobody tells.
        most: at most, so far as it was looked at.
        made: once all is made, before the first step.
        fixed: of gradients and of what the optimiser keeps, however many images a step has.
        steps: that steps have taken beyond both.
        device: of a GPU at most, so far as it was looked at; 0 without one.
    """

    def __init__(self) -> None:
        give_back()
        forget_peak()
        self.base = self.most = read_memory("VmRSS")
        self.made = self.steps = self.fixed = self.device = 0

    def note(self) -> int:
        """Look at the largest memory, and begin anew."""
        now = read_memory()
        self.most = max(self.most, now)
        self.device = max(self.device, read_device_peak())
        forget_peak()
        return now

    def note_made(self) -> None:
        """All is made, and no step was done."""
        if not self.made:
            self.note()
            give_back()
            self.made = read_memory("VmRSS")
            forget_peak()

    def note_step(self, fixed: int) -> None:
        """A step is done, and :meth:`note` came before it; ``fixed`` does not depend on images."""
        self.fixed = max(self.fixed, fixed)
        self.steps = max(self.steps, self.note() - self.made - fixed)

    def estimate(self, factor: float) -> int:
        """Bytes beyond the base, were each step to take ``factor`` times as many."""
        if not self.base:
            return 0
        own = self.made - self.base
        return max(0, own + max(self.most - self.made, self.fixed + int(factor * self.steps)))


def give_back() -> None:
    """Give freed memory back to the system, which glibc would keep; else steps would seem small."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def forget_peak() -> None:
    """Let the largest memory count from now on, where the system can."""
    with suppress(OSError):
        CLEAR.write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def read_memory(key: str = "VmHWM") -> int:
    """Bytes of memory of this process: ``VmHWM`` at most, ``VmRSS`` now; 0 where nobody tells."""
    with suppress(OSError, ValueError, IndexError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


@functools.cache
def remember_imports() -> int:
    """Bytes of this process when it was first asked: of the libraries alone."""
    return read_memory("VmRSS")


def name_device() -> str:
    """The device of runs here, in words."""
    threads = torch.get_num_threads()
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{threads} thread{'s' if threads > 1 else ''}"


def read_device_peak() -> int:
    """Bytes of a GPU's memory at most since :func:`forget_peak`; 0 without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
