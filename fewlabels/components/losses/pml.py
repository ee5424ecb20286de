"""Losses of pytorch-metric-learning as components, named ``pml:NAME``.

Recipe: `losses: [{name: pml:contrastive_loss, use_memory: true}]`
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, Literal

import torch
from pytorch_metric_learning import losses as library
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_pairs_indices
from torch import Tensor, nn

from fewlabels.contracts import Memory
from fewlabels.errors import ComponentError, suggest_nearest

UNFIT = {
    "CrossBatchMemory": "it is a memory; set use_memory: true on a loss, and the strategy's memory",
    "MultipleLosses": "it is a list; list the losses in the recipe, each with its weight",
    "SelfSupervisedLoss": "it wraps another loss and pairs two views without labels",
    "VICRegLoss": "it pairs two views without labels",
    "ManifoldLoss": "it takes no labels",
    "DynamicSoftMarginLoss": "its histogram is in no checkpoint, so a resumed run would differ",
}
_ABSTRACT = {"BaseMetricLossFunction", "BaseLossWrapper", "GenericPairLoss"}

_PROGRAM = {  # constructor parameters that the program fills -> our name of the value
    "embedding_size": "embedding_size",
    "descriptors_dim": "embedding_size",
    "num_classes": "classes",
}
_OBJECTS = {  # parameters that take objects, which a recipe cannot hold, and their weights
    "distance",
    "reducer",
    "embedding_regularizer",
    "embedding_reg_weight",
    "weight_regularizer",
    "weight_reg_weight",
    "weight_init_func",
    "mat_based_loss",
    "collect_stats",
}
# Defaults that the library does not have; chosen by this project.
_DEFAULTS = {"RankedListLoss": {"margin": 0.4, "Tn": 5.0}}
_TYPES: dict[str, Any] = {  # types of options that the default does not tell
    "triplets_per_anchor": int | Literal["all"],
    "num_bins": int,
    "n_bins": int | None,
    "centers_per_class": int,
    "sub_centers": int,
}


def list_pml_losses() -> list[str]:
    """List the names that may follow ``pml:``, sorted."""
    return sorted(
        _to_snake_case(cls) for name, cls in _list_loss_classes().items() if name not in UNFIT
    )


@functools.cache
def resolve_pml_loss(name: str) -> type[nn.Module]:
    """Make the component ``pml:name``, where ``name`` is the library's class name in snake case.

    Raises:
        ComponentError: no such loss, or one that cannot be computed from embeddings and labels.
    """
    bare = name.removeprefix("pml:")
    found = {_fold_name(n): cls for n, cls in _list_loss_classes().items()}.get(_fold_name(bare))
    known = list_pml_losses()
    if found is None:
        raise ComponentError(
            f"pytorch-metric-learning has no loss called {bare!r}{suggest_nearest(bare, known)} "
            f"(all: {', '.join(known)}; fewlabels list losses)"
        )
    if found.__name__ in UNFIT:
        raise ComponentError(
            f"pml:{bare} cannot be used by itself: {UNFIT[found.__name__]} "
            f"(all: {', '.join(known)}; fewlabels list losses)"
        )
    settable = _collect_options(found)
    if found.__name__ in library.CrossBatchMemory.supported_losses():
        settable["use_memory"] = inspect.Parameter(
            "use_memory", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=bool
        )
    wanted = [
        n for n in ("embedding_size", "classes") if n in _map_given_parameters(found).values()
    ]
    body = {
        "__doc__": f"pytorch-metric-learning's {found.__name__}, with its options and defaults.\n\n"
        f"Recipe: `losses: [{{name: pml:{_to_snake_case(found)}}}]`",
        "__module__": __name__,
        "__init__": _build_constructor(f"pml:{_to_snake_case(found)}", found, wanted, settable),
    }
    return type(f"PML{found.__name__}", (_Bridge,), body)


class _Bridge(nn.Module):
    """Calls a loss of the library with the labelled part of a batch."""

    loss: nn.Module
    use_memory: bool

    def forward(self, embeddings: Tensor, labels: Tensor, memory: Memory | None = None) -> Tensor:
        """The loss () of embeddings (B, D) with labels (B,).

        With ``use_memory`` it is computed between the batch and the memory only; within the batch
        before ``strategy.memory_start``.
        """
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        rows = torch.nonzero(labels >= 0).flatten()
        embeddings, labels = embeddings[rows], labels[rows]
        if len(rows) == 0:
            return embeddings.sum()
        with torch.autocast(embeddings.device.type, enabled=False):
            if memory is None or not self.use_memory:
                value: Tensor = self.loss(embeddings, labels)
                return value
            known = memory.labels >= 0
            if not known.all():
                memory = Memory(*(entries[known] for entries in memory))
            anchor, positive, *negatives = get_all_pairs_indices(labels, memory.labels)
            other = memory.writer[positive] != rows[anchor]
            pairs = (anchor[other], positive[other], *negatives)
            past = memory.embeddings.to(embeddings.dtype)
            value = self.loss(embeddings, labels, pairs, past, memory.labels)
            return value

    @torch.no_grad()
    def recentre(self, centres: Tensor) -> None:
        """Set the proxies of a loss that has one for each class to the new centres (K, D)."""
        for name, weights in self.loss.named_parameters():
            proxies = weights.T if name == "W" else weights
            if name in ("W", "proxies") and proxies.shape == centres.shape:
                proxies.copy_(centres)


def _build_constructor(
    name: str, found: Any, wanted: list[str], settable: dict[str, inspect.Parameter]
) -> Callable[..., None]:
    """Build an ``__init__`` whose signature has the program's parameters and a recipe's options.

    Args:
        name: the component's name, for messages.
        found: the library's class.
        wanted: parameters that the program fills.
        settable: options that a recipe may set.
    """
    first = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    kinds = {"embedding_size": int, "classes": int | None}
    first += [
        inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kinds[n])
        for n in wanted
    ]
    signature = inspect.Signature([*first, *settable.values()], return_annotation=None)

    def __init__(self: _Bridge, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        values = {n: v for n, v in bound.arguments.items() if n != "self"}
        nn.Module.__init__(self)
        self.use_memory = values.pop("use_memory", False)
        program = {
            theirs: values.pop(ours) for theirs, ours in _map_given_parameters(found).items()
        }
        if None in program.values():
            raise ComponentError(
                f"{name} has weights for each class, and the number of classes is not known; "
                "let a discovery say it (clusters: ...) or give labels"
            )
        try:
            self.loss = found(**program, **values)
        except (TypeError, ValueError, AssertionError) as error:
            raise ComponentError(f"{name} refuses these options: {error}") from error

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    __init__.__annotations__ = {
        p.name: p.annotation for p in signature.parameters.values() if p.name != "self"
    }
    return __init__


@functools.cache
def _list_loss_classes() -> dict[str, Any]:
    """The library's loss classes by name."""
    return {
        name: value
        for name, value in vars(library).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and name not in _ABSTRACT
    }


