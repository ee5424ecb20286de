"""Checks of losses."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewlabels.contracts import Memory
from fewlabels.testing.subject import Checks, Subject

CHECKS = Checks()
CLASSES, WIDTH = 4, 8


@CHECKS.add
def it_asks_for_nothing_that_a_strategy_cannot_give(subject: Subject) -> None:
    """The names of forward's positional parameters are known ones."""
    known = _make_inputs(subject)
    unknown = [name for name in _input_names(_make_loss(subject)) if name not in known]
    assert not unknown, (
        f"forward asks for {', '.join(unknown)}, which no strategy of this package gives (they "
        f"give {', '.join(known)}); where yours does, say so by conformance(..., inputs={{...}})"
    )


@CHECKS.add
def it_is_one_finite_number(subject: Subject) -> None:
    """A scalar in float32, whatever the strategy adds it to."""
    value = _compute_value(_make_loss(subject), _make_inputs(subject))
    assert value.shape == (), f"it has the shape {tuple(value.shape)}; take the mean"
    assert torch.isfinite(value), f"it is {value.item()}"


@CHECKS.add
def the_network_learns_from_it(subject: Subject) -> None:
    """Gradients reach what the network gave, and every parameter of the loss itself."""
    loss, inputs = _make_loss(subject), _make_inputs(subject)
    value = _compute_value(loss, inputs)
    assert value.requires_grad, "the network learns nothing: the loss is cut off from its inputs"
    value.backward()
    grads = [value.grad for value in _learnt_tensors(inputs[name] for name in _input_names(loss))]
    assert all(g is None or torch.isfinite(g).all() for g in grads), "a gradient is not finite"
    assert any(g is not None and g.abs().max() > 0 for g in grads), "the network learns nothing"
    for name, parameter in loss.named_parameters():
        assert parameter.grad is not None, f"its parameter {name} gets no gradient"


@CHECKS.add
def half_precision_loses_nothing_but_digits(subject: Subject) -> None:
    """Under mixed precision embeddings may be bfloat16 or float16; the loss stays finite."""
    loss = _make_loss(subject)
    whole = _compute_value(loss, _make_inputs(subject))
    for dtype in (torch.bfloat16, torch.float16):
        given = _make_inputs(subject)
        inputs = _change_inputs(given, lambda v: v.to(dtype) if v.requires_grad else v)  # noqa: B023
        with torch.autocast("cpu", torch.bfloat16):
            value = _compute_value(loss, inputs)
        value.backward()
        assert abs(value.item() - whole.item()) < 0.1 + 0.1 * abs(whole.item()), (
            f"{value.item()} from {dtype} embeddings, {whole.item()} from float32 ones"
        )


@CHECKS.add
def a_batch_without_labels_or_pairs_is_no_nan(subject: Subject) -> None:
    """Nobody has a label, all have one, some have none, or one or four images are left."""
    loss, none = _make_loss(subject), torch.full((12,), -1)
    for labels in (none, torch.zeros(12).long(), torch.where(torch.arange(12) < 6, 1, none)):
        _check_finite(loss, {**_make_inputs(subject), "labels": labels})
    for few in (1, CLASSES):
        _check_finite(loss, _take_rows(_make_inputs(subject), torch.arange(few)))


@CHECKS.add
def the_first_steps_without_a_memory_are_no_traceback(subject: Subject) -> None:
    """A memory holds nothing at first, or the recipe has none; no point of a pair may be valid."""
    loss = _make_loss(subject)
    cases = {"memory is None": None, "valid is nowhere true": torch.zeros(12, 6, 6).bool()}
    for said, value in cases.items():
        name = said.split()[0]
        if name not in _input_names(loss):
            continue
        try:
            _check_finite(loss, {**_make_inputs(subject), name: value})
        except (AssertionError, AttributeError, TypeError) as error:
            raise AssertionError(f"where {said}: {error}") from error


@CHECKS.add
def equal_embeddings_have_a_finite_gradient(subject: Subject) -> None:
    """A network that has collapsed, on a centre too."""
    loss = _make_loss(subject)
    for start in ("embeddings", "centres"):
        inputs = _make_inputs(subject)
        one = inputs[start][:1].detach()
        for name in ("embeddings", "embeddings_pair"):
            inputs[name] = one.expand(inputs[name].shape).clone().requires_grad_()
        _check_finite(loss, inputs)


