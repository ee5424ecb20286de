"""Where a loop stands: written into a checkpoint, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from accelerate.utils import broadcast_object_list

from fewlabels.errors import FewLabelsError
from fewlabels.training.checkpoint import read_newest_checkpoint, save_checkpoint
from fewlabels.training.saved_modules import fill_modules, load_modules, refuse_diverged

if TYPE_CHECKING:
    from fewlabels.training.loop import Loop

DISCOVERY = "discovery."  # before the names of what discoveries keep


def save_loop(loop: Loop) -> None:
    """Write a checkpoint, in the main process.

    Raises:
        FewLabelsError: weights that are not finite, or no room.
    """
    refuse_diverged(loop.modules.modules, loop.progress.step)
    loop.accelerator.wait_for_everyone()
    if not loop.accelerator.is_main_process:
        return
    arrays, state = loop.state.save()
    arrays |= {f"{DISCOVERY}{k}": v for k, v in loop.discoverer.state_dict().items()}
    state["metrics"] = loop.metrics.count_bytes()
    save_checkpoint(
        loop.folder.checkpoints,
        loop.progress.step,
        loop.modules.modules,
        loop.trainer.state_dict(),
        arrays,
        state,
        loop.schedule.keep_checkpoints,
    )


def load_loop(loop: Loop) -> Path | None:
    """Let a loop stand where the newest whole checkpoint stands; the checkpoint, if there is one.

    Raises:
        FewLabelsError: none is whole, or it is of another run; or the metrics are damaged.
    """
    checkpoint = read_newest_checkpoint(loop.folder.list_checkpoints(), loop.say)
    if loop.accelerator.num_processes > 1:
        first = [checkpoint and checkpoint.place.name]
        broadcast_object_list(first)
        if first[0] != (checkpoint and checkpoint.place.name):
            raise FewLabelsError(f"{loop.folder}: its processes do not read the same checkpoints")
    if checkpoint is None:
        return None
    loop.state.load(checkpoint.arrays, checkpoint.state)
    kept = {k: v for k, v in checkpoint.arrays.items() if k.startswith(DISCOVERY)}
    loop.discoverer.load_state_dict({k.removeprefix(DISCOVERY): v for k, v in kept.items()})
    if loop.schedule.restart != "never":  # weights that are gone are told now
        load_modules(loop.folder.initial, loop.modules.modules)
    if loop.schedule.keep_best and loop.progress.best is not None:
        deploys = loop.strategy.deploys
        load_modules(loop.folder.best, {deploys: loop.modules.plain(deploys)})
    fill_modules(checkpoint.tensors, loop.modules.modules, checkpoint.place)
    phases = loop.strategy.phases(loop.make_round(loop.progress.round))
    loop.trainer.load_state_dict(checkpoint.optimizers, phases)
    # Nothing before this changes a file.
    loop.metrics.cut_back(int(checkpoint.state.get("metrics", 0)))
    return checkpoint.place
