"""Ctrl-C, SIGTERM and SIGHUP: a run finishes its step and saves; other commands end at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from fewlabels.errors import Stopped

if TYPE_CHECKING:
    from accelerate import Accelerator

ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a process unless it says otherwise; the latter is a terminal that was closed."""
SIGNALS = (signal.SIGINT, *ENDS)
AGREE_EVERY = 4  # steps, in many processes: an answer waits for the device


class StopSignals:
    """Notes signals while a run trains; a second Ctrl-C ends it at once."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.received, self.at_once = accelerator, 0, False

    @contextmanager
    def note_signals(self) -> Iterator[None]:
        """While open, signals are noted; one that nobody has asked for raises at the end."""
        try:
            with handle_signals(SIGNALS, self._receive):
                yield
        except Exception as error:
            if not self.received or "DataLoader worker" not in str(error):
                raise
            raise Stopped(self.received) from error  # a signal to all has ended a worker first
        if self.received:
            raise Stopped(self.received)

    @contextmanager
    def act_at_once(self) -> Iterator[None]:
        """While open, a signal ends the run where it is: nothing is lost that was not saved."""
        self.at_once = True
        try:
            yield
        finally:
            self.at_once = False

    def _receive(self, number: int) -> None:
        again = number == self.received == signal.SIGINT  # launchers add a SIGTERM of their own
        self.received = self.received or number
        if self.at_once or again:
            raise Stopped(number)

    def agree(self, step: int = 0) -> int:
        """The signal at which all processes end now, after this step; 0 for none."""
        if self.accelerator.num_processes == 1:
            return self.received
        if step % AGREE_EVERY:
            return 0
        import torch

        noted = torch.tensor(float(self.received > 0), device=self.accelerator.device)
        asked = bool(self.accelerator.reduce(noted, "sum").item())
        return (self.received or signal.SIGTERM) if asked else 0


@contextmanager
def end_at_ctrl_c() -> Iterator[None]:
    """While open, Ctrl-C ends the process without a word: modules cannot be half imported."""
    mine = threading.current_thread() is threading.main_thread()
    mine = mine and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if mine:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def stop_when_terminated() -> Iterator[None]:
    """While open, SIGTERM and SIGHUP raise :class:`Stopped`, as Ctrl-C does KeyboardInterrupt."""
    with handle_signals(ENDS, _raise_stopped):
        yield


def _raise_stopped(number: int) -> None:
    raise Stopped(number)


@contextmanager
def handle_signals(
    numbers: tuple[signal.Signals, ...], act: Callable[[int], Any]
) -> Iterator[None]:
    """Act on signals, in the main thread alone; one that is ignored or handled elsewhere stays so.

    A process that is forked meanwhile ends at such a signal.
    """
    own = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            os._exit(128 + number)
        act(number)

    handle.ours = True  # type: ignore[attr-defined]
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            now = signal.getsignal(number)
            known = now in (signal.SIG_DFL, signal.default_int_handler)
            if known or getattr(now, "ours", False):
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
