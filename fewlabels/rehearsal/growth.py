"""How work grows with the number of images: measured at growing sizes and carried on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

BUDGET = 3.0
"""Seconds that a third or later size may take to be measured; the first two always are."""


@dataclass(frozen=True)
class Growth:
    """Seconds of work at growing numbers of images."""

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """By which power of the number of images the last two sizes differ; 1 to 2.5."""
        if len(self.sizes) < 2 or min(self.seconds[-2:]) <= 0:
            return 1.0
        slope = math.log(self.seconds[-1] / self.seconds[-2]) / math.log(
            self.sizes[-1] / self.sizes[-2]
        )
        return min(2.5, max(1.0, slope))

    def at(self, size: int) -> tuple[float, float]:
        """Seconds on the clock and of the processor of work on so many images."""
        factor = (size / self.sizes[-1]) ** self.exponent if self.sizes else 0.0
        return (factor * self.seconds[-1], factor * self.cpu[-1]) if self.sizes else (0.0, 0.0)

    def describe(self, size: int) -> str:
        """How the number at a size was found."""
        if not self.sizes:
            return "nothing to do"
        if self.sizes[-1] >= size:
            return "measured at its size"
        several = " and ".join(f"{n:,}" for n in self.sizes[-2:])
        return f"measured at {several} images, carried on by the power {self.exponent:.2f}"


def measure_growth(make: Callable[[int], Callable[[], object]], full: int, least: int) -> Growth:
    """Measure work at sizes that double until the whole is reached or the next takes too long.

    Args:
        make: prepares the work on so many images.
        full: images of the whole.
        least: at which size to begin.
    """
    sizes: list[int] = []
    seconds: list[float] = []
    cpu: list[float] = []
    size = min(full, least)
    while size:
        work = make(size)
        begin = time.perf_counter(), time.process_time()
        work()
        sizes.append(size)
        seconds.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
        if size == full or (len(sizes) > 1 and 4 * seconds[-1] > BUDGET):
            break
        size = min(full, 2 * size)
    return Growth(tuple(sizes), tuple(seconds), tuple(cpu))
