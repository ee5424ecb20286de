"""Checkpoints: all that a killed run needs to resume and reach the same final weights.

Tensors are safetensors, arrays are npz without pickles, optimisers load with ``weights_only``. A
checkpoint is written beside its place and then renamed, so a kill leaves a whole one or none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fewlabels.errors import FewLabelsError
from fewlabels.files import replace_when_whole
from fewlabels.training.file_damage import (
    DamagedFileError,
    check_sums,
    read_undamaged,
    write_sums,
)
from fewlabels.training.run_folder import list_checkpoints, read_step
from fewlabels.training.saved_modules import FILE, read_modules, write_modules

FILES = (FILE, "optimizers.pt", "arrays.npz", "state.json")


class Checkpoint(NamedTuple):
    """What stands in a checkpoint: all of it is read before any of it is used."""

    place: Path
    tensors: dict[str, Tensor]
    optimizers: dict[str, Any]
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write ``folder/step-NNNNNN``; once it stands, remove all but the newest ``keep``.

    Those of later steps go too: a run that stands here has passed over them as damaged.

    Args:
        optimizers: state dicts by name.
        arrays: by name; what discoveries and the loop know.
        state: JSON: where the run stands.

    Raises:
        FewLabelsError: it cannot be written; those before it stand.
    """
    place = folder / f"step-{step:06d}"
    draft = folder / f".draft-{step:06d}"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        write_modules(draft / FILE, modules)
        torch.save(dict(optimizers), draft / "optimizers.pt")
        np.savez(draft / "arrays.npz", **arrays)  # type: ignore[arg-type]
        (draft / "state.json").write_text(json.dumps(state, indent=1))
        write_sums(draft, FILES)
        _retire_checkpoint(place)  # a step at a round's end may be saved twice
        replace_when_whole(draft, place)
    except (OSError, RuntimeError) as error:  # the latter is torch.save's
        shutil.rmtree(draft, ignore_errors=True)  # it may hold the room that is missing
        raise FewLabelsError(
            f"{place} cannot be written ({error}); make room, or mend that, and resume the run"
        ) from error
    kept = [other for other in list_checkpoints(folder) if read_step(other) <= step][-keep:]
    for other in list_checkpoints(folder):
        if other not in kept:
            _retire_checkpoint(other)
    for retired in folder.glob(".old-*"):
        if retired not in kept:
            shutil.rmtree(retired)
    return place


def _retire_checkpoint(place: Path) -> None:
    """Rename a checkpoint, so that a kill never leaves half of one under its name."""
    if place.exists() and not place.name.startswith("."):
        retired = place.with_name(f".old-{place.name}")
        shutil.rmtree(retired, ignore_errors=True)
        replace_when_whole(place, retired)


def read_checkpoint(place: Path) -> Checkpoint:
    """All of a checkpoint.

    Raises:
        DamagedFileError: naming the first file that is missing, or is not what was written.
    """
    check_sums(place, FILES)
    return Checkpoint(
        place,
        read_modules(place),
        read_undamaged(place / "optimizers.pt", _read_optimizers),
        read_undamaged(place / "arrays.npz", _read_arrays),
        read_undamaged(place / "state.json", lambda file: dict(json.loads(file.read_text()))),
    )


def read_newest_checkpoint(places: Sequence[Path], say: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole one of the checkpoints given, oldest first; None where there are none.

    Args:
        say: is told which are passed over, and why.

    Raises:
        FewLabelsError: all are damaged.
    """
    damages: list[str] = []
    for place in reversed(places):
        try:
            checkpoint = read_checkpoint(place)
        except DamagedFileError as error:
            damages.append(str(error))
        else:
            for damage in damages:
                say(f"{damage}; going on from {place.name}")
            return checkpoint
    if damages:
        raise FewLabelsError(
            f"{'; '.join(damages)}; no checkpoint is whole, so start a new run, or put one back"
        )
    return None


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _read_optimizers(file: Path) -> dict[str, Any]:
    return dict(torch.load(file, map_location="cpu", weights_only=True))
