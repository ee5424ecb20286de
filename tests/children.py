"""Something hostile is tried in a process of its own, whose limits and time end with it."""

import os
import resource
import signal
import traceback


def run_in_child(do, memory=None, seconds=20):
    """Fork, and give what ``do`` returns or raises there, as text; "" if it has not ended in time.

    ``memory``: bytes that it may take beyond what there is.
    """
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            import torch

            torch.set_num_threads(1)  # threads of the parent are not here
            signal.alarm(seconds)
            if memory is not None:
                with open("/proc/self/statm") as numbers:
                    used = int(numbers.read().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + memory,) * 2)
            try:
                said = str(do())
            except Exception as error:
                said = traceback.format_exception_only(error)[-1].strip()
            with os.fdopen(write, "w") as pipe:
                pipe.write(said)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said
