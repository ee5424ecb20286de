"""timm's optimisers and schedules over named parameters, with learning-rate factors by path."""

from __future__ import annotations

import math
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
    no_decay: Sequence[str] = (),
    frozen_epochs: Mapping[str, int] | None = None,
) -> Optimizer:
    """Make an optimiser of timm.

    Args:
        parameters: with their paths, as in ``student.head.weight``.
        decay: ``kernels`` takes no weight decay on parameters of one dimension (biases, norms).
        factors: learning-rate factor by the start of a path; the longest start that fits counts.
            0 freezes: no gradient is computed. Starts that fit no path are for another phase.
        options: passed to the optimiser.
        no_decay: starts of paths of parameters without weight decay.
        frozen_epochs: for how many epochs parameters stay as they are, by the start of a path; the
            longest start that fits counts. Epochs count from the last restart of the weights. Their
            groups have it as ``frozen_epochs``.

    Raises:
        FewLabelsError: an unknown optimiser or option, or factors or frozen epochs that freeze
            everything.
    """
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    for path, parameter in parameters:
        factor = _find_value(factors or {}, path, 1.0)
        if factor == 0:
            parameter.requires_grad_(False)
            continue
        spared = any(_path_starts_with(start, path) for start in no_decay)
        bears = not spared and (decay == "all" or parameter.ndim > 1)
        frozen = _find_value(frozen_epochs or {}, path, 0)
        groups.setdefault((factor, weight_decay if bears else 0.0, frozen), []).append(parameter)
    if not groups:
        raise FewLabelsError(
            "optimizer.factors: 0 freezes every parameter of a phase; give one of them a factor"
        )
    if all(frozen for _, _, frozen in groups):
        raise FewLabelsError(
            "optimizer.frozen_epochs freezes every parameter of a phase at first; leave one out"
        )
    described = [
        {"params": group, "lr": lr * factor, "weight_decay": decays, "frozen_epochs": frozen}
        for (factor, decays, frozen), group in groups.items()
    ]
    try:
        return create_optimizer_v2(
            described, opt=name, lr=lr, weight_decay=weight_decay, **(options or {})
        )
    except (ValueError, TypeError, AssertionError) as error:
        raise FewLabelsError(f"optimizer: timm's {name!r} refuses this: {error}") from error


def _path_starts_with(start: str, path: str) -> bool:
    return path == start or path.startswith(start + ".")


def _find_value(values: Mapping[str, float], path: str, default: float) -> float:
    """The value of the longest start that fits a path; ``default`` where none does."""
    starts = [start for start in values if _path_starts_with(start, path)]
    return values[max(starts, key=len)] if starts else default


def drop_frozen_gradients(optimizer: Optimizer, epochs: float) -> None:
    """Drop the gradients of parameters that are still frozen after so many epochs.

    A parameter without a gradient is passed over by the optimiser, moments and decay included.
    """
    for group in optimizer.param_groups:
        frozen = group.get("frozen_epochs", 0)  # a checkpoint of before has no such key
        if epochs < frozen - 1e-6:  # epochs are sums of shares, and rounded
            for parameter in group["params"]:
                parameter.grad = None


def check_frozen_epochs(frozen_epochs: Mapping[str, int], epochs: int) -> None:
    """Refuse parameters that stay frozen until training ends.

    Args:
        epochs: from the last restart of the weights to the end of the run.

    Raises:
        FewLabelsError: it names the first of them.
    """
    for start, frozen in frozen_epochs.items():
        if frozen >= epochs:
            raise FewLabelsError(
                f"optimizer.frozen_epochs: {start!r} is frozen for {frozen} epochs, and weights "
                f"train for {epochs}; lower it, or freeze for good by optimizer.factors: 0"
            )


def check_starts(
    starts: Mapping[str, Mapping[str, float] | Sequence[str]], paths: Sequence[str]
) -> None:
    """Refuse starts of paths, as of learning-rate factors, that fit no parameter of any phase.

    Args:
        starts: by the key of ``optimizer`` in the recipe under which they stand.

    Raises:
        FewLabelsError: it names them, how the paths start, and what to set instead.
    """
    strange: dict[str, list[str]] = {}
    for key, named in starts.items():
        if own := [s for s in named if not any(_path_starts_with(s, path) for path in paths)]:
            strange[key] = own
    if not strange:
        return
    lost = list(dict.fromkeys(start for own in strange.values() for start in own))
    known = sorted({".".join(p.split(".")[:2]) for p in paths})
    others = [start for start in known if not _path_starts_with(start, lost[0])]
    fixes = [f"'optimizer.{key}={_write_rest(starts[key], own)}'" for key, own in strange.items()]
    raise FewLabelsError(
        f"{' and '.join(f'optimizer.{key}' for key in strange)}: no trained parameter's path "
        f"starts with {' or '.join(map(repr, lost))}{suggest_nearest(lost[0], others)} (they start "
        f"with {', '.join(known[:20])}); if such a part is not meant to be there, set "
        f"{' '.join(fixes)}"
    )


def _write_rest(named: Mapping[str, float] | Sequence[str], strange: Sequence[str]) -> str:
    """What is left of a key's value, as YAML."""
    if isinstance(named, Mapping):
        return ", ".join(f"{s}: {v:g}" for s, v in named.items() if s not in strange).join("{}")
    return ", ".join(s for s in named if s not in strange).join("[]")


TICKS = 10_000
"""Ticks of a schedule in an epoch. It follows the share of the epoch that is done, so it does not
depend on the number of steps in an epoch, which discoveries change."""


class ConstantThenDown(Scheduler):
    """A rate that rises linearly, stays, and falls at the end by Mean Teacher's exp(-12.5 t^2).

    t goes from 0 to 1 in the last ``final`` of ``total`` ticks. The rate of each group falls to
    ``lowest`` and, at t = 1, 4e-6 of what it was above that.
    """

    def __init__(
        self, optimizer: Optimizer, total: int, warmup: int, final: int, lowest: float
    ) -> None:
        super().__init__(optimizer, "lr", t_in_epochs=False)
        self.total, self.warmup, self.final, self.lowest = total, warmup, final, lowest
        self.step_update(0)

    def _get_lr(self, t: int) -> list[float]:
        """The rates at a tick."""
        risen = min(1.0, t / self.warmup) if self.warmup else 1.0
        fallen = math.exp(-12.5 * max(0.0, 1 - (self.total - t) / self.final) ** 2)
        return [risen * (self.lowest + fallen * (base - self.lowest)) for base in self.base_values]


def make_scheduler(
    optimizer: Optimizer,
    name: str,
    epochs: int,
    warmup_epochs: int = 0,
    min_lr: float = 0.0,
    decay_epochs: float | list[int] = 30,
    decay_rate: float = 0.1,
    final_epochs: float = 0.0,
) -> Scheduler | None:
    """Make a schedule of timm that counts :data:`TICKS`; None if the rate is constant.

    Args:
        epochs: epochs between two restarts of the weights: without restarts, of the whole run.
        decay_epochs: epochs between decays of ``step``; for ``multistep`` a list of its decays.
        final_epochs: epochs at the end in which a ``constant`` rate falls to ``min_lr``.
    """
    if name == "constant" and final_epochs:
        warmup, final = round(warmup_epochs * TICKS), round(final_epochs * TICKS)
        return ConstantThenDown(optimizer, epochs * TICKS, warmup, final, min_lr)
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
