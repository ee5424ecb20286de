"""The recipes of chapters 4 and 5 on folders in the layouts of CUB and In-Shop."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import moved, texture
from run_folders import read_rows

import fewlabels
from fewlabels import Embedder
from fewlabels.recipe.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE = RECIPES / "tac_ccl_cub.yaml"
MODEL = {
    "backbone": "googlenet",
    "image_size": 64,
    "blocks": [{"name": "cbam", "after": "inception5b"}],
}


@pytest.fixture
def cub(tmp_path):
    """Textures as birds: classes 1-5 and 101-105 of 200, twelve photographs each."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data" / "CUB_200_2011"
    images, labels = [], []
    for bird in range(10):
        number = bird + 1 if bird < 5 else bird + 96
        name = f"{number:03d}.Bird_{bird}"
        (root / "images" / name).mkdir(parents=True)
        for i in range(12):
            turn = rng.uniform((-0.3, 0.8, -0.1, -0.1), (0.3, 1.1, 0.1, 0.1))
            image = moved(texture(bird, 96), *turn)[0].crop((0, 12, 96, 84))
            image.save(root / "images" / name / f"{i}.jpg")
            images.append(f"{len(images) + 1} {name}/{i}.jpg")
            labels.append(f"{len(images)} {number}")
    (root / "images.txt").write_text("\n".join(images))
    (root / "image_class_labels.txt").write_text("\n".join(labels))
    return tmp_path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("tac_ccl_*.yaml")), ids=lambda p: p.stem)
def test_recipes_of_chapter_4_carry_over_what_was_learnt_on_groceries(path):
    recipe = load_recipe(path, ["model.weights=null"])
    sizes = {227: 256, 224: 256, 112: 128}
    if recipe.model.crop_pct:
        size = recipe.model.image_size
        assert int(size / recipe.model.crop_pct) == sizes[size]
    assert recipe.discovery[0].options["warm"] is False
    losses = {loss.name: loss.options for loss in recipe.losses}
    if path.stem != "tac_ccl_grocery":  # whose numbers are of before
        assert losses["contrastive_clustering"]["centre"] == "own"
        assert "best checkpoint on the test images" in path.read_text()
    if "scratch" not in path.stem:
        assert recipe.schedule.name == "cosine"


@pytest.mark.slow
def test_the_chapters_recipe_trains_three_steps_under_accelerate_launch(cub):
    # Batch norms of random weights have no statistics to be kept.
    small = ["model.pretrained=false", "model.freeze_batchnorm=none"]
    small += ["model.image_size=64", "data.check_counts=false"]
    small += [
        "strategy.batch=20",
        "discovery.0.clusters=6",
        "discovery.1.detector=sift",
        "discovery.1.min_inliers=5",
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
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "FEWLABELS_DATA": str(cub / "data"),
            "FEWLABELS_CACHE": str(cub / "cache"),
        },
        cwd=cub,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_rows(cub / "tac_ccl_cub")
    steps = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in steps] == [0, 1, 2]
    names = ("multi_similarity", "contrastive_clustering", "attention_consistency")
    for name in (*names, "feature_similarity", "attention_spread"):
        assert all(0 < row[name] < 10 for row in steps), name
    (matched,) = [row for row in rows if row.get("discovery") == "matching"]
    assert matched["pairs"] > 0
    (last,) = (cub / "tac_ccl_cub" / "checkpoints").iterdir()
    moments = torch.load(last / "optimizers.pt", weights_only=True)["embed"]["state"].values()
    assert len(moments) == len(list(Embedder(**MODEL).parameters()))
    assert all(moment["exp_avg_sq"].max() > 0 for moment in moments)  # each got a gradient
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


TINY = ["model.pretrained=false", "model.image_size=64", "data.check_counts=false"]
TINY += ["rounds.rounds=1", "rounds.epochs_per_round=1", "rounds.steps_per_epoch=3"]
TINY += ["train.log_every=1", "train.precision=no", "strategy.batch=20", "evaluation.before=false"]


def small(name, out, *overrides):
    """A recipe for three steps of 64 pixels; the rows of its metrics, and its last optimiser state."""
    recipe = fewlabels.load_recipe(RECIPES / f"{name}.yaml", [*TINY, *overrides])
    folder = fewlabels.train(recipe, out=out).folder
    rows = read_rows(folder)
    (last,) = (folder / "checkpoints").iterdir()
    state = torch.load(last / "optimizers.pt", weights_only=True)["embed"]["state"].values()
    return rows, state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("san_cub", ["multi_similarity", "cbml"]),
        ("san_unsupervised_cub", ["multi_similarity", "cbml"]),
        ("ms_san_cub", ["multi_similarity"]),
        ("proxy_anchor_san_cub", ["pml:proxy_anchor_loss"]),
    ],
)
def test_chapter_5s_recipes_train_every_weight_of_san(cub, monkeypatch, name, terms):
    monkeypatch.setenv("FEWLABELS_DATA", str(cub / "data"))
    more = ["discovery.clusters=6"] if "unsupervised" in name else []
    more += ["optimizer.frozen_epochs={}"] if "proxy" in name else []  # an epoch, all there is
    rows, state = small(name, cub, *more)
    steps = [row for row in rows if row["kind"] == "train"]
    assert len(steps) == 3
    logged = {"san.entropy", "san.correlation", "san.coherence", "san.off_diagonal", "san.moved"}
    for row in steps:
        assert row.keys() >= {*terms, *logged}
        assert all(np.isfinite(row[term]) for term in (*terms, *logged))
    assert steps[0]["san.off_diagonal"] == pytest.approx(1 / (1 + np.exp(3)), rel=0.05)
    assert steps[2]["san.off_diagonal"] != steps[0]["san.off_diagonal"]
    assert all(moment["exp_avg_sq"].max() > 0 for moment in state)


@pytest.mark.slow
def test_inshop_is_reported_in_both_settings(tmp_path, monkeypatch):
    """Queries against the gallery, and the whole test set against itself."""
    root = tmp_path / "data" / "Inshop_Clothes"
    (root / "img").mkdir(parents=True)
    lines = []
    for item in range(8):
        for i, part in enumerate(["train"] * 5 if item < 4 else ["query", "gallery", "gallery"]):
            texture(item, 64).rotate(20 * i).save(root / "img" / f"{item}_{i}.jpg")
            lines.append(f"img/{item}_{i}.jpg id_{item} {part}")
    head = [str(len(lines)), "image_name item_id evaluation_status"]
    (root / "list_eval_partition.txt").write_text("\n".join([*head, *lines]))
    monkeypatch.setenv("FEWLABELS_DATA", str(tmp_path / "data"))
    rows, _ = small("san_inshop", tmp_path)
    scores = {row["search"]: row for row in rows if row["kind"] == "evaluation"}
    assert scores["query against gallery"]["queries"] == 4
    assert scores["all against all"]["queries"] == 12
    assert "recall@30" in scores["all against all"]
