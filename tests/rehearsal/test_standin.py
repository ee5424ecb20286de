"""Stand-ins are read by the source that reads the data themselves, with their classes and parts."""

from pathlib import Path

import numpy as np
import pytest
from small import DIGITS

from fewlabels.recipe.recipe import load_recipe, recipe_from
from fewlabels.registry.build import build_component
from fewlabels.rehearsal.facts import describe_labels, find_facts
from fewlabels.rehearsal.shortened import choose_counts, shorten_recipe
from fewlabels.rehearsal.standin import write_standin
from fewlabels.runs.training_data import read_training_data

METRIC = {**DIGITS, "losses": "multi_similarity"}
RECIPES = Path(__file__).parents[2] / "recipes"


def write_and_read(recipe, root, train=60, test=30):
    """Records of a recipe's stand-in, and those for which they stand."""
    facts = find_facts(recipe)
    standin = write_standin(recipe, facts, train, test, root)
    source = build_component(
        "sources", recipe.source.name, {**recipe.source.options, **standin.options}
    )
    return source.load(), standin.records, facts


@pytest.mark.parametrize(
    "source", ["cub200", "cars196", "sop", "inshop", "cifar10", "cifar100", "svhn"]
)
def test_a_benchmark_s_stand_in_lies_in_the_layout_that_its_source_reads(tmp_path, source):
    recipe = recipe_from({**METRIC, "data": {"source": source}})
    read, wanted, facts = write_and_read(recipe, tmp_path / "data")
    assert facts.origin == "published counts"
    parts = np.unique(wanted.columns["split"])
    assert sorted(np.unique(read.columns["split"])) == sorted(parts)
    for part in parts:
        own, stood = (r.truth[r.columns["split"] == part] for r in (read, wanted))
        if source == "inshop":  # it numbers the items that are there
            assert sorted(np.unique(own, return_counts=True)[1]) == sorted(
                np.unique(stood, return_counts=True)[1]
            )
        else:
            assert sorted(own) == sorted(stood)
    whole = facts.data.records.truth
    if source not in ("sop", "inshop"):  # of thousands of classes some are left out
        assert set(read.truth) == set(whole)
    assert read.images[0].size == facts.sides


def test_a_parquet_recipe_that_is_not_here_gets_the_columns_and_classes_that_it_names(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("FEWLABELS_DATA", str(tmp_path / "nothing"))
    recipe = load_recipe(RECIPES / "tac_ccl_grocery.yaml", ["model.weights=null"])
    read, _, facts = write_and_read(recipe, tmp_path / "data", 120, 80)
    assert facts.origin == "assumed counts, as the data are not here"
    assert set(read.truth) == set(range(81))
    tests = read.truth > 40
    assert {*read.columns["official_split"][tests]} == {"test", "train"}


def test_a_folder_that_is_here_gets_its_own_classes_and_sizes(tmp_path):
    from PIL import Image

    for name in ("2", "10", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (40, 30)).save(tmp_path / "photos" / name / f"{i}.png")
    data = {"source": "folder", "path": str(tmp_path / "photos"), "labels": "all"}
    read, _, facts = write_and_read(recipe_from({**METRIC, "data": data}), tmp_path / "data", 9, 9)
    assert read.classes == ("2", "10", "b")
    assert facts.origin == "counts of the data that are here"
    assert read.images[0].size == (40, 30)
    assert np.bincount(read.truth).tolist() >= [3, 3, 3]


def test_a_folder_with_a_table_and_a_copy_of_the_hub_are_read_too(tmp_path):
    data = {"source": "folder", "path": "nowhere", "labels_csv": "nowhere.csv"}
    read, _, _ = write_and_read(recipe_from({**METRIC, "data": data}), tmp_path / "table")
    assert len(set(read.truth)) == 10
    data = {"source": "hub", "id": str(tmp_path / "nowhere"), "label": "kind"}
    read, _, _ = write_and_read(recipe_from({**METRIC, "data": data}), tmp_path / "hub")
    assert len(set(read.truth)) == 10
    assert set(read.columns["split"]) == {"train", "test"}


def draw_photos(root, names):
    """Small images of one colour below a folder."""
    from PIL import Image

    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(root / name)


def test_images_whose_class_nobody_knows_are_of_no_class(tmp_path):
    counts = {"a": 24, "b": 24, "c": 24, "unlabeled": 40}
    draw_photos(tmp_path, [f"{name}/{i}.png" for name, n in counts.items() for i in range(n)])
    data = {"source": "folder", "path": str(tmp_path), "split": "all", "validation": 6}
    model = {**DIGITS["model"], "embedding_size": None}
    recipe = recipe_from(
        {"data": {**data, "labels": "all"}, "model": model, "strategy": "supervised"}
    )
    facts = find_facts(recipe)
    assert describe_labels(facts.data)["classes"] == 3
    standin = write_standin(recipe, facts, *choose_counts(recipe, facts, 12.0), tmp_path / "stood")
    short = shorten_recipe(recipe, facts, standin, (0, 0))
    held = read_training_data(short, quiet=True).validation
    assert len(held) == short.data.validation
    assert short.data.validation % 3 == 0


def test_images_that_differ_by_their_suffix_alone_are_two(tmp_path):
    names = [
        f"{kind}/{i}{suffix}" for kind in "ab" for i in range(4) for suffix in (".png", ".jpg")
    ]
    draw_photos(tmp_path / "photos", names)
    data = {"source": "folder", "path": str(tmp_path / "photos"), "labels": "all"}
    read, wanted, _ = write_and_read(recipe_from({**METRIC, "data": data}), tmp_path / "data", 9, 9)
    assert np.bincount(read.truth).tolist() == np.bincount(wanted.truth).tolist()
