import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fewlabels.contracts import LabelState
from fewlabels.errors import FewLabelsError
from fewlabels.training.checkpoint import (
    FILES,
    read_checkpoint,
    read_newest_checkpoint,
    save_checkpoint,
)
from fewlabels.training.file_damage import SUMS
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.run_folder import RunFolder, list_checkpoints
from fewlabels.training.saved_modules import load_modules, refuse_diverged
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
    checkpoint = read_checkpoint(list_checkpoints(tmp_path)[-1])
    assert checkpoint.state == {"at": {"step": 7}}
    assert checkpoint.arrays["labels"].tolist() == list(range(5))
    saved = checkpoint.optimizers["embed"]["state"][0]["exp_avg"]
    assert torch.equal(saved, optimizer.state_dict()["state"][0]["exp_avg"])
    fresh = {"student": net(3), "loss.a": net(2)}
    load_modules(list_checkpoints(tmp_path)[-1], fresh)
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(fresh[name].state_dict()[key], value)


def test_only_the_newest_are_kept_and_the_newest_is_last(tmp_path):
    for step in (5, 10, 20, 999999, 1000000):
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
    metrics.write_rows([{"kind": "train", "loss": 1.0}], step=1)
    size = metrics.count_bytes()
    metrics.write_rows([{"kind": "train", "loss": 2.0}], step=2)
    metrics.cut_back(size)
    assert metrics.read_rows() == [{"kind": "train", "loss": 1.0, "step": 1}]
    assert MetricLog(None).read_rows() == []


def test_saving_a_step_again_never_loses_the_one_that_is_there(tmp_path, monkeypatch):
    save(tmp_path, 5, {"student": net()}, keep=1)
    monkeypatch.setattr("fewlabels.models.tensor_file.save_file", full_disk)
    with pytest.raises(FewLabelsError, match="step-000005 cannot be written .the disk is full"):
        save(tmp_path, 5, {"student": net()}, keep=1)
    monkeypatch.undo()
    assert [place.name for place in tmp_path.iterdir()] == ["step-000005"]
    assert read_checkpoint(list_checkpoints(tmp_path)[-1]).state == {"at": {"step": 5}}
    save(tmp_path, 5, {"student": net()}, keep=1)
    assert [place.name for place in tmp_path.iterdir()] == ["step-000005"]


def full_disk(*given):
    raise OSError("the disk is full")


class Killed(BaseException): ...


@pytest.mark.parametrize("rename", range(3))
def test_a_kill_between_two_renames_loses_no_progress_though_one_checkpoint_is_kept(
    tmp_path, monkeypatch, rename
):
    save(tmp_path, 4, {"student": net()}, keep=1)
    save(tmp_path, 5, {"student": net()}, keep=1)
    left = [rename]

    def replace(draft, place):
        if not left[0]:
            raise Killed
        left[0] -= 1
        draft.replace(place)

    monkeypatch.setattr("fewlabels.training.checkpoint.replace_when_whole", replace)
    for step in (5, 6):  # the same again, and the next
        with contextlib.suppress(Killed):
            save(tmp_path, step, {"student": net()}, keep=1)
        newest = read_newest_checkpoint(list_checkpoints(tmp_path), say=pytest.fail)
        assert newest.state["at"]["step"] >= 5
        left[0] = rename
    monkeypatch.undo()
    save(tmp_path, 7, {"student": net()}, keep=1)
    assert [p.name for p in tmp_path.iterdir() if "draft" not in p.name] == ["step-000007"]


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    held = bytearray(file.read_bytes())
    held[-20] ^= 1
    file.write_bytes(held)


def put_pipe(file):
    file.unlink()
    os.mkfifo(file)


DAMAGES = {
    "a pipe": put_pipe,
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": cut,
    "of zeros": lambda file: file.write_bytes(bytes(5000)),
    "with another bit": flip,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("sums", [True, False], ids=["", "of an older version"])
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, damage, file, sums):
    for step in (5, 6):
        save(tmp_path, step, {"student": net()})
    newest = tmp_path / "step-000006"
    if not sums:
        (newest / SUMS).unlink()
        if damage == "with another bit":
            pytest.skip("an older version notes no sums to find it by")
    DAMAGES[damage](newest / file)
    said = []
    assert read_newest_checkpoint(list_checkpoints(tmp_path), said.append).state["at"]["step"] == 5
    (sentence,) = said
    assert sentence.startswith(f"{newest} is damaged ({file}: ")
    assert sentence.endswith("; going on from step-000005")
    assert "\n" not in sentence


