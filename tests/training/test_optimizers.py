import pytest
import torch
from torch import nn

from fewlabels.errors import FewLabelsError
from fewlabels.training.optimizers import TICKS, check_factors, make_optimizer, make_scheduler


def named():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    return [(f"student.{name}", p) for name, p in model.named_parameters()]


def rates(optimizer, parameters):
    of = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    return {name: of[id(p)] for name, p in parameters}


def test_factors_and_decay_reach_the_parameters_they_name():
    parameters = named()
    optimizer = make_optimizer(
        parameters, "adamw", 0.1, 0.01, factors={"student": 0.5, "student.1": 3.0}
    )
    assert rates(optimizer, parameters) == {
        "student.0.weight": (0.05, 0.01),
        "student.0.bias": (0.05, 0.0),
        "student.1.weight": (pytest.approx(0.3), 0.0),
        "student.1.bias": (pytest.approx(0.3), 0.0),
    }


def test_a_factor_for_nothing_and_an_unknown_optimiser_are_refused():
    paths = [path for path, _ in named()]
    check_factors(dict.fromkeys(["student", "student.1", "student.0.bias"], 1), paths)
    with pytest.raises(FewLabelsError, match="path starts with 'student.3'"):
        check_factors({"student.3": 1}, paths)
    with pytest.raises(FewLabelsError, match="timm's 'adamx' refuses this"):
        make_optimizer(named(), "adamx", 0.1)


def trace(name, **more):
    """The rates of 40 steps in 4 epochs."""
    optimizer = make_optimizer(named(), "sgd", 1.0)
    scheduler = make_scheduler(optimizer, name, epochs=4, **more)
    seen = []
    for step in range(1, 41):
        seen.append(optimizer.param_groups[0]["lr"])
        if scheduler is not None:
            scheduler.step_update(step * TICKS // 10)
    return torch.tensor(seen)


def test_schedules_move_at_every_step_from_the_first():
    assert (trace("constant") == 1).all()
    cosine = trace("cosine")
    expected = 0.5 * (1 + torch.cos(torch.pi * torch.arange(40) / 40))
    torch.testing.assert_close(cosine, expected)
    warm = trace("constant", warmup_epochs=1)
    assert warm[0] == 0
    assert (warm[:10].diff() > 0).all()
    assert (warm[11:] == 1).all()
    steps = trace("step", decay_epochs=2, decay_rate=0.5)
    assert steps[:20].unique().tolist() == [1.0]
    assert steps[20:].unique().tolist() == [0.5]
    halves = trace("step", decay_epochs=0.5, decay_rate=0.5)
    assert halves.unique().tolist() == [0.5**n for n in range(7, -1, -1)]
    several = trace("multistep", decay_epochs=[1, 3], decay_rate=0.5)
    assert several.tolist() == [1.0] * 10 + [0.5] * 20 + [0.25] * 10


def test_factor_0_freezes_even_in_the_warm_up():
    parameters = named()
    optimizer = make_optimizer(parameters, "adam", 0.1, factors={"student.0": 0})
    make_scheduler(optimizer, "cosine", epochs=4, warmup_epochs=1, min_lr=1e-3)
    assert [p.requires_grad for _, p in parameters] == [False, False, True, True]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    with pytest.raises(FewLabelsError, match="0 freezes every parameter"):
        make_optimizer(named(), "adam", 0.1, factors={"student": 0})
