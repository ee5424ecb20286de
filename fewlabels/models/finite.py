"""Whether a model's numbers are finite; those of a training that diverged are not."""

from __future__ import annotations

from torch import nn

from fewlabels.errors import ModelError, first_few


def list_not_finite(module: nn.Module) -> list[str]:
    """Names of the weights with a NaN or an infinity, and of the buffers with a NaN.

    A buffer may hold infinity on purpose, as a mask does.
    """
    weights = {name for name, _ in module.named_parameters()}
    return [
        name
        for name, value in module.state_dict().items()
        if value.is_floating_point()
        and bool((~value.isfinite() if name in weights else value.isnan()).any())
    ]


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
