"""How long each part of a run takes, without the parts within it."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch


class Lap(NamedTuple):
    """One stretch of work: seconds on the clock and of the processor, and images that it took."""

    seconds: float
    cpu: float
    images: int


class Stopwatch:
    """Laps by name; a lap within another one is not counted in it.

    ``stage`` is what is being trained.
    """

    def __init__(self) -> None:
        self.stage = ""
        self.laps: dict[str, list[Lap]] = defaultdict(list)
        self.within: list[list[float]] = []

    @staticmethod
    def read_clocks() -> tuple[float, float]:
        """Seconds on the clock and of the processor; a GPU has finished what it was given.

        Those of processes that were started count once they have ended.
        """
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        ended = os.times()
        return (
            time.perf_counter(),
            time.process_time() + ended.children_user + ended.children_system,
        )

    @contextmanager
    def measure(self, name: str, images: int = 0) -> Iterator[None]:
        """Context manager: what happens in it is a lap."""
        begin = self.read_clocks()
        self.within.append([0.0, 0.0])
        try:
            yield
        finally:
            whole = [now - then for now, then in zip(self.read_clocks(), begin, strict=True)]
            inner = self.within.pop()
            if self.within:
                self.within[-1][0] += whole[0]
                self.within[-1][1] += whole[1]
            self.laps[name].append(Lap(whole[0] - inner[0], whole[1] - inner[1], images))

    def watch_method(
        self, owner: Any, method: str, name: Callable[..., str], images: Callable[..., int] = int
    ) -> None:
        """Measure every call of one object's method from now on, once.

        Args:
            name, images: of a lap, from the arguments of the call.
        """
        original = getattr(owner, method)
        if getattr(original, "watched", False):
            return

        def call(*given: Any, **named: Any) -> Any:
            count = 0 if images is int else images(*given, **named)
            with self.measure(name(*given, **named), count):
                return original(*given, **named)

        call.watched = True  # type: ignore[attr-defined]
        setattr(owner, method, call)

    def iterate(self, items: Iterator[Any], name: str) -> Iterator[Any]:
        """The items, each of which is a lap while it is made."""
        while True:
            with self.measure(name):
                item = next(items, self)
            if item is self:
                self.laps[name].pop()  # there was none
                return
            yield item

    def average(self, name: str, skip: int = 0) -> Lap:
        """The mean lap of a name, without the first ones if there are more; zeros if none."""
        laps = self.laps.get(name, [])
        laps = laps[skip:] or laps
        if not laps:
            return Lap(0.0, 0.0, 0)
        return Lap(
            sum(lap.seconds for lap in laps) / len(laps),
            sum(lap.cpu for lap in laps) / len(laps),
            round(sum(lap.images for lap in laps) / len(laps)),
        )

    def sum_laps(self, without: tuple[str, ...]) -> Lap:
        """The sum of all laps, but for those whose names begin so."""
        sums = [self.total(name) for name in list(self.laps) if not name.startswith(without)]
        return Lap(sum(s.seconds for s in sums), sum(s.cpu for s in sums), 0)

    def total(self, name: str) -> Lap:
        """The sum of the laps of a name."""
        laps = self.laps.get(name, [])
        return Lap(*(sum(values) for values in zip(*laps, strict=True))) if laps else Lap(0, 0, 0)
