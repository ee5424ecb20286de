import pytest

from fewlabels.errors import RecipeError
from fewlabels.recipe.overrides import apply_overrides
from fewlabels.recipe.recipe import load_recipe
from fewlabels.recipe.yaml_file import KEPT, dump_yaml, merge_values, parse_yaml, read_recipe_file


def test_numbers_and_words_read_as_people_mean_them():
    text = "{a: 1e-3, b: 3, c: no, d: on, e: true, f: 2024-01-01, g: 012, h: null, i: .5, j: -2.5E4, k: '1'}"
    data, _ = parse_yaml(text, "x.yaml")
    assert data == {
        "a": 0.001, "b": 3, "c": "no", "d": "on", "e": True, "f": "2024-01-01", "g": 12,
        "h": None, "i": 0.5, "j": -25000.0, "k": "1",
    }  # fmt: skip


def test_duplicate_keys_are_refused_all_at_once_with_their_lines():
    with pytest.raises(RecipeError) as caught:
        parse_yaml("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", "x.yaml")
    assert caught.value.mistakes == [
        "x.yaml:4: b.c: duplicate key, first on line 3; keep one",
        "x.yaml:5: a: duplicate key, first on line 1; keep one",
    ]


def test_text_that_is_not_yaml_says_where():
    with pytest.raises(RecipeError, match=r"x\.yaml:2: not readable as YAML"):
        parse_yaml("a: [1,\nb: }", "x.yaml")
    with pytest.raises(RecipeError, match="are not read"):
        parse_yaml("a: !!python/object/apply:os.system [ls]", "x.yaml")


def test_a_child_shows_only_its_difference(tmp_path):
    (tmp_path / "parent.yaml").write_text(
        "a: {b: 1, c: 2}\nlosses: [{name: x, beta: 3}]\nseed: 1\n"
    )
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\na: {c: 5}\n")
    data, origins = read_recipe_file(tmp_path / "child.yaml")
    assert data == {"a": {"b": 1, "c": 5}, "losses": [{"name": "x", "beta": 3}], "seed": 1}
    assert origins["a", "c"].endswith("child.yaml:2")
    assert origins["a", "b"].endswith("parent.yaml:1")


def test_null_takes_one_key_away_where_a_recipe_chooses_the_keys(tmp_path):
    (tmp_path / "parent.yaml").write_text(
        "data: {source: digits}\nweights: {multi_similarity: 2, a: 1}\n"
        "losses: [multi_similarity]\n"
        "optimizer: {lr: 1e-3, factors: {student.head: 3, b: 1}, frozen_epochs: {c: 1}}\n"
    )
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: parent.yaml\nweights: {a: null}\n"
        "optimizer: {factors: {b: null}, frozen_epochs: {c: null}}\n"
    )
    (tmp_path / "grandchild.yaml").write_text("extends: child.yaml\noptimizer: {factors: {b: 2}}\n")
    recipe = load_recipe(child)
    assert recipe.weights == {"multi_similarity": 2}
    assert recipe.optimizer.factors == {"student.head": 3}
    assert recipe.optimizer.lr == 1e-3
    assert recipe.optimizer.frozen_epochs == {}
    assert load_recipe(child, ["weights.multi_similarity=null"]).weights == {}
    assert load_recipe(child, ["optimizer.factors=null"]).optimizer.factors == {}
    (tmp_path / "other.yaml").write_text(
        "extends: parent.yaml\nweights: null\noptimizer: {factors: null, frozen_epochs: null}\n"
    )
    other = load_recipe(tmp_path / "other.yaml")
    assert (other.weights, other.optimizer.factors) == ({}, {})
    assert (other.optimizer.frozen_epochs, other.optimizer.lr) == ({}, 1e-3)
    again = load_recipe(tmp_path / "grandchild.yaml").optimizer
    assert again.factors == {"student.head": 3, "b": 2}
    with pytest.raises(RecipeError, match="lr"):
        load_recipe(child, ["optimizer.lr=null"])


def test_options_of_a_replaced_component_are_dropped():
    assert merge_values({"name": "x", "beta": 3}, {"name": "y"}) == {"name": "y"}
    assert merge_values({"name": "x", "beta": 3}, {"name": "x", "eps": 1}) == {
        "name": "x",
        "beta": 3,
        "eps": 1,
    }
    data = {"name": "run", "strategy": {"name": "x", "beta": 3}}
    apply_overrides(data, {}, ["strategy.name=y", "name=other"])
    assert data == {"name": "other", "strategy": {"name": "y"}}