@CHECKS.add
def the_order_of_a_batch_means_nothing(subject: Subject) -> None:
    """The same images in another order cost the same."""
    loss = _make_loss(subject)
    first = _compute_value(loss, _make_inputs(subject))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    second = _compute_value(loss, _take_rows(_make_inputs(subject), order))
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-5)


@CHECKS.add
def a_stopped_run_goes_on_with_the_same_loss(subject: Subject) -> None:
    """All that it keeps is in parameters and buffers; a copy and a loaded state are equal."""
    loss = _make_loss(subject)
    _compute_value(loss, _make_inputs(subject)).backward()  # what it keeps of a batch, it keeps now
    twin, other = copy.deepcopy(loss), _make_loss(subject, seed=1)
    other.load_state_dict(loss.state_dict(), strict=True)
    wanted = _compute_value(loss, _make_inputs(subject, seed=2))
    for same in (twin, other):
        torch.testing.assert_close(
            _compute_value(same, _make_inputs(subject, seed=2)), wanted, rtol=0, atol=0
        )


def _make_loss(subject: Subject, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    loss: nn.Module = subject.make_component(embedding_size=WIDTH, classes=CLASSES)
    return loss


def _input_names(loss: nn.Module) -> list[str]:
    return list(inspect.signature(loss.forward).parameters)


def _compute_value(loss: nn.Module, inputs: dict[str, Any]) -> Tensor:
    torch.manual_seed(0)  # for a loss that draws
    value: Tensor = loss(*(inputs[name] for name in _input_names(loss)))
    return value


def _check_finite(loss: nn.Module, inputs: dict[str, Any]) -> None:
    value = _compute_value(loss, inputs)
    assert torch.isfinite(value), f"the loss is {value.item()}"
    if value.requires_grad:
        value.backward()
    for name, given in inputs.items():
        grads = [value.grad for value in _learnt_tensors([given])]
        finite = all(grad is None or torch.isfinite(grad).all() for grad in grads)
        assert finite, f"the gradient of {name} is not finite"


def _make_inputs(subject: Subject, seed: int = 0) -> dict[str, Any]:
    """All inputs that strategies give, for 12 images of 4 classes; network outputs require grad."""
    rng = torch.Generator().manual_seed(seed)

    def unit(count: int) -> Tensor:
        return nn.functional.normalize(torch.randn(count, WIDTH, generator=rng))

    labels = torch.arange(12) % CLASSES
    past = Memory(unit(20), torch.arange(20) % CLASSES, torch.arange(20), torch.full((20,), -1))
    given = {
        "embeddings": unit(12).requires_grad_(),
        "labels": labels,
        "indices": torch.arange(12),
        "memory": past,
        "centres": unit(CLASSES),
        "embeddings_pair": unit(12).requires_grad_(),
        "attention": torch.rand(12, 1, 6, 6, generator=rng).requires_grad_(),
        "attention_pair": torch.rand(12, 1, 6, 6, generator=rng).requires_grad_(),
        "matrix": torch.eye(3).expand(12, 3, 3),
        "valid": torch.ones(12, 6, 6).bool(),
        "mask": torch.ones(12, 1, 6, 6),
        "second_labels": torch.full((12,), -1),
    }
    own = _change_inputs(subject.inputs, lambda value: value.detach().clone())
    for value in _iterate_tensors(own.values()):
        value.requires_grad_(value.is_floating_point())
    return {**given, **own}


def _take_rows(inputs: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """The inputs at some rows of the batch; memory and centres, not per image, are unchanged."""
    whole = {name: inputs[name] for name in ("memory", "centres")}
    of_images = {name: value for name, value in inputs.items() if name not in whole}
    return {**_change_inputs(of_images, lambda value: value[rows]), **whole}


def _change_inputs(inputs: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Apply ``change`` to each tensor of the inputs, and keep its ``requires_grad``."""

    def one(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _change_inputs(value, change)
        if not isinstance(value, Tensor):
            return value
        return change(value).detach().requires_grad_(value.requires_grad)

    return {name: one(value) for name, value in inputs.items()}


def _iterate_tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among the values, also those inside dicts."""
    for value in values:
        if isinstance(value, Mapping):
            yield from _iterate_tensors(value.values())
        elif isinstance(value, Tensor):
            yield value


def _learnt_tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors that need gradients, which stand for outputs of a network."""
    return [value for value in _iterate_tensors(values) if value.requires_grad]
