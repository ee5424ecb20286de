"""The recipes of the tables' rows, and the page that is made of their headers."""

from itertools import groupby

import pytest
from tables import ROOT, TABLES, format_tables, note_costs, read_row, read_rows

from fewlabels.recipe.recipe import load_recipe
from fewlabels.training.round_schedule import RoundSchedule

ROWS = read_rows()
OTHER_LENGTHS = {  # rows whose sources train longer or shorter; the headers say so
    "table_2.4": {"ict"},
    "table_3.3": {"pi_model_cifar10", "pi_model_cifar100", "mean_teacher_cifar10", "mean_teacher_cifar100"},
}  # fmt: skip

IMAGES = {
    "cifar10": 50_000,
    "cifar100": 50_000,
    "svhn": 73_257,
    "cub200": 5_864,
    "cars196": 8_054,
    "sop": 59_551,
    "inshop": 25_882,
}


def count_steps(recipe):
    first = recipe.rounds.discover_every if recipe.discovery else 0
    plan = RoundSchedule(**recipe.rounds.model_dump(), first=first)
    images = IMAGES[recipe.source.name]
    epoch = recipe.rounds.steps_per_epoch or images // recipe.strategy.options["batch"]
    return sum(plan.count_epochs(i) for i in range(plan.total)) * epoch


def flatten(value, key=""):
    if not isinstance(value, (dict, list)) or not value:
        return {key: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for name, each in pairs for k, v in flatten(each, f"{key}.{name}").items()}


def differ(one, two):
    """The keys in which two rows differ."""
    flat = [flatten(load_recipe(TABLES / f"{name}.yaml").resolved) for name in (one, two)]
    keys = {k for k in {**flat[0], **flat[1]} if flat[0].get(k, "-") != flat[1].get(k, "-")}
    return {k.removeprefix(".") for k in keys - {".name"}}


def test_the_committed_page_is_what_headers_and_studies_say():
    committed = (ROOT / "docs" / "tables.md").read_text()
    assert committed == format_tables(), "run: python tests/tables.py"


def test_every_row_says_its_command_and_what_the_text_has():
    assert len(ROWS) > 100
    for row in ROWS:
        where = row.path.relative_to(ROOT).as_posix()
        assert row.command.split()[:5] == ["accelerate", "launch", "-m", "fewlabels.run", where]
        assert row.path.parent.name == f"table_{row.title.split()[1].rstrip(',')}", where
        assert row.cells or "not in the text" in row.title, where
        for cell in row.cells:
            numbers = cell.text.split(", ")
            if cell.measure.startswith("Recall@"):
                ranks = cell.measure.split(", query")[0].split(", all")[0].count(",") + 1
                assert len(numbers) == ranks, where
            assert all(0 < float(number.split(" +- ")[0]) < 100 for number in numbers), where
        for study in row.studies:
            assert (ROOT / "recipes" / study).is_file(), f"{where}: {study}"


@pytest.mark.parametrize("table", sorted({row.path.parent.name for row in ROWS}))
def test_every_column_of_a_table_can_be_loaded_and_rows_take_as_many_steps(table):
    rows = [row for row in ROWS if row.path.parent.name == table]
    loaded = []
    for row in rows:
        for cell in row.cells:
            assert load_recipe(row.path, cell.overrides.split()).data.labels is not None, row.path
        if row.path.stem not in OTHER_LENGTHS.get(table, ()):
            loaded.append(load_recipe(row.path))
    if table == "table_5.1":
        return  # of as many papers as it has rows

    def share(recipe):
        return recipe.source.name, recipe.model.backbone, recipe.data.labels == "none"

    for shared, same in groupby(sorted(loaded, key=share), share):
        assert len({count_steps(recipe) for recipe in same}) == 1, (table, shared)


def test_rows_that_are_compared_differ_by_the_method_alone():
    for data in ("cub", "cars", "sop"):
        own = f"table_4.4/{{}}_{data}"
        found = differ(own.format("baseline"), own.format("ccl"))
        assert {key.split(".")[0] for key in found} == {"losses"}
    sleeping = differ("table_4.4/tac_control_cub", "table_4.4/tac_cub")
    assert {key.split(".")[0] for key in sleeping} == {"weights"}
    for kind in ("supervised", "unsupervised"):
        for data in ("cub", "sop"):
            own = f"table_5.4/{kind}_{{}}_{data}"
            found = differ(own.format("baseline"), own.format("san"))
            assert {key.split(".")[0] for key in found} == {"blocks", "weights", "optimizer"}
            assert not {"optimizer.lr", "optimizer.weight_decay"} & found
    for loss in ("ms", "proxy_anchor"):
        found = differ(f"table_5.5/{loss}", f"table_5.5/{loss}_san")
        assert {key.split(".")[0] for key in found} == {"blocks", "weights", "optimizer"}
    found = differ("table_2.6/mean_teacher_shakeshake26", "table_2.6/snowball_shakeshake26")
    assert {key.split(".")[0] for key in found} == {"strategy", "discovery", "rounds", "weights"}


def test_the_cost_of_every_row_was_rehearsed():
    assert [row.path.name for row in ROWS if not row.cost] == []


def test_costs_of_a_sweep_go_into_the_headers_once(tmp_path, monkeypatch):
    header = '# Table 2.1, row 1, "A".\n# accelerate launch\n# Text (test error): 3.0\n'
    path = tmp_path / "recipes" / "tables" / "table_2.1" / "a.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"{header}data: {{source: digits}}\n")
    monkeypatch.setattr("tables.ROOT", tmp_path)
    done, room = "1,000 steps, 5 images seen, 7 decoded", "1.0 GB memory, 3 MB disk"
    said = f"{done}, 2.0 h here (1 thread; 1.9 h of the processor), {room}"
    for seconds in (3, 40):
        note_costs(
            f"recipes/tables/table_2.1/a.yaml: {said}; rehearsed in {seconds} s\n1 recipes\n"
        )
    row = read_row(path)
    assert row.cost == f"{done}, 1.9 h of one core, {room}"
    assert row.cells[0].text == "3.0"
    assert path.read_text().endswith("# Text (test error): 3.0\ndata: {source: digits}\n")