def _collect_parameters(found: Any) -> dict[str, inspect.Parameter]:
    """Collect the parameters of a class and, for its ``**kwargs``, of its base classes."""
    parameters: dict[str, inspect.Parameter] = {}
    for cls in found.__mro__:
        if "__init__" in vars(cls) and cls.__module__.startswith("pytorch_metric_learning"):
            for name, parameter in inspect.signature(cls).parameters.items():
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    parameters.setdefault(name, parameter)
    return parameters


def _map_given_parameters(found: Any) -> dict[str, str]:
    """Map the constructor parameters that the program fills to our names of the values."""
    known = _collect_parameters(found)
    return {n: _PROGRAM[n] for n in _PROGRAM if n in known and known[n].default is known[n].empty}


def _collect_options(found: Any) -> dict[str, inspect.Parameter]:
    """Collect what a recipe may set, as keyword-only parameters with a type and a default."""
    options = {}
    for name, parameter in _collect_parameters(found).items():
        default = _DEFAULTS.get(found.__name__, {}).get(name, parameter.default)
        if name in _OBJECTS or name in _PROGRAM or default is parameter.empty:
            continue
        options[name] = inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=_choose_annotation(name, default),
        )
    return options


def _choose_annotation(name: str, default: Any) -> Any:
    """Choose the type of an option by its name or its default."""
    if name in _TYPES:
        return _TYPES[name]
    if default is None:
        return float | None
    # For margin=1 the library accepts any number.
    return int | float if type(default) is int else type(default)


def _fold_name(name: str) -> str:
    """A name in lower case without underscores, to compare class and module names."""
    return name.lower().replace("_", "")


def _to_snake_case(found: Any) -> str:
    """The name of a class in snake case: its module's name where that is the same word."""
    module: str = found.__module__.rpartition(".")[2]
    if _fold_name(module) == _fold_name(found.__name__):
        return module
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", found.__name__).lower()
