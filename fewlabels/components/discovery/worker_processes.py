"""Run a task on many things in worker processes, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm

CHUNK = 32  # things that a worker gets at a time

_worker_task: Callable[[Sequence[Any]], list[Any]]


def _set_worker_task(task: Callable[[Sequence[Any]], list[Any]]) -> None:
    """Keep the task in a worker process, so that it and its images are sent once."""
    global _worker_task
    _worker_task = task


def _run_worker_task(chunk: Sequence[Any]) -> list[Any]:
    """Run the kept task on a chunk."""
    return _worker_task(chunk)


def map_in_processes(
    task: Callable[[Sequence[Any]], list[Any]], things: Sequence[Any], workers: int, what: str
) -> Iterator[Any]:
    """Run a task on chunks of ``things`` and yield the results in order, with a progress bar.

    Args:
        workers: worker processes; 0: run in this process.
        what: title of the progress bar.
    """
    chunks = [things[i : i + CHUNK] for i in range(0, len(things), CHUNK)]
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(things), desc=what, leave=False, disable=None))
        if workers:
            make = ProcessPoolExecutor(workers, initializer=_set_worker_task, initargs=(task,))
            results: Iterable[list[Any]] = stack.enter_context(make).map(_run_worker_task, chunks)
        else:
            results = map(task, chunks)
        for result in results:
            bar.update(len(result))
            yield from result