def test_where_none_is_whole_all_are_named(tmp_path):
    for step in (5, 6):
        save(tmp_path, step, {"student": net()})
        (tmp_path / f"step-{step:06d}" / "state.json").unlink()
    with pytest.raises(FewLabelsError, match="000006 is damaged .*000005 is damaged .*new run"):
        read_newest_checkpoint(list_checkpoints(tmp_path), print)
    assert read_newest_checkpoint([], print) is None


def test_what_was_passed_over_as_damaged_never_costs_a_whole_one_its_place(tmp_path):
    for step in (5, 9):
        save(tmp_path, step, {"student": net()}, keep=1)
    save(tmp_path, 6, {"student": net()}, keep=1)  # having gone on from one before 9
    assert [place.name for place in tmp_path.iterdir()] == ["step-000006"]


def test_only_folders_called_step_and_a_number_are_checkpoints(tmp_path):
    save(tmp_path, 5, {"student": net()})
    for name in ("step-000005 (copy)", "step-", "step-6b", "step-copy", "my-step-7", "step-²"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-9").touch()
    assert [place.name for place in list_checkpoints(tmp_path)] == ["step-000005"]
    assert list_checkpoints(tmp_path / "nowhere") == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="files are found by /proc")
def test_files_are_on_the_disk_before_a_checkpoint_gets_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(name_of(file)), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("renamed"), replace(*names)))
    save(tmp_path, 5, {"student": net()})
    assert set(done[: done.index("renamed")]) == {*FILES, SUMS, ".draft-000005"}
    assert done[-1] == tmp_path.name


def name_of(descriptor):
    return Path(f"/proc/self/fd/{descriptor}").resolve().name


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_kept(value):
    model = net()
    model.register_buffer("mask", torch.tensor([-np.inf, 0]))
    refuse_diverged({"student": model}, 7)
    with torch.no_grad():
        model[0].weight[1, 2] = value
    with pytest.raises(FewLabelsError, match="student.0.weight is not finite at step 7, .*lower"):
        refuse_diverged({"student": model}, 7)


def test_modules_left_over_or_missing_are_refused_by_name(tmp_path):
    save(tmp_path, 3, {"student": net(), "master": net(), "loss.a": nn.Identity()})
    place = list_checkpoints(tmp_path)[-1]
    load_modules(place, {"master": net(), "student": net(), "loss.a": nn.Identity()})
    with pytest.raises(FewLabelsError, match="holds master, which this recipe does not make"):
        load_modules(place, {"student": net()})
    with pytest.raises(FewLabelsError, match="lacks teacher and holds master, which .*; resume"):
        load_modules(place, {"student": net(), "teacher": net()})


@pytest.mark.parametrize("left", [0, 9, None])
def test_metrics_that_are_missing_or_short_are_told_and_not_filled_up(tmp_path, left):
    metrics = MetricLog(tmp_path / "metrics.jsonl")
    metrics.write_rows([{"loss": 1.0}, {"loss": 2.0}], step=1)
    size = metrics.count_bytes()
    if left is None:
        metrics.path.unlink()
    else:
        metrics.path.write_bytes(metrics.path.read_bytes()[:left])
    with pytest.raises(FewLabelsError, match=f"has {left or 0} bytes of the {size} .*new run"):
        metrics.cut_back(size)
    assert metrics.count_bytes() == (left or 0)


@pytest.mark.parametrize("line", ["{}junk", "{}", "[]", "1", "null", '{"kind": 3}', "[" * 100_000])
def test_a_line_that_is_no_row_of_metrics_is_told_by_its_number(tmp_path, line):
    metrics = MetricLog(tmp_path / "metrics.jsonl")
    metrics.write_rows([{"kind": "train", "loss": 1.0}])
    with metrics.path.open("a") as file:
        file.write(f"{line}\n")
    assert RunFolder(tmp_path).read_end() is None
    for read in (metrics.read_rows, lambda: metrics.cut_back(metrics.count_bytes())):
        with pytest.raises(FewLabelsError, match=r"metrics.jsonl:2 is damaged"):
            read()


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


def test_metrics_that_are_no_text_are_of_no_finished_run(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"kind": "end"}\n\xff\xfe\n')
    assert RunFolder(tmp_path).read_end() is None
