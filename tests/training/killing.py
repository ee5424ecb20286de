"""Kill a run at every operation on its files and at random moments, and let it go on.

``python killing.py FOLDER CASE MOMENTS [EVERY]`` prints a JSON object: operations, kills,
differences. Every run is forked from this process, which trains nothing itself: what a run imports
is imported once. ``EVERY`` 3 kills at every third operation.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from fewlabels.models import tensor_file
from fewlabels.recipe.recipe import Recipe, recipe_from
from fewlabels.registry import REGISTRIES
from fewlabels.runs.train import train
from fewlabels.testing.runs import recipe_of
from fewlabels.testing.subject import Subject
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.run_folder import RunFolder

FEW = {"labelled": 8, "batch": 8}
PAIRS = {"batch": 8, "per_class": 2}
BEST = {"report": "best", "before": False, "steps": 1}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **{
        name: (name, FEW, {})
        for name in (
            *("ict", "lmcs", "mean_teacher", "mixmatch", "mixup", "pi_model", "pseudo_label"),
            *("snowball", "supervised", "temporal_ensembling", "vat"),
        )
    },
    "metric": ("metric", {**PAIRS, "momentum": 0.9, "average": 0.9}, {}),
    "tac_ccl": ("tac_ccl", PAIRS, {}),
    "rotation": ("rotation", {"epochs": 1, "batch": 8}, {}),
    "snowball, best": ("snowball", FEW, {"evaluation": BEST}),
}
KEEP = {"snowball, best": 2, "metric": 2}  # checkpoints; elsewhere 1, where a kill is worst
OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def make_recipe(case: str) -> Recipe:
    """A few steps on a few images, with a checkpoint after each."""
    strategy, options, changes = CASES[case]
    recipe = recipe_of(Subject(REGISTRIES["strategies"], strategy, options, changes))
    recipe["train"]["keep_checkpoints"] = KEEP.get(case, 1)
    if recipe["data"]["labels"] != "none":  # a round on the given labels comes before the first
        recipe["rounds"]["rounds"] = 1
    if case == "snowball, best":
        recipe["data"]["validation"] = 8
        recipe["rounds"]["restart"] = "round"
    return recipe_from({**recipe, "name": "run"})


def fork(do: Callable[[], Any], printed: Path) -> int:
    """Start something in a process of its own; the process."""
    process = os.fork()
    if process:
        return process
    try:
        out = os.open(printed, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        torch.set_num_threads(1)  # a fork's first use of the pool of threads, by one thread alone
        do()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def wait(process: int) -> int:
    """How a process has ended: 0 well, less than 0 by a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def watch(folder: Path, at: int, count: Path | None = None) -> None:
    """In this process: count what is done to files in a folder, and die before number ``at``."""
    done, busy = [0], [False]

    def tick(half: Callable[[], Any] = lambda: None) -> None:
        done[0] += 1
        if count is not None:
            busy[0] = True
            count.write_text(str(done[0]))
            busy[0] = False
        if done[0] == at:
            busy[0] = True
            half()
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if busy[0] or event not in OPERATIONS or not isinstance(given[0], (str, os.PathLike)):
            return
        path = os.fspath(given[0])
        if os.path.isabs(path) and not path.startswith(str(folder)):
            return
        if event == "open":
            mode, flags = given[1], given[2]
            writes = set(mode) & set("wax+") if isinstance(mode, str) else flags & 3
            if not writes:
                return
        tick()

    def cut(path: Any) -> None:
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[: len(content) // 2])

    def halved(write: Callable[..., Any], where: int) -> Callable[..., Any]:
        def write_and_tick(*given: Any, **more: Any) -> None:
            write(*given, **more)
            tick(lambda: cut(given[where]))

        return write_and_tick

    write_rows, fsync = MetricLog.write_rows, os.fsync

    def write_half_a_row(log: MetricLog, *given: Any, **where: Any) -> None:
        before = log.count_bytes()
        write_rows(log, *given, **where)
        end = max(before, log.count_bytes() - 9)  # no row may have been written
        tick(lambda: os.truncate(log.path, end) if log.path else None)

    def sync_and_tick(file: int) -> None:
        fsync(file)
        tick()

    tensor_file.save_file = halved(tensor_file.save_file, 1)
    torch.save = halved(torch.save, 1)
    pq.write_table = halved(pq.write_table, 1)
    MetricLog.write_rows = write_half_a_row  # type: ignore[method-assign]
    os.fsync = sync_and_tick
    sys.addaudithook(hook)


def find_difference(one: Path, two: Path) -> str | None:
    """The first file of two run folders that tells them apart."""
    files = [
        {path.relative_to(place) for path in place.rglob("*") if is_kept(path, place)}
        for place in (one, two)
    ]
    for name in sorted(files[0] | files[1]):
        if name not in files[0] & files[1]:
            return f"{name} is in one alone"
        if read_plain(one / name) != read_plain(two / name):
            return str(name)
    return None


def is_kept(path: Path, place: Path) -> bool:
    """Whether a file tells how a run has ended; sums are of times too."""
    hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
    return path.is_file() and not hidden and path.name != "SHA256SUMS"


def read_plain(file: Path) -> Any:
    """What a file holds, without the time that it took."""
    if file.suffix == ".jsonl":
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        return [{k: v for k, v in row.items() if k not in ("seconds", "minutes")} for row in rows]
    if file.name == "state.json":
        return {k: v for k, v in json.loads(file.read_text()).items() if k != "metrics"}
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return {name: (arrays[name].tolist(), arrays[name].dtype) for name in arrays.files}
    if file.suffix == ".pt":
        return repr(torch.load(file, weights_only=True))
    return file.read_bytes()


class Killing:
    """Kills runs of one case in a folder."""

    def __init__(self, folder: Path, case: str) -> None:
        self.folder, self.recipe = folder, make_recipe(case)
        self.whole, self.killed = folder / "whole", folder / "killed"
        self.printed, self.count = folder / "printed.txt", folder / "operations.txt"
        self.kills, self.differences = 0, [""][:0]

    def run_whole(self) -> tuple[int, float]:
        """The undisturbed run; its operations, and the seconds that one takes unwatched."""
        self._import_modules()
        begin = time.monotonic()
        assert wait(fork(lambda: self._start(self.folder / "timed"), self.printed)) == 0, (
            self._said()
        )
        seconds = time.monotonic() - begin

        def run() -> None:
            watch(self.whole, 0, self.count)
            self._start(self.whole)

        assert wait(fork(run, self.printed)) == 0, self._said()
        return int(self.count.read_text()), seconds

    def kill_at(self, operation: int) -> None:
        """Kill a run before one of its operations, and let it go on to its end."""

        def run() -> None:
            watch(self.killed, operation)
            self._start(self.killed)

        shutil.rmtree(self.killed, ignore_errors=True)
        self.kills += wait(fork(run, self.printed)) == -signal.SIGKILL
        self._end(f"operation {operation}")

    def kill_after(self, moments: Iterator[float]) -> None:
        """Kill a run after some seconds, and what goes on with it once more."""
        shutil.rmtree(self.killed, ignore_errors=True)
        said = []
        for go_on in (self._start, self._resume):
            process = fork(lambda go_on=go_on: go_on(self.killed), self.printed)
            said.append(next(moments))
            time.sleep(said[-1])
            os.kill(process, signal.SIGKILL)
            self.kills += wait(process) == -signal.SIGKILL
        self._end(f"after {said} s")

    def _end(self, when: str) -> None:
        code = wait(fork(lambda: self._resume(self.killed), self.printed))
        found = (
            find_difference(self.whole / "run", self.killed / "run") if not code else self._said()
        )
        if found:
            self.differences.append(f"{when}: {found}")

    def _import_modules(self) -> None:
        """Import here what a run imports, so that no later fork has to."""
        names = self.folder / "modules.txt"

        def run() -> None:
            self._start(self.folder / "first")
            names.write_text("\n".join(sys.modules))

        assert wait(fork(run, self.printed)) == 0, self._said()
        for name in names.read_text().splitlines():
            with suppress(Exception):  # some are imported only by what they are a part of
                importlib.import_module(name)

    def _start(self, out: Path) -> None:
        train(self.recipe, out=out)

    def _resume(self, out: Path) -> None:
        if RunFolder(out / "run").recipe.is_file():
            train(resume=out / "run")
        else:  # nothing stood yet
            shutil.rmtree(out, ignore_errors=True)
            self._start(out)

    def _said(self) -> str:
        return self.printed.read_text()[-600:]


def main(folder: str, case: str, moments: str, every: str = "1") -> None:
    """Kill, and print what came of it."""
    torch.set_num_threads(1)
    Path(folder).mkdir(parents=True, exist_ok=True)
    killing = Killing(Path(folder), case)
    operations, seconds = killing.run_whole()
    draw = random.Random(7)
    for operation in range(1, operations + 1, int(every)):
        killing.kill_at(operation)
    for _ in range(int(moments)):
        killing.kill_after(iter([draw.uniform(0, seconds), draw.uniform(0, seconds)]))
    print(json.dumps({"operations": operations, "kills": killing.kills, "seconds": seconds,
                      "differences": killing.differences}))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
