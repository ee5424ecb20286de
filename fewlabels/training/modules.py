"""The modules of a run inside a training step, in one process or in many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class TrainingModules:
    """Modules by name; ``modules["student"]`` is the one wrapped for multi-process training."""

    def __init__(self, modules: Mapping[str, nn.Module], accelerator: Accelerator) -> None:
        self.modules, self.accelerator = dict(modules), accelerator
        self.wrapped: dict[str, nn.Module] = {}

    def wrap_for_training(self, name: str) -> nn.Module:
        """Wrap a module for training, at the first call; later calls give the same wrapper."""
        if name not in self.wrapped:
            self.wrapped[name] = self.accelerator.prepare_model(self.modules[name])
        return self.wrapped[name]

    def __getitem__(self, name: str) -> nn.Module:
        return self.wrapped.get(name, self.modules[name])

    def plain(self, name: str) -> nn.Module:
        """The unwrapped module, for passes without gradient; or a part, as ``master.decision``."""
        if name in self.modules:  # a name may have a dot of its own: loss.NAME
            return self.modules[name]
        module, _, path = name.partition(".")
        return self.modules[module].get_submodule(path)

    @contextmanager
    def freeze_statistics(self, name: str) -> Iterator[None]:
        """Context manager: within it, batch norms of a module do not update their statistics."""
        norms = [m for m in self.modules[name].modules() if isinstance(m, _BatchNorm)]
        saved = [norm.momentum for norm in norms]
        counts = [norm.num_batches_tracked for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, momentum, count in zip(norms, saved, counts, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, count

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in rank order; gradients flow to this process's own rows.

        A loss over the gathered rows is the same number in every process, and processes average
        their gradients. So the backward pass multiplies the gradient by the number of processes:
        the sum over processes is then the gradient of the one global loss. Losses with parameters,
        and terms computed on local rows alone, need no correction.
        """
        if self.accelerator.num_processes == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self.accelerator)
        return gathered

    @torch.no_grad()
    def average_buffers(self) -> None:
        """Average running statistics over all processes, as each has seen its own rows only.

        This includes those of moving averages, which keep their own or have copied them.
        """
        if self.accelerator.num_processes == 1:
            return
        for module in self.modules.values():
            for norm in module.modules():
                if isinstance(norm, _BatchNorm):
                    for buffer in (norm.running_mean, norm.running_var):
                        if buffer is not None:
                            buffer.copy_(self.accelerator.reduce(buffer, "mean"))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, accelerator: Accelerator) -> Tensor:
        ctx.processes, ctx.rank = accelerator.num_processes, accelerator.process_index
        gathered: Tensor = accelerator.gather(rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].chunk(ctx.processes)[ctx.rank] * ctx.processes, None