def test_another_source_keeps_what_says_nothing_of_the_source(tmp_path):
    base = "data: {source: parquet, files: a.parquet, workers: 0, split: zero_shot}\n"
    (tmp_path / "base.yaml").write_text(base)
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\ndata: {source: digits}\n")
    kept = {"source": "digits", "workers": 0}
    assert read_recipe_file(child)[0]["data"] == kept
    for order in (1, -1):
        data, origins = read_recipe_file(tmp_path / "base.yaml")
        apply_overrides(data, origins, ["data.split=all", "data.source=digits"][::order])
        assert data["data"] == {**kept, "split": "all"}


def test_what_is_dumped_reads_back_the_same():
    texts = ["08", "1e3", "1_000", "on", "2020-01-01", "true", "null", "~", ".5", "a: b", "", "é"]
    data = {"texts": texts, "numbers": [8, 1e3, 1e-12, 0.5, True, None], "again": texts}
    assert parse_yaml(dump_yaml(data), "test")[0] == data


def test_any_letter_is_dumped_so_that_it_reads_back_the_same():
    letters = [chr(i) for i in range(0x3000) if not 0xD800 <= i < 0xE000] + ["\ufeff", "\U0001f600"]
    texts = [text for a in letters for text in (a, f"a{a}b", f" {a}\n{a} ", f"{a}: #")]
    assert parse_yaml(dump_yaml(texts[:9_000]), "test")[0] == texts[:9_000]
    ends = ["\r", "\x85", "\u2028", "\u2029", "\ufeff", "\U0001f600", "\ue000", "\uffff"]
    texts = [text for a in ends for text in (a, f"a{a}b", f" {a}\n{a} ", f"{a}: #")]
    assert parse_yaml(dump_yaml(texts), "test")[0] == texts


def test_what_says_nothing_of_the_source_are_all_keys_but_the_split():
    from fewlabels.recipe.sections import Data

    of_the_source = {"split", "train", "test", "query", "gallery"}
    assert set(KEPT) == set(Data.model_fields) - of_the_source


def test_a_recipe_that_extends_itself_or_nothing_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml")
    with pytest.raises(RecipeError, match="extends itself"):
        read_recipe_file(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("seed: 1\nextends: gone.yaml")
    with pytest.raises(RecipeError, match=r"c\.yaml:2: extends: .*gone\.yaml: no such file"):
        read_recipe_file(tmp_path / "c.yaml")


def test_overrides_reach_into_lists_and_make_what_is_missing():
    data = {"losses": [{"name": "x"}], "optimizer": None}
    apply_overrides(
        data, {}, ["losses.0.beta=40", "losses[0].eps=1e-3", "optimizer.lr=.1", "seed=7"]
    )
    assert data == {
        "losses": [{"name": "x", "beta": 40, "eps": 0.001}],
        "optimizer": {"lr": 0.1},
        "seed": 7,
    }


def test_every_override_that_cannot_be_is_reported():
    with pytest.raises(RecipeError) as caught:
        apply_overrides({"losses": []}, {}, ["losses.3.beta=1", "seed"])
    assert len(caught.value.mistakes) == 2
    assert all(m.startswith("command line: ") for m in caught.value.mistakes)


def test_options_of_a_backbone_go_with_it_and_all_else_stays(tmp_path):
    base = {"model": {"backbone": "a", "backbone_options": {"width": 2}, "weights": "w", "size": 8}}
    (tmp_path / "base.yaml").write_text(dump_yaml(base))
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nmodel: {backbone: b}")
    merged, _ = read_recipe_file(tmp_path / "child.yaml")
    assert merged == {"model": {"backbone": "b", "size": 8}}
    for name, wanted in [("b", {"backbone": "b", "size": 8}), ("a", base["model"])]:
        data = {"model": dict(base["model"])}
        apply_overrides(data, {}, [f"model.backbone={name}"])
        assert data["model"] == wanted
    data = {"model": {"weights": "w"}}  # the default backbone, by its name
    apply_overrides(data, {}, ["model.backbone=resnet50"])
    assert data["model"] == {"weights": "w", "backbone": "resnet50"}


def test_a_section_that_is_nothing_is_the_default():
    from fewlabels.recipe.recipe import recipe_from

    recipe = recipe_from({"data": {"source": "digits"}, "losses": "multi_similarity",
                          "weights": None, "name": None})  # fmt: skip
    assert (recipe.weights, recipe.name) == ({}, "recipe")
