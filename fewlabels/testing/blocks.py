"""Checks of blocks, which take a feature map and return one of the same shape."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fewlabels.contracts import collect_side, collect_terms
from fewlabels.testing.subject import Checks, Subject

CHECKS = Checks()
LAYOUT = {"channels": 16, "height": 6, "width": 6}


@CHECKS.add
def the_backbone_can_go_on_with_what_it_gives(subject: Subject) -> None:
    """A finite map of the shape and type that went in; in evaluation of one image too."""
    block = _make_block(subject)
    for training, count in ((True, 4), (False, 1)):
        out = block.train(training)(_make_maps(count=count))
        assert out.shape == (count, 16, 6, 6), f"the shape {tuple(out.shape)} came out"
        assert out.dtype == torch.float32, f"{out.dtype} came out"
        assert torch.isfinite(out).all(), "a number that came out is not finite"


@CHECKS.add
def every_weight_learns_and_so_does_what_is_before_it(subject: Subject) -> None:
    """A gradient for each parameter and for the map; in many processes an idle one ends the run."""
    block, maps = _make_block(subject).train(), _make_maps().requires_grad_()
    with collect_terms() as terms:
        out = block(maps)
    (out * _make_maps(seed=1)).sum().add(
        sum(t.sum() for told in terms.values() for t in told)
    ).backward()
    grads = {name: p.grad for name, p in block.named_parameters()} | {"the map": maps.grad}
    for name, grad in grads.items():
        assert grad is not None, f"{name} gets no gradient"
        assert torch.isfinite(grad).all(), f"the gradient of {name} is not finite"


@CHECKS.add
def its_loss_terms_are_declared(subject: Subject) -> None:
    """A recipe can weigh a term only where ``terms`` has its name; a weight is of a term."""
    block = _make_block(subject).train()
    with collect_terms() as told:
        block(_make_maps())
    declared = tuple(getattr(block, "terms", ()))
    assert set(told) == set(declared), f"terms are {declared}, and it wrote {tuple(told)}"
    assert set(getattr(block, "weights", {})) <= set(declared), "a weight is of no term"
    for name, values in told.items():
        assert all(v.shape == () and torch.isfinite(v) for v in values), f"{name} is no number"


@CHECKS.add
def two_passes_do_not_see_each_other(subject: Subject) -> None:
    """The teacher's pass, or the second view's, must not change what the first one handed over."""
    block = _make_block(subject).eval()
    _assert_that_it_keeps_no_map(block)
    with collect_side() as alone:
        first = block(_make_maps())
    kept = {name: value.clone() for name, value in alone.items()}
    with collect_side():
        block(_make_maps(seed=1))
    with collect_side() as again:
        second = block(_make_maps())
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert set(alone) == set(again), "it hands over other things the second time"
    for name, value in kept.items():
        torch.testing.assert_close(alone[name], value, rtol=0, atol=0)


@CHECKS.add
def an_image_is_seen_the_same_in_any_batch(subject: Subject) -> None:
    """In evaluation the map of an image does not depend on the others."""
    block = _make_block(subject).eval()
    together = block(_make_maps())
    torch.testing.assert_close(block(_make_maps()[:1]), together[:1], rtol=1e-4, atol=1e-5)


@CHECKS.add
def half_precision_is_no_nan(subject: Subject) -> None:
    """Under mixed precision, for large maps and for maps of zeros."""
    block = _make_block(subject).train()
    for scale in (0.0, 1.0, 300.0):
        maps = (scale * _make_maps()).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = block(maps)
        out.float().sum().backward()
        assert torch.isfinite(out).all(), f"not finite, of a map of size {scale}"
        grads = [maps.grad, *(p.grad for p in block.parameters())]
        finite = all(torch.isfinite(g).all() for g in grads if g is not None)
        assert finite, f"a gradient is not finite, of a map of size {scale}"


@CHECKS.add
def a_saved_model_computes_the_same(subject: Subject) -> None:
    """After a pass too: a copy, and a new one with its state."""
    block = _make_block(subject).train()
    _assert_that_it_keeps_no_map(block)
    twin, other = copy.deepcopy(block), _make_block(subject, seed=1)
    other.load_state_dict(block.state_dict(), strict=True)
    wanted = block.eval()(_make_maps(seed=2))
    for same in (twin, other):
        torch.testing.assert_close(same.eval()(_make_maps(seed=2)), wanted, rtol=0, atol=0)


def _make_block(subject: Subject, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layout: dict[str, Any] = {**LAYOUT, "prefix": 0}
    block: nn.Module = subject.make_component(**layout)
    return block


def _assert_that_it_keeps_no_map(block: nn.Module) -> None:
    """Assert that a forward pass sets no tensor as an attribute of the block."""
    before = _plain_tensors(block)
    block(_make_maps())
    kept = [name for name, value in _plain_tensors(block).items() if value is not before.get(name)]
    assert not kept, (
        f"it keeps {', '.join(kept)} of a pass, which no copy can take along and the next pass "
        "overwrites; hand a map over by fewlabels.contracts.write_side, and keep a statistic by "
        "register_buffer"
    )


def _plain_tensors(block: nn.Module) -> dict[str, Tensor]:
    """Tensors that are plain attributes of modules, not parameters or buffers, by path."""
    return {
        f"{path}.{name}".lstrip("."): value
        for path, module in block.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    }


def _make_maps(seed: int = 0, count: int = 4) -> Tensor:
    return torch.randn(count, 16, 6, 6, generator=torch.Generator().manual_seed(seed))
