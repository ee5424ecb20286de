"""A run whose discoveries have nothing left to label goes on to its last round."""

import pytest

import fewlabels
from fewlabels.registry import REGISTRIES
from fewlabels.testing.runs import recipe_of
from fewlabels.testing.subject import Subject
from fewlabels.training.run_folder import RunFolder

STRATEGIES, DISCOVERIES = REGISTRIES["strategies"], REGISTRIES["discovery"]
FEW = {"labelled": 8, "batch": 8}
BY_STUDENT = {"by": "student"}
CASES = {
    "by_prediction": [{"name": "by_prediction", **BY_STUDENT}],
    "confident": [{"name": "confident", **BY_STUDENT, "fusion": "rank", "balance": True}],
    "confined_entropy": [{"name": "confined_entropy", **BY_STUDENT, "delta": 2.0}],
    "kmeans": [{"name": "kmeans", "clusters": 4}],
    "matching": [{"name": "kmeans", "clusters": 4}, {"name": "matching", "workers": 0, "size": 32}],
}


def run_to_the_end(folder, strategy, discovery, **rounds):
    """Six rounds of one step on 32 images, 4 of them labelled; the labels found in each round."""
    retrieval = STRATEGIES.get(strategy).task == "retrieval"
    options = {"batch": 8, "per_class": 2} if retrieval else FEW
    recipe = recipe_of(Subject(STRATEGIES, strategy, options))
    recipe["rounds"] = {"rounds": 6, "steps_per_epoch": 1, **rounds}
    recipe["train"] = {}
    out = fewlabels.train({**recipe, "discovery": discovery}, out=folder).folder
    rows = RunFolder(out).read_metrics()
    assert rows[-1]["kind"] == "end"
    return [int(row["discovered"]) for row in rows if row["kind"] == "discovery"]


def test_every_discovery_is_tried(built_in):
    registered = DISCOVERIES._registered.items()  # by name, by module
    ours = {n for n, own in registered if any(m.startswith("fewlabels.") for m in own)}
    assert set(CASES) == ours - {"ledger"}  # which needs the folder of another run


@pytest.mark.parametrize("discovery", CASES)
def test_no_discovery_ends_a_run_in_which_it_finds_nothing_more(tmp_path, monkeypatch, discovery):
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))
    strategy = "metric" if discovery in ("kmeans", "matching") else "supervised"
    found = run_to_the_end(tmp_path, strategy, CASES[discovery], growth="all")
    if strategy == "supervised":
        assert sum(found) == 28
        assert found[-1] == 0


@pytest.mark.parametrize("strategy", ["lmcs", "mixmatch", "mixup", "pseudo_label"])
@pytest.mark.parametrize("growth", ["double", "all"])
def test_a_batch_is_kept_for_a_strategy_that_trains_on_unlabelled_images(
    tmp_path, strategy, growth, caplog
):
    found = run_to_the_end(tmp_path, strategy, CASES["confident"], growth=growth)
    assert sum(found) == 28 - FEW["batch"]
    assert "8 of 32 images have no label" in caplog.text
    assert "set rounds.limit" in caplog.text


def test_of_few_images_half_is_kept(tmp_path, caplog):
    recipe = recipe_of(Subject(STRATEGIES, "mixmatch", {"labelled": 64, "batch": 64}))
    recipe["rounds"] = {"rounds": 4, "steps_per_epoch": 1, "growth": "all"}
    recipe["discovery"] = CASES["confident"]
    rows = RunFolder(fewlabels.train(recipe, out=tmp_path).folder).read_metrics()
    found = [row["discovered"] for row in rows if row["kind"] == "discovery"]
    assert found == [14, 0, 0, 0]


def test_a_strategy_that_trains_on_all_images_has_them_all_labelled(tmp_path, caplog):
    found = run_to_the_end(tmp_path, "mean_teacher", CASES["confident"], growth="double")
    assert sum(found) == 28
    assert "rounds.limit" not in caplog.text


def test_lmcs_clusters_all_images_where_fewer_than_classes_are_unlabelled(tmp_path):
    recipe = recipe_of(Subject(STRATEGIES, "lmcs", {"labelled": 2, "batch": 2}))
    recipe["rounds"] = {"rounds": 4, "steps_per_epoch": 1, "growth": "all"}
    rows = RunFolder(fewlabels.train(recipe, out=tmp_path).folder).read_metrics()
    found = [row["discovered"] for row in rows if row["kind"] == "discovery"]
    assert sum(found) == 26  # 2 are left, for 4 centres
