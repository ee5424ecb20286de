"""The chapter's recipe on a folder in CUB's layout, built from real images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

RECIPE = Path(__file__).parents[1] / "recipes" / "tac_ccl_cub.yaml"


@pytest.fixture
def cub(tmp_path):
    """Digits as birds: classes 1-5 and 101-105 of 200, twelve photographs each."""
    digits = load_digits()
    root = tmp_path / "data" / "CUB_200_2011"
    images, labels = [], []
    for digit in range(10):
        number = digit + 1 if digit < 5 else digit + 96
        name = f"{number:03d}.Digit_{digit}"
        (root / "images" / name).mkdir(parents=True)
        for i, pixels in enumerate(digits.images[digits.target == digit][:12]):
            grey = Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((96, 72))
            grey.convert("RGB").save(root / "images" / name / f"{i}.jpg")
            images.append(f"{len(images) + 1} {name}/{i}.jpg")
            labels.append(f"{len(images)} {number}")
    (root / "images.txt").write_text("\n".join(images))
    (root / "image_class_labels.txt").write_text("\n".join(labels))
    return tmp_path


def test_the_chapters_recipe_trains_three_steps_under_accelerate_launch(cub):
    small = ["model.pretrained=false", "model.image_size=64", "data.check_counts=false"]
    small += [
        "strategy.batch=20",
        "discovery.clusters=6",
        "train.log_every=1",
        "train.precision=no",
    ]
    small += ["rounds.rounds=1", "rounds.epochs_per_round=1", "rounds.steps_per_epoch=3"]
    command = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    done = subprocess.run(
        [sys.executable, *command, "-m", "fewlabels.run", str(RECIPE), *small, "--out", str(cub)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "FEWLABELS_DATA": str(cub / "data")},
        cwd=cub,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (cub / "tac_ccl_cub" / "metrics.jsonl").read_text().splitlines()
    steps = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    assert [row["step"] for row in steps] == [0, 1, 2]
    assert all(row["multi_similarity"] > 0 and row["contrastive_clustering"] > 0 for row in steps)
    assert "60 images train, 60 are retrieved" in done.stdout
    assert (cub / "tac_ccl_cub" / "model" / "model.safetensors").exists()


def test_counts_that_are_not_cubs_are_an_error_that_says_so(cub):
    done = subprocess.run(
        [sys.executable, "-m", "fewlabels.run", str(RECIPE), "model.pretrained=false"],
        capture_output=True,
        text=True,
        env={**os.environ, "FEWLABELS_DATA": str(cub / "data")},
        cwd=cub,
    )
    assert done.returncode == 2
    assert "5,864" in done.stderr or "5864" in done.stderr
    assert "Traceback" not in done.stderr
