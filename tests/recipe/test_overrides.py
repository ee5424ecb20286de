"""What ``key=value`` means: text is taken as it is written, all else is YAML."""

import pytest

from fewlabels.errors import RecipeError
from fewlabels.recipe.recipe import load_recipe, recipe_from

FOLDER = {"data": {"source": "folder", "path": "photos"}, "losses": "multi_similarity"}
PARQUET = {"data": {"source": "parquet", "files": "a.parquet"}, "losses": "multi_similarity"}


@pytest.mark.parametrize(
    "text",
    ["photos #2", "2021", "007", "1e3", "true", "[old] photos", "@home", "photos: old", "*.jpg",
     "&x", "!x", "- a", "{a}", "%x", "`x`", "C:\\photos", "a, b", "# 1", "'a' b", "0x1F", "photos"],
)  # fmt: skip
def test_a_folder_is_called_as_it_is_written(text):
    assert recipe_from(FOLDER, [f"data.path={text}"]).source.options["path"] == text


def test_quotes_and_blanks_around_a_text_are_no_part_of_it():
    for text in ["'photos #2'", '"photos #2"', " photos #2 ", "'photos #2' "]:
        assert recipe_from(FOLDER, [f"data.path={text}"]).source.options["path"] == "photos #2"


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("data.train.classes=3", lambda r: r.data.train.classes == "3"),
        ("data.labels_csv=2021", lambda r: r.source.options["labels_csv"] == "2021"),
        ("data.labels_csv=null", lambda r: r.source.options["labels_csv"] is None),
        ("data.labels_csv=", lambda r: r.source.options["labels_csv"] is None),
        ("model.pooling=1", lambda r: r.model.pooling == "1"),
        ("name=007", lambda r: r.name == "007"),
        ("name=0", lambda r: r.name == "0"),
        ("name=", lambda r: r.name == "recipe"),
        ("name=null", lambda r: r.name == "recipe"),
        ("discovery.0.cache=[1]", lambda r: r.discovery[0].options["cache"] == "[1]"),
        ("discovery.cache=2", lambda r: r.discovery[0].options["cache"] == "2"),
    ],
)
def test_text_that_looks_like_something_else_is_text_where_text_is_wanted(override, read):
    single = override.startswith("discovery.cache")
    matching = {"name": "matching"}
    recipe = recipe_from({**FOLDER, "discovery": matching if single else [matching]}, [override])
    assert read(recipe)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("data.files=[a, b]", lambda r: r.source.options["files"] == ["a", "b"]),
        ("data.files=[old] a", lambda r: r.source.options["files"] == "[old] a"),
        ("data.files=2021", lambda r: r.source.options["files"] == "2021"),
        ("data.labels=all", lambda r: r.data.labels == "all"),
        ("data.labels=40", lambda r: r.data.labels == 40),
        ("data.train.where.year=2021", lambda r: r.data.train.where == {"year": 2021}),
        ("optimizer.options.betas=[.9, .99]", lambda r: r.optimizer.options["betas"] == [0.9, 0.99]),
        ("losses=[multi_similarity]", lambda r: r.losses[0].name == "multi_similarity"),
        ("weights.multi_similarity=2", lambda r: r.weights == {"multi_similarity": 2}),
        ("seed=3 # three", lambda r: r.seed == 3),
    ],
)  # fmt: skip
def test_where_no_text_is_wanted_a_value_is_yaml(override, read):
    assert read(recipe_from(PARQUET, [override]))


ONE = "multi_similarity"


@pytest.mark.parametrize("losses", [ONE, {"name": ONE}, [ONE], [{"name": ONE}]])
@pytest.mark.parametrize("key", ["losses.0", "losses[0]"])
def test_a_component_is_numbered_however_the_recipe_writes_it(losses, key):
    data = {**FOLDER, "losses": losses}
    assert recipe_from(data, [f"{key}.beta=3"]).losses[0].options["beta"] == 3
    other = "contrastive_clustering"
    for word in (f"{key}={other}", f"{key}.name={other}"):
        checked = recipe_from({**data, "discovery": "kmeans", "strategy": "tac_ccl"}, [word])
        assert checked.losses[0].name == other


def test_what_is_set_in_text_or_in_nothing_is_set_in_a_component():
    given = ["strategy.batch=20", "views.0.name=flip"]
    recipe = recipe_from({**FOLDER, "strategy": "metric"}, given)
    assert recipe.strategy.options["batch"] == 20
    assert [view.name for view in recipe.views] == ["flip"]


def test_one_text_is_one_override():
    assert recipe_from(FOLDER, "seed=3").seed == 3


def test_what_is_no_yaml_is_told_where_no_text_is_wanted():
    for override, sentence in [
        ("seed=a={", "command line: seed: expected a whole number, got 'a={'"),
        ("seed=[1", "command line: seed: not readable as YAML: "),
        ("optimizer.options.x=@", "command line: optimizer.options.x: not readable as YAML: "),
        ("data.path=null", "command line: data.path: expected text, got null"),
        ("data.nonsense=[1", "command line: data.nonsense: not readable as YAML: "),
    ]:
        with pytest.raises(RecipeError) as caught:
            recipe_from(FOLDER, [override])
        assert len(caught.value.mistakes) == 1
        assert caught.value.mistakes[0].startswith(sentence)


def test_the_last_of_two_overrides_that_meet_counts():
    given = ["data.path=2021", "data.path=[b]"]
    assert recipe_from(FOLDER, given).source.options["path"] == "[b]"
    given = ["optimizer.name=1", "optimizer={lr: 1}"]
    assert recipe_from(FOLDER, given).optimizer.lr == 1


def test_a_recipe_file_may_have_an_equals_sign_in_its_name(tmp_path, capsys):
    from fewlabels.cli.main import main

    good = tmp_path / "a=b.yaml"
    good.write_text("{data: {source: digits}, losses: multi_similarity}")
    assert main(["check", str(good), "seed=3"]) == 0
    assert capsys.readouterr().out.startswith(f"{good}: good")
    assert load_recipe(good).name == "a-b"
