"""What every loss promises."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from fewlabels.contracts import LOSS_INPUTS, Memory
from fewlabels.testing.subject import Checks, Subject

CHECKS = Checks()
CLASSES, WIDTH = 4, 8
LEARN = ("embeddings", "embeddings_pair", "attention", "attention_pair", "logits")
"""Inputs that come from a network, of which a loss has to teach one at least."""


@CHECKS.add
def it_asks_for_nothing_that_a_strategy_cannot_give(subject: Subject) -> None:
    """The names of forward's positional parameters are known ones."""
    asked = _names(_make(subject))
    unknown = [name for name in asked if name not in LOSS_INPUTS]
    assert not unknown, f"forward asks for {', '.join(unknown)}; known: {', '.join(LOSS_INPUTS)}"


@CHECKS.add
def it_is_one_finite_number(subject: Subject) -> None:
    """A scalar in float32, whatever the strategy adds it to."""
    value = _value(_make(subject), _inputs())
    assert value.shape == (), f"it has the shape {tuple(value.shape)}; take the mean"
    assert torch.isfinite(value), f"it is {value.item()}"


@CHECKS.add
def the_network_learns_from_it(subject: Subject) -> None:
    """Gradients reach what the network gave, and every parameter of the loss itself."""
    loss, inputs = _make(subject), _inputs()
    value = _value(loss, inputs)
    assert value.requires_grad, "the network learns nothing: the loss is cut off from its inputs"
    value.backward()
    grads = [inputs[name].grad for name in LEARN if name in _names(loss)]
    assert all(g is None or torch.isfinite(g).all() for g in grads), "a gradient is not finite"
    assert any(g is not None and g.abs().max() > 0 for g in grads), "the network learns nothing"
    for name, parameter in loss.named_parameters():
        assert parameter.grad is not None, f"its parameter {name} gets no gradient"


@CHECKS.add
def half_precision_loses_nothing_but_digits(subject: Subject) -> None:
    """Under mixed precision embeddings may be bfloat16 or float16; the loss stays finite."""
    loss = _make(subject)
    whole = _value(loss, _inputs())
    for dtype in (torch.bfloat16, torch.float16):
        inputs = {
            name: value.detach().to(dtype).requires_grad_() if name in LEARN else value
            for name, value in _inputs().items()
        }
        with torch.autocast("cpu", torch.bfloat16):
            value = _value(loss, inputs)
        value.backward()
        assert abs(value.item() - whole.item()) < 0.1 + 0.1 * abs(whole.item()), (
            f"{value.item()} from {dtype} embeddings, {whole.item()} from float32 ones"
        )


@CHECKS.add
def a_batch_without_labels_or_pairs_is_no_nan(subject: Subject) -> None:
    """Nobody has a label, all have one, some have none, or one or four images are left."""
    loss, none = _make(subject), torch.full((12,), -1)
    for labels in (none, torch.zeros(12).long(), torch.where(torch.arange(12) < 6, 1, none)):
        _finite(loss, {**_inputs(), "labels": labels})
    for few in (1, CLASSES):
        _finite(loss, _rows(_inputs(), torch.arange(few)))


@CHECKS.add
def the_first_steps_without_a_memory_are_no_traceback(subject: Subject) -> None:
    """A memory holds nothing at first, or the recipe has none; no point of a pair may be valid."""
    loss, nothing = _make(subject), {"memory": None, "valid": torch.zeros(12, 6, 6).bool()}
    for name, value in nothing.items():
        if name in _names(loss):
            _finite(loss, {**_inputs(), name: value})


@CHECKS.add
def equal_embeddings_have_a_finite_gradient(subject: Subject) -> None:
    """A network that has collapsed, on a centre too."""
    loss = _make(subject)
    for start in ("embeddings", "centres"):
        inputs = _inputs()
        one = inputs[start][:1].detach()
        for name in ("embeddings", "embeddings_pair"):
            inputs[name] = one.expand(inputs[name].shape).clone().requires_grad_()
        _finite(loss, inputs)


@CHECKS.add
def the_order_of_a_batch_means_nothing(subject: Subject) -> None:
    """The same images in another order cost the same."""
    loss = _make(subject)
    first = _value(loss, _inputs())
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    second = _value(loss, _rows(_inputs(), order))
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-5)


@CHECKS.add
def a_stopped_run_goes_on_with_the_same_loss(subject: Subject) -> None:
    """All that it keeps is in parameters and buffers; a copy and a loaded state are equal."""
    loss = _make(subject)
    _value(loss, _inputs()).backward()  # what it keeps of a batch, it keeps now
    twin, other = copy.deepcopy(loss), _make(subject, seed=1)
    other.load_state_dict(loss.state_dict(), strict=True)
    wanted = _value(loss, _inputs(seed=2))
    for same in (twin, other):
        torch.testing.assert_close(_value(same, _inputs(seed=2)), wanted, rtol=0, atol=0)


def _make(subject: Subject, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    loss: nn.Module = subject.make(embedding_size=WIDTH, classes=CLASSES)
    return loss


def _names(loss: nn.Module) -> list[str]:
    return list(inspect.signature(loss.forward).parameters)


def _value(loss: nn.Module, inputs: dict[str, Any]) -> Tensor:
    torch.manual_seed(0)  # for a loss that draws
    value: Tensor = loss(*(inputs[name] for name in _names(loss)))
    return value


def _finite(loss: nn.Module, inputs: dict[str, Any]) -> None:
    value = _value(loss, inputs)
    assert torch.isfinite(value), f"the loss is {value.item()}"
    if value.requires_grad:
        value.backward()
    for name in LEARN:
        grad = inputs[name].grad
        assert grad is None or torch.isfinite(grad).all(), f"the gradient of {name} is not finite"


def _inputs(seed: int = 0) -> dict[str, Any]:
    """All that a loss may ask for, of 12 images of 4 classes."""
    rng = torch.Generator().manual_seed(seed)

    def unit(count: int) -> Tensor:
        return nn.functional.normalize(torch.randn(count, WIDTH, generator=rng))

    labels = torch.arange(12) % CLASSES
    past = Memory(unit(20), torch.arange(20) % CLASSES, torch.arange(20), torch.full((20,), -1))
    return {
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
        "logits": torch.randn(12, CLASSES, generator=rng).requires_grad_(),
        "side": {},
    }


def _rows(inputs: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """Some images of a batch; memory, centres and side are not of images."""
    return {
        name: value
        if name in ("memory", "centres", "side")
        else value[rows].detach().requires_grad_(name in LEARN)
        for name, value in inputs.items()
    }
