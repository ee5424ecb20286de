"""The processes that a command runs in: one, or as many as accelerate or torchrun started."""

from __future__ import annotations

import gc
from datetime import timedelta
from typing import TYPE_CHECKING

from fewlabels.training.launch_environment import start_accelerate

if TYPE_CHECKING:
    from accelerate import PartialState


def join_processes() -> PartialState:
    """This process among all: its number, how many there are, and its device.

    One that is done waits for the others for days if need be: torch's half an hour would end a
    command whose last part takes longer.

    Raises:
        FewLabelsError: accelerate cannot start, or its variables want what no command here does.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    def join() -> PartialState:
        cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
        return PartialState(cpu=cpu, timeout=timedelta(days=30))

    return start_accelerate(join)


def leave_processes() -> None:
    """Part from the other processes at the end of this one, which its threads would abort."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        gc.collect()  # what holds the group would keep its threads until the interpreter is gone
        distributed.barrier()  # one that leaves early would abort the others
        distributed.destroy_process_group()
