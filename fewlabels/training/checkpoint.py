"""Checkpoints: all that a killed run needs to go on to the same final weights.

Tensors are safetensors, arrays are npz without pickles, optimisers load with ``weights_only``. A
checkpoint is written beside its place and then renamed, so a kill leaves a whole one or none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fewlabels.errors import FewLabelsError
from fewlabels.files import replace_when_whole
from fewlabels.training.run_folder import list_checkpoints


def save_checkpoint(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write ``folder/step-NNNNNN`` and remove all but the newest ``keep``.

    Args:
        optimizers: state dicts by name.
        arrays: by name; what discoveries and the loop know.
        state: JSON: where the run stands.
    """
    place = folder / f"step-{step:06d}"
    draft = folder / f".draft-{step:06d}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_modules(draft, modules)
    torch.save(dict(optimizers), draft / "optimizers.pt")
    np.savez(draft / "arrays.npz", **arrays)  # type: ignore[arg-type]
    (draft / "state.json").write_text(json.dumps(state, indent=1))
    _retire_checkpoint(place)  # a step at a round's end may be saved twice
    replace_when_whole(draft, place)
    for old in list_checkpoints(folder)[:-keep]:
        _retire_checkpoint(old)
    for retired in folder.glob(".old-*"):
        shutil.rmtree(retired)
    return place


def save_modules(place: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write every module's tensors into a folder, for :func:`load_modules`."""
    place.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}/{key}": value.detach().cpu().contiguous().clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    save_file(tensors, place / "modules.safetensors")


def _retire_checkpoint(place: Path) -> None:
    """Rename a checkpoint before it is deleted: a kill must not leave half of one."""
    if place.exists():
        retired = place.with_name(f".old-{place.name}")
        shutil.rmtree(retired, ignore_errors=True)
        replace_when_whole(place, retired)


def read_checkpoint(place: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    """State, arrays and optimisers' state dicts of a checkpoint."""
    state = json.loads((place / "state.json").read_text())
    with np.load(place / "arrays.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    optimizers = torch.load(place / "optimizers.pt", map_location="cpu", weights_only=True)
    return state, arrays, optimizers


def load_modules(place: Path, modules: Mapping[str, nn.Module]) -> None:
    """Load every module's tensors, strictly.

    Raises:
        FewLabelsError: the checkpoint is of another recipe or version.
    """
    tensors = load_file(place / "modules.safetensors")
    for name, module in modules.items():
        prefix = f"{name}/"
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        try:
            module.load_state_dict(own, strict=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise FewLabelsError(
                f"{place} does not fit this recipe's {name}: {reason}; "
                "resume with the run folder's own recipe.yaml"
            ) from error
