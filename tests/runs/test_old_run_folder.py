"""A run folder that version 0.1.0 wrote is read: its recipe, its metrics, its ledger."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewlabels.errors import FewLabelsError, HubError
from fewlabels.recipe.recipe import load_recipe
from fewlabels.runs.finished_run import last_scores, read_run, summarize_labels

RECIPE = """
name: "snowball"
seed: 0
imports: []
model: {"backbone": "convnet5", "backbone_options": {"width": 0.5}, "pretrained": false,
  "weights": null, "embedding_size": 512, "pooling": null, "image_size": 16, "crop_pct": null,
  "interpolation": null, "freeze_batchnorm": "none"}
weights: {"consistency": {"end": 100.0, "start": 0.0, "steps": 100, "shape": "sigmoid"},
  "master": {"end": 100.0, "start": 0.0, "steps": 100, "shape": "sigmoid"}}
optimizer: {"name": "adam", "lr": 0.002, "weight_decay": 0.0, "decay": "kernels", "factors": {},
  "options": {}}
schedule: {"name": "cosine", "warmup_epochs": 1, "min_lr": 0.0, "decay_epochs": 30.0,
  "decay_rate": 0.1}
rounds: {"generations": 2, "rounds": 2, "epochs_per_round": 1, "first_epochs": 2, "restart":
  "generation", "stop": null, "oracle": false, "steps_per_epoch": 18, "discover_every": 1,
  "growth": "double", "limit": null}
train: {"precision": "no", "accumulate": 1, "clip": null, "channels_last": true,
  "checkpoint_every": 10, "keep_checkpoints": 2, "log_every": 5}
evaluation: {"ks": [1, 2, 4, 8], "every": 1, "steps": 9, "report": "median", "before": true,
  "pixels": false, "all_against_all": false, "batch": 128}
data: {"source": "digits", "split": "official", "train": null, "test": null, "query": null,
  "gallery": null, "labels": 20, "share": "balanced", "split_seed": null, "validation": 0,
  "memory": 4.0, "workers": 2, "warp": false}
strategy: {"name": "snowball", "base": "mean_teacher", "labelled": 32, "batch": 32,
  "unlabelled": "all", "ema": {"end": 0.9, "start": 0.0, "steps": 0, "shape": "linear"},
  "teacher_mode": "train", "temperature": 0.5, "alpha": 0.75, "master_ema": 0.9}
discovery: [{"name": "confident", "select": "min", "pool_factor": null, "balance": true, "by":
  "master", "fusion": "distance", "normalise": true}]
losses: []
views: [{"name": "homography", "crop": [0.8, 1.0], "ratio": [0.75, 1.3333], "rotation": 10.0,
  "zoom": null, "shift": 0.1, "perspective": 0.0, "padding": "zeros"}]
blocks: []
"""
EVALUATION = {"kind": "evaluation", "search": "test images", "round": 4, "step": 108}
ROWS = [
    {"kind": "run", "recipe": "9970c4d05a6b", "seed": 0, "device": "x86_64", "threads": 1,
     "processes": 1, "python": "3.11.7", "fewlabels": "0.1.0", "torch": "2.14.1", "plugins": {}},
    {"kind": "train", "phase": "train", "epoch": 0, "lr": 0.0011112, "loss": 2.052258014678955,
     "supervised": 2.051867961883545, "consistency": 0.00022391749371308833, "round": 0, "step": 10},
    {"kind": "discovery", "discovery": "confident", "discovered": 2.0, "wrong": 0.5, "round": 3},
    {**EVALUATION, "model": "teacher", "error": 0.5628, "told": "teacher error 56.28"},
    {**EVALUATION, "model": "student", "error": 0.6080, "told": "student error 60.80"},
    {**EVALUATION, "model": "master", "error": 0.7052, "told": "master error 70.52"},
    {"kind": "round", "seconds": 1.1, "round": 4},
    {"kind": "end", "minutes": 0.0967, "measure": "test error", "score": 0.5628, "steps": 108,
     "images": 3456, "other_steps": 0},
]  # fmt: skip
LEDGER = {
    "row": [31, 164],
    "name": ["digit 31", "digit 164"],
    "label": [3, 6],
    "score": pa.array([-0.18, -0.14], pa.float32()),
    "round": pa.array([3, 3], pa.int32()),
    "discovery": pa.array(["confident"] * 2).dictionary_encode(),
    "truth": [9, 6],
}


def write_old_run(folder, rows=ROWS):
    (folder / "ledger").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    pq.write_table(pa.table(LEDGER), folder / "ledger" / "round-003-confident.parquet")
    lines = "part,row,class,name\nlabelled,44,7,7\nlabelled,46,5,5\n"
    (folder / "labelled.csv").write_text(lines, "utf-8")
    return folder


def test_a_run_of_version_0_1_is_told_of(tmp_path):
    run = read_run(write_old_run(tmp_path / "run"))
    errors = {model: scores["test error"] for (_, model), scores in last_scores(run).items()}
    assert errors == pytest.approx({"teacher": 56.28, "student": 60.80, "master": 70.52})
    found = summarize_labels(run)
    assert (found.given, found.discovered, found.wrong, found.known) == (2, 2, 1, 2)


@pytest.mark.parametrize("name", ["labelled.csv", "ledger/round-003-confident.parquet"])
@pytest.mark.parametrize("damage", ["gone", "cut", "columns", "pipe"])
def test_labels_that_cannot_be_counted_are_a_sentence(tmp_path, name, damage):
    file = write_old_run(tmp_path / "run") / name
    content = file.read_bytes()
    file.unlink()
    if damage == "pipe":
        os.mkfifo(file)
    elif damage == "cut":
        file.write_bytes(b"part\xff" + content[len(content) // 2 :])
    elif damage == "columns" and file.suffix == ".csv":
        file.write_bytes(content.replace(b"part", b"piece"))
    elif damage == "columns":
        pq.write_table(pa.table({"row": [1], "round": [1]}), file)
    elif file.suffix == ".parquet":
        return  # a discovery that is not there cannot be told from one that was not made
    with pytest.raises(FewLabelsError, match=f"{file.name}: "):
        summarize_labels(read_run(tmp_path / "run"))


def test_a_recipe_of_version_0_1_means_the_same(tmp_path):
    recipe = load_recipe(write_old_run(tmp_path / "run") / "recipe.yaml", ended=True)
    assert recipe.hash == ROWS[0]["recipe"]


def test_an_oracle_run_of_version_0_1_is_still_no_result(tmp_path):
    said = {"ORACLE": "discovered samples got their true labels: no result, an analysis"}
    with pytest.raises(HubError, match="rounds.oracle"):
        read_run(write_old_run(tmp_path / "run", [{**ROWS[0], **said}, *ROWS[1:]]))
