import numpy as np
import pytest
import torch
from torch import nn

from fewlabels.contracts import LabelState
from fewlabels.errors import FewLabelsError
from fewlabels.training.checkpoint import (
    load_modules,
    read_checkpoint,
    save_checkpoint,
)
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.run_folder import list_checkpoints
from fewlabels.training.state import State


def net(width=3):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))


def save(folder, step, modules, keep=2):
    optimizer = torch.optim.Adam(modules["student"].parameters())
    modules["student"](torch.rand(5, 4)).sum().backward()
    optimizer.step()
    arrays = {"labels": np.arange(5), "centres": np.eye(2, dtype=np.float32)}
    state = {"at": {"step": step}}
    save_checkpoint(folder, step, modules, {"embed": optimizer.state_dict()}, arrays, state, keep)
    return optimizer


def test_everything_comes_back_as_it_was(tmp_path):
    modules = {"student": net(), "loss.a": net(2)}
    optimizer = save(tmp_path, 7, modules)
    state, arrays, optimizers = read_checkpoint(list_checkpoints(tmp_path)[-1])
    assert state == {"at": {"step": 7}}
    assert arrays["labels"].tolist() == list(range(5))
    saved = optimizers["embed"]["state"][0]["exp_avg"]
    assert torch.equal(saved, optimizer.state_dict()["state"][0]["exp_avg"])
    fresh = {"student": net(3), "loss.a": net(2)}
    load_modules(list_checkpoints(tmp_path)[-1], fresh)
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(fresh[name].state_dict()[key], value)


def test_only_the_newest_are_kept_and_the_newest_is_last(tmp_path):
    for step in (5, 10, 1000000, 999999, 20):
        save(tmp_path, step, {"student": net()}, keep=2)
    assert [place.name for place in list_checkpoints(tmp_path)] == ["step-999999", "step-1000000"]


def test_a_kill_while_writing_leaves_the_checkpoint_before(tmp_path):
    save(tmp_path, 3, {"student": net()})
    draft = tmp_path / ".draft-000006"
    draft.mkdir()
    (draft / "modules.safetensors").write_bytes(b"half")
    assert [place.name for place in list_checkpoints(tmp_path)] == ["step-000003"]


def test_a_checkpoint_of_another_recipe_is_refused_with_a_sentence(tmp_path):
    save(tmp_path, 3, {"student": net()})
    with pytest.raises(FewLabelsError, match="does not fit this recipe's student"):
        load_modules(list_checkpoints(tmp_path)[-1], {"student": net(9)})


def test_metrics_after_a_checkpoint_are_forgotten_when_the_run_goes_back(tmp_path):
    metrics = MetricLog(tmp_path / "metrics.jsonl")
    metrics.write_rows([{"loss": 1.0}], step=1)
    size = metrics.count_bytes()
    metrics.write_rows([{"loss": 2.0}], step=2)
    metrics.cut_back(size)
    assert metrics.read_rows() == [{"loss": 1.0, "step": 1}]
    assert MetricLog(None).read_rows() == []


def test_saving_a_step_again_never_loses_the_one_that_is_there(tmp_path, monkeypatch):
    save(tmp_path, 5, {"student": net()}, keep=1)
    monkeypatch.setattr("fewlabels.training.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="full"):
        save(tmp_path, 5, {"student": net()}, keep=1)
    monkeypatch.undo()
    assert read_checkpoint(list_checkpoints(tmp_path)[-1])[0] == {"at": {"step": 5}}
    save(tmp_path, 5, {"student": net()}, keep=1)
    assert [place.name for place in tmp_path.iterdir()] == ["step-000005"]


def full_disk(*given):
    raise OSError("the disk is full")


def test_a_checkpoint_of_another_version_is_refused_with_a_sentence():
    labels = np.array([0, -1])
    state = State(LabelState(labels, labels, np.array([True, False]), None, None, changed=False))
    arrays, values = state.save()
    state.load(arrays, values)
    before = {"labels": arrays["labels"]}  # earlier labels were not kept yet
    with pytest.raises(FewLabelsError, match="of another version of fewlabels; start a new run"):
        state.load(before, values)
    values["at"]["updates"] = {"teacher": 3}  # as an earlier version wrote it
    with pytest.raises(FewLabelsError, match="of another version of fewlabels; start a new run"):
        state.load(arrays, values)
