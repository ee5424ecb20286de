"""Processes of a test's own: for what is hostile, and for what several do together."""

import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import MappingProxyType

START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(
    ["fewlabels.cli.main", "fewlabels.runs.assemble", "scipy.stats", "sklearn.cluster", "timm"]
)
"""Processes are forked from one that has imported this and has done nothing: imports take seconds."""


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


def run_together(words, number, seconds=400):
    """Run a command of fewlabels in processes that work together; exit codes, and what they said.

    What has not ended in time is killed: its code is -9.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    together |= {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    ranks = [{**together, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]
    ranks = ranks if number > 1 else [{}]
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{rank}.txt") for rank in range(number)]
        started = [start_command(words, *each) for each in zip(files, ranks, strict=True)]
        for process in started:
            process.join(max(0, end - time.monotonic()))
            process.kill()
            process.join()
        return [process.exitcode for process in started], "".join(f.read_text() for f in files)


def start_command(words, said, environment=MappingProxyType({})):
    """Start a command of fewlabels in a process that writes all that it says into a file."""
    environment = {**os.environ, **environment, "ACCELERATE_USE_CPU": "true"}
    given = ([*map(str, words)], said, {**environment, "OMP_NUM_THREADS": "1"}, os.getcwd())
    process = START.Process(target=_run, args=given)
    process.start()
    return process


def _run(words, said, environment, place):
    os.environ.clear()  # the server's own are of an earlier test
    os.environ.update(environment)
    os.chdir(place)
    multiprocessing.set_start_method("fork", force=True)  # of workers, as in a command of its own
    out = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    import torch

    from fewlabels.cli.main import main

    torch.set_num_threads(1)
    sys.exit(main(words))
