"""The processes that a command runs in: one, or as many as accelerate or torchrun started."""

from __future__ import annotations

import gc
import os
import sys
from datetime import timedelta
from signal import SIGTERM
from threading import Thread
from threading import enumerate as enumerate_threads
from time import sleep
from typing import TYPE_CHECKING

from fewlabels.training.launch_environment import start_accelerate

if TYPE_CHECKING:
    from accelerate import PartialState

WATCH = "fewlabels-launcher"
LOOK_EVERY = 5  # seconds


def join_processes() -> PartialState:
    """This process among all: its number, how many there are, and its device.

    One that is done waits for the others for days if need be: torch's half an hour would end a
    command whose last part takes longer.

    Raises:
        FewLabelsError: accelerate cannot start, or its variables want what no command here does.
    """
    end_with_parent()
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    def join() -> PartialState:
        cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
        return PartialState(cpu=cpu, timeout=timedelta(days=30))

    return start_accelerate(join)


def end_with_parent() -> None:
    """End this process when its launcher has died, which could no longer end it.

    What is written is whole at any moment. Nothing is watched where no launcher is known of.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or any(t.name == WATCH for t in enumerate_threads()):
        return
    first = os.getppid()

    def watch() -> None:
        while os.getppid() == first:
            sleep(LOOK_EVERY)
        print("the launcher of this process has died; it ends too", file=sys.stderr, flush=True)
        os._exit(128 + SIGTERM)

    Thread(target=watch, name=WATCH, daemon=True).start()


def leave_processes() -> None:
    """Leave the process group at the end of this process, whose threads would else abort it."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        gc.collect()  # what holds the group would keep its threads until the interpreter is gone
        distributed.barrier()  # one that leaves early would abort the others
        distributed.destroy_process_group()
