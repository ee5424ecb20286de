"""The tensors of modules in one file: in each checkpoint, of the beginning, and of the best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from fewlabels.errors import FewLabelsError, first_few
from fewlabels.files import new_file
from fewlabels.models.finite import list_not_finite
from fewlabels.models.tensor_file import read_tensors, write_tensors
from fewlabels.training.file_damage import DamagedFileError, read_undamaged

FILE = "modules.safetensors"


def save_modules(place: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write every module's tensors into a folder whole or not at all, for :func:`load_modules`."""
    with new_file(place / FILE) as draft:
        write_modules(draft, modules)


def write_modules(file: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write every module's tensors into a file."""
    tensors = {
        f"{name}/{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    write_tensors(file, tensors)


def read_modules(place: Path) -> dict[str, Tensor]:
    """What :func:`save_modules` wrote.

    Raises:
        DamagedFileError: it cannot be read.
    """
    return read_undamaged(place / FILE, read_tensors)


def load_modules(place: Path, modules: Mapping[str, nn.Module]) -> None:
    """Load every module's tensors, strictly.

    Raises:
        FewLabelsError: the file is damaged, or of another recipe or version.
    """
    try:
        tensors = read_modules(place)
    except DamagedFileError as error:
        raise FewLabelsError(f"{error}; put it back, or start a new run") from error
    fill_modules(tensors, modules, place)


def fill_modules(
    tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module], place: Path
) -> None:
    """Give every module the tensors that stand under its name, and leave none over.

    Raises:
        FewLabelsError: what was read in ``place`` is of another recipe or version.
    """
    fix = "resume with the run folder's own recipe.yaml"
    own: dict[str, dict[str, Tensor]] = {name: {} for name in modules}
    for key, value in tensors.items():
        name = next((n for n in modules if key.startswith(f"{n}/")), key.partition("/")[0])
        own.setdefault(name, {})[key.removeprefix(f"{name}/")] = value
    lost = [name for name, module in modules.items() if module.state_dict() and not own[name]]
    left = [name for name in own if name not in modules]
    if lost or left:
        lacks = f"lacks {first_few(lost, 5)}" if lost else ""
        holds = f"holds {first_few(left, 5)}, which this recipe does not make" if left else ""
        raise FewLabelsError(f"{place} {' and '.join(filter(None, (lacks, holds)))}; {fix}")
    for name, module in modules.items():
        try:
            module.load_state_dict(own[name], strict=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise FewLabelsError(
                f"{place} does not fit this recipe's {name}: {reason}; {fix}"
            ) from error


def refuse_diverged(modules: Mapping[str, nn.Module], step: int) -> None:
    """Refuse to keep weights that are not finite, which nothing could go on from.

    Raises:
        FewLabelsError: naming the first such tensor.
    """
    for name, module in modules.items():
        if bad := list_not_finite(module):
            raise FewLabelsError(
                f"{name}.{bad[0]} is not finite at step {step}, so it is not kept; start a new "
                "run with a lower optimizer.lr, with train.clip, or with precision bf16 "
                "instead of fp16"
            )
