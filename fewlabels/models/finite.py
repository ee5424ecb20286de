"""Whether a model's numbers are finite; those of a training that diverged are not."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from fewlabels.data.decode import Images
from fewlabels.data.readable import name_position
from fewlabels.errors import ModelError, first_few

_STATISTICS = ("running_mean", "running_var")
"""Of batch norms; of an infinite variance all features become zero, which looks like an output."""


def list_not_finite(module: nn.Module) -> list[str]:
    """Names of weights and statistics with a NaN or an infinity, and of buffers with a NaN.

    Other buffers may hold infinity on purpose, as a mask does.
    """
    weights = {name for name, _ in module.named_parameters()}

    def has_bad(name: str, value: Tensor) -> bool:
        strict = name in weights or name.rpartition(".")[2] in _STATISTICS
        return bool((~value.isfinite() if strict else value.isnan()).any())

    state = module.state_dict().items()
    return [n for n, value in state if value.is_floating_point() and has_bad(n, value)]


def refuse_not_finite(module: nn.Module, what: str, otherwise: str) -> None:
    """Refuse a model with weights that are not finite.

    Args:
        what: the model's name.
        otherwise: what becomes of it, or what to do.

    Raises:
        ModelError: naming the first such tensor.
    """
    if bad := list_not_finite(module):
        raise ModelError(
            f"{what}: weights that are not finite ({first_few(bad, 1)}), because the training "
            f"diverged; {otherwise}"
        )


def refuse_endless_rows(rows: np.ndarray, images: Images, first: int) -> None:
    """Refuse what a model makes of images, (B, width), where it is not finite.

    Args:
        images: all that are mapped.
        first: the position among them of the first row.

    Raises:
        ModelError: naming the first such image.
    """
    finite = np.isfinite(rows).all(1)
    if not finite.all():
        raise ModelError(
            f"{name_position(images, first + int(finite.argmin()))}: the model makes numbers of it "
            "that are not finite; use a model whose training did not diverge"
        )
