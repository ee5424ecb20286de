"""Who may read what a run leaves behind."""

import os
import stat

import fewlabels

RECIPE = {
    "data": {"source": "digits", "split": "official", "labels": 20, "validation": 20},
    "model": {"backbone": "convnet3", "image_size": 16, "backbone_options": {"width": 0.25}},
    "optimizer": {"name": "adam", "lr": 1e-3},
    "strategy": {"name": "snowball", "labelled": 20, "batch": 20},
    "pretrain": {"name": "rotation", "epochs": 1, "batch": 20},
    "rounds": {"rounds": 1, "steps_per_epoch": 2, "restart": "round"},
    "evaluation": {"report": "best", "before": False, "steps": 1},
    "train": {"checkpoint_every": 1},
}


def test_a_colleague_of_the_group_may_read_every_file_of_a_run_where_umask_allows_it(tmp_path):
    before = os.umask(0o027)
    try:
        folder = fewlabels.train(RECIPE, [], out=tmp_path).folder
    finally:
        os.umask(before)
    files = [path for path in folder.rglob("*") if path.is_file()]
    tensors = {path.relative_to(folder).parts[0] for path in files if path.suffix == ".safetensors"}
    assert tensors == {"best", "checkpoints", "initial", "model", "pretrain"}
    modes = {path.relative_to(folder): oct(stat.S_IMODE(path.stat().st_mode)) for path in files}
    assert {path: mode for path, mode in modes.items() if mode != "0o640"} == {}
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in folders} == {"0o750"}
