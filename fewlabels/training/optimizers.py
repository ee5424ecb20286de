"""timm's optimisers and schedules over named parameters, with learning-rate factors by path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from fewlabels.errors import FewLabelsError, suggest_nearest


def make_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]],
    name: str,
    lr: float,
    weight_decay: float = 0.0,
    decay: Literal["all", "kernels"] = "kernels",
    factors: Mapping[str, float] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Optimizer:
    """Make an optimiser of timm.

    Args:
        parameters: with their paths, as in ``student.head.weight``.
        decay: ``kernels`` takes no weight decay on parameters of one dimension (biases, norms).
        factors: learning-rate factor by the start of a path; the longest start that fits counts.
            0 freezes: no gradient is computed. Starts that fit no path are for another phase.
        options: passed to the optimiser.

    Raises:
        FewLabelsError: an unknown optimiser or option, or factors that freeze everything.
    """
    factors = factors or {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for path, parameter in parameters:
        starts = [s for s in factors if _path_starts_with(s, path)]
        factor = factors[max(starts, key=len)] if starts else 1.0
        if factor == 0:
            parameter.requires_grad_(False)
            continue
        decays = weight_decay if decay == "all" or parameter.ndim > 1 else 0.0
        groups.setdefault((factor, decays), []).append(parameter)
    if not groups:
        raise FewLabelsError(
            "optimizer.factors: 0 freezes every parameter of a phase; give one of them a factor"
        )
    described = [
        {"params": group, "lr": lr * factor, "weight_decay": decays}
        for (factor, decays), group in groups.items()
    ]
    try:
        return create_optimizer_v2(
            described, opt=name, lr=lr, weight_decay=weight_decay, **(options or {})
        )
    except (ValueError, TypeError, AssertionError) as error:
        raise FewLabelsError(f"optimizer: timm's {name!r} refuses this: {error}") from error


def _path_starts_with(start: str, path: str) -> bool:
    return path == start or path.startswith(start + ".")


def check_factors(factors: Mapping[str, float], paths: Sequence[str]) -> None:
    """Refuse learning-rate factors that fit no parameter of any phase.

    Raises:
        FewLabelsError: it names them, how the paths start, and the factors that are left.
    """
    strange = [s for s in factors if not any(_path_starts_with(s, path) for path in paths)]
    if strange:
        known = sorted({".".join(p.split(".")[:2]) for p in paths})
        others = [start for start in known if not _path_starts_with(start, strange[0])]
        left = ", ".join(f"{s}: {value:g}" for s, value in factors.items() if s not in strange)
        raise FewLabelsError(
            f"optimizer.factors: no trained parameter's path starts with "
            f"{' or '.join(map(repr, strange))}{suggest_nearest(strange[0], others)} (they start "
            f"with {', '.join(known[:20])}); if such a part is not meant to be there, set "
            f"'optimizer.factors={{{left}}}'"
        )


TICKS = 10_000
"""Ticks of a schedule in an epoch. It follows the share of the epoch that is done, so it does not
depend on the number of steps in an epoch, which discoveries change."""


def make_scheduler(
    optimizer: Optimizer,
    name: str,
    epochs: int,
    warmup_epochs: int = 0,
    min_lr: float = 0.0,
    decay_epochs: float | list[int] = 30,
    decay_rate: float = 0.1,
) -> Scheduler | None:
    """Make a schedule of timm that counts :data:`TICKS`; None if the rate is constant.

    Args:
        epochs: epochs between two restarts of the weights: without restarts, of the whole run.
        decay_epochs: epochs between decays of ``step``; for ``multistep`` a list of its decays.
    """
    if name == "constant" and not warmup_epochs:
        return None
    milestones = decay_epochs if isinstance(decay_epochs, list) else []
    if name == "constant":  # a decay far behind the end: what is left is the warm-up
        name, milestones = "multistep", [2 * epochs + warmup_epochs]
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=name,
        num_epochs=epochs,
        warmup_epochs=warmup_epochs,
        warmup_lr=0.0,
        warmup_prefix=False,
        min_lr=min_lr,
        decay_epochs=1 if isinstance(decay_epochs, list) else decay_epochs,
        decay_milestones=milestones,
        decay_rate=decay_rate,
        cooldown_epochs=0,
        step_on_epochs=False,
        updates_per_epoch=TICKS,
    )
    scheduler.step_update(0)
    return scheduler
