import pytest
import torch
from torch import nn

from fewlabels.errors import FewLabelsError
from fewlabels.training.optimizers import (
    TICKS,
    check_frozen_epochs,
    check_starts,
    drop_frozen_gradients,
    make_optimizer,
    make_scheduler,
)


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


def test_no_decay_reaches_the_parameters_it_names_and_no_others():
    parameters = named()
    spared = make_optimizer(parameters, "adamw", 0.1, 0.01, "all", no_decay=["student.0.weight"])
    decays = {name: decay for name, (_, decay) in rates(spared, parameters).items()}
    assert decays.pop("student.0.weight") == 0
    assert set(decays.values()) == {0.01}


def test_frozen_parameters_stay_to_the_bit_for_their_epochs_and_start_without_moments():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    optimizer = make_optimizer(
        model.named_parameters(), "adamw", 0.1, 0.5, frozen_epochs={"0": 2, "0.bias": 1}
    )
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    moved = []
    for epoch in range(3):
        model(torch.randn(8, 4)).sum().backward()
        drop_frozen_gradients(optimizer, epoch)
        optimizer.step()
        optimizer.zero_grad()
        moved.append({n for n, p in model.named_parameters() if not torch.equal(p, start[n])})
    assert moved == [{"1.weight", "1.bias"}, {"1.weight", "1.bias", "0.bias"}, set(start)]
    assert optimizer.state[model[0].weight]["step"] == 1
    del optimizer.param_groups[0]["frozen_epochs"]  # as in a checkpoint of before
    drop_frozen_gradients(optimizer, 0)


def test_frozen_epochs_that_leave_nothing_to_train_are_refused():
    with pytest.raises(FewLabelsError, match="freezes every parameter of a phase at first"):
        make_optimizer(named(), "adamw", 0.1, frozen_epochs={"student": 1})
    check_frozen_epochs({"student.0": 1}, 2)
    with pytest.raises(FewLabelsError, match=r"'student\.0' is frozen for 2 epochs"):
        check_frozen_epochs({"student.0": 2}, 2)


def test_a_factor_for_nothing_and_an_unknown_optimiser_are_refused():
    paths = [path for path, _ in named()]
    check_starts({"factors": dict.fromkeys(["student", "student.1", "student.0.bias"], 1)}, paths)
    with pytest.raises(FewLabelsError, match=r"optimizer\.factors: .*path starts with 'student.3'"):
        check_starts({"factors": {"student.3": 1}}, paths)
    starts = {"factors": {"loss": 2, "student.1": 3}, "no_decay": ["loss"], "frozen_epochs": {}}
    fix = r"set 'optimizer\.factors=\{student\.1: 3\}' 'optimizer\.no_decay=\[\]'$"
    with pytest.raises(
        FewLabelsError, match=r"^optimizer\.factors and optimizer\.no_decay: .*" + fix
    ):
        check_starts(starts, paths)
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


def test_a_constant_rate_falls_at_the_end_alone():
    """As Mean Teacher's: exp(-12.5 t^2), t from 0 to 1 over the last stretch."""
    rates_seen = trace("constant", final_epochs=1, warmup_epochs=1, min_lr=0.1)
    rise, whole, fall = rates_seen[:10], rates_seen[10:31], rates_seen[30:]
    torch.testing.assert_close(rise, torch.arange(10) / 10)
    assert (whole == 1).all()
    torch.testing.assert_close(fall, 0.1 + 0.9 * torch.exp(-12.5 * (torch.arange(10) / 10) ** 2))
    optimizer = make_optimizer(named(), "sgd", 1.0, factors={"student.0": 0.5})
    make_scheduler(optimizer, "constant", epochs=4, final_epochs=2).step_update(3 * TICKS)
    left = torch.exp(torch.tensor(-12.5 / 4)).item()
    found = sorted(group["lr"] for group in optimizer.param_groups)
    assert found == pytest.approx([0.5 * left, left])


def test_factor_0_freezes_even_in_the_warm_up():
    parameters = named()
    optimizer = make_optimizer(parameters, "adam", 0.1, factors={"student.0": 0})
    make_scheduler(optimizer, "cosine", epochs=4, warmup_epochs=1, min_lr=1e-3)
    assert [p.requires_grad for _, p in parameters] == [False, False, True, True]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    with pytest.raises(FewLabelsError, match="0 freezes every parameter"):
        make_optimizer(named(), "adam", 0.1, factors={"student": 0})
