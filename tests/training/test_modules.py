import torch
from accelerate import Accelerator
from torch import nn

from fewlabels.models.modes import freeze_norms, set_training
from fewlabels.training.averages import update_average
from fewlabels.training.modules import TrainingModules


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))


def test_running_statistics_do_not_move_while_still_and_move_again_after():
    model = net().train()
    running = TrainingModules({"student": model}, Accelerator(cpu=True))
    before = {k: v.clone() for k, v in model[1].state_dict().items()}
    with running.freeze_statistics("student"):
        model(torch.randn(5, 3, 6, 6))
    after = model[1].state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    model(torch.randn(5, 3, 6, 6))
    assert not torch.equal(before["running_mean"], model[1].running_mean)
    assert model[1].num_batches_tracked == 1


def test_frozen_norms_neither_learn_nor_count():
    model = net()
    freeze_norms(model)
    set_training(model, freeze_statistics=True)
    model(torch.randn(5, 3, 6, 6)).sum().backward()
    assert model[1].weight.grad is None
    assert model[1].num_batches_tracked == 0
    assert model[0].weight.grad is not None
    assert model.training


def test_an_average_is_the_mean_of_its_first_updates_and_follows_after():
    model, average = net(), net()
    history = []
    for step in range(4):
        with torch.no_grad():
            model[3].bias.fill_(float(step))
        history.append(float(step))
        update_average(average, model, 0.999, step)
    torch.testing.assert_close(average[3].bias, torch.full((2,), sum(history) / 4))
    update_average(average, model, 0.5, 1000)
    torch.testing.assert_close(average[3].bias, torch.full((2,), (1.5 + 3.0) / 2))


def test_buffers_are_copied_or_left_as_declared():
    model, average = net(), net()
    model[1].running_mean.fill_(3.0)
    update_average(average, model, 0.9, 5, "own")
    assert (average[1].running_mean == 0).all()
    update_average(average, model, 0.9, 5, "copy")
    assert (average[1].running_mean == 3).all()
