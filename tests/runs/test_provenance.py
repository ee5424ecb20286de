"""Recipes whose components come from installed distributions: what is told of them, and when."""

import json

import pytest
from small import DIGITS

from fewlabels.cli.main import main
from fewlabels.models.load import load_model
from fewlabels.recipe.yaml_file import dump_yaml
from fewlabels.runs import card_sections as paragraphs
from fewlabels.runs.finished_run import read_run

THIRDS = """
import numpy as np

from fewlabels.contracts import Discovered, Needs


class Thirds:
    classes = 3

    def __init__(self) -> None: ...

    def needs(self):
        return Needs("student")

    def discover(self, pool, budget, rng):
        free = np.flatnonzero(~pool.given)
        return Discovered(free, free % 3, np.ones(len(free)), merge="replace")
"""
RECIPE = DIGITS | {
    "losses": "multi_similarity",
    "strategy": {"name": "metric", "batch": 20, "per_class": 5},
    "rounds": {"steps_per_epoch": 1},
    "evaluation": {"before": False},
}


@pytest.fixture
def write(tmp_path):
    """A recipe file with these changes."""

    def put(**changes):
        path = tmp_path / "recipe.yaml"
        path.write_text(dump_yaml(RECIPE | changes))
        return str(path)

    return put


def test_results_of_another_version_of_a_plugin_are_not_taken(install, write, tmp_path, capsys):
    install("lab-thirds", {"lab_thirds": THIRDS}, thirds="lab_thirds:Thirds")
    words = ["study", write(discovery="thirds"), "--seeds", "0", "--runs", str(tmp_path / "runs")]
    assert main(words) == 0
    folder = tmp_path / "runs" / "recipe-seed-0"
    metrics = folder / "metrics.jsonl"
    first, *rest = metrics.read_text().splitlines(keepends=True)
    facts = json.loads(first)
    assert facts["plugins"] == {"discovery thirds": "lab-thirds 0.3"}
    assert main(words) == 0
    capsys.readouterr()

    info = tmp_path / "lab-thirds" / "lab_thirds-0.3.dist-info"
    told = info.rename(info.with_name("lab_thirds-0.4.dist-info")) / "METADATA"  # as installers do
    told.write_text(told.read_text().replace("0.3", "0.4"))
    said = f"{folder}: discovery thirds was of lab-thirds 0.3, and is of lab-thirds 0.4 now; "
    assert main(words) == 2
    assert capsys.readouterr().err == f"{said}remove the folder, or choose another --runs\n"
    assert main(["run", "--resume", str(folder)]) == 2
    assert (
        capsys.readouterr().err == f"{said}install the earlier one again, or run the recipe anew\n"
    )
    model = load_model(folder / "model")
    assert "- discovery thirds of lab-thirds 0.3\n" in paragraphs.describe_versions(
        read_run(folder), model
    )
    metrics.write_text("".join([first, *rest])[:-9])  # as if it had been stopped in its last line
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(said)

    del facts["plugins"]  # as a run of an older fewlabels
    metrics.write_text("".join([json.dumps(facts) + "\n", *rest]))
    assert main(words) == 0
    assert "- discovery thirds of lab-thirds 0.4\n" in paragraphs.describe_versions(
        read_run(folder), model
    )
    metrics.write_text("".join([first, *rest]))
    capsys.readouterr()

    told.unlink()  # as uninstalled, and another distribution offers the name now
    (told.parent / "entry_points.txt").unlink()
    install("lab-other", {}, thirds="lab_thirds:Thirds")
    assert main(words) == 2
    assert "0.3, and is of lab-other 0.3 now" in capsys.readouterr().err


BROKEN = """
from torch import nn


class Draw:
    draws = 1

    def __init__(self) -> None: ...


class Plan:
    task = "retrieval"
    supplies = ("embeddings", "labels")

    def __init__(self, *, per_class: int = 5) -> None: ...


class Half:
    classes = 3

    def __init__(self) -> None: ...
    def needs(self): ...
    def discover(self, pool, budget, rng): ...
    def state_dict(self): ...


class Rows:
    default_split = "all"

    def __init__(self) -> None: ...


class Plain:
    def __init__(self) -> None: ...
    def forward(self, embeddings, labels): ...


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()


class Asks:
    def __init__(self) -> None: ...

    @property
    def draws(self):
        return 1 / 0


class Fails:
    def __init__(self) -> None:
        raise OSError("no disk")
"""


@pytest.mark.parametrize(
    ("kind", "place", "sentence"),
    [
        ("views", "Draw", "view 'it' breaks its contract: it has no matrix or colour"),
        ("strategies", "Plan", "it has no deploys, weights, modules, seen_through, start, phases,"),
        ("discovery", "Half", "it has one of state_dict and load_state_dict, which go together"),
        ("sources", "Rows", "source 'it' breaks its contract: it has no load"),
        ("losses", "Plain", "loss 'it' breaks its contract: it is no torch.nn.Module"),
        ("losses", "Block", "loss 'it' breaks its contract: it has no forward"),
        ("blocks", "Block", "block 'it' breaks its contract: it has no forward"),
        ("blocks", "Plain", "block 'it' breaks its contract: it is no torch.nn.Module"),
        ("views", "Fails", "view 'it' failed with OSError: no disk (/"),
        ("views", "Asks", "view 'it' failed with ZeroDivisionError: "),
    ],
)
def test_check_tells_what_a_plugin_lacks(kind, place, sentence, install, write, capsys):
    module = f"lab_{kind}_{place.lower()}"
    install("lab", {module: BROKEN}, kind, it=f"{module}:{place}")
    named = {
        "sources": {"data": {"source": "it"}},
        "strategies": {"strategy": "it"},
        "blocks": {"blocks": {"name": "it", "after": "conv2"}},
    }
    path = write(**named.get(kind, {kind: "it"}))
    assert main(["check", path]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{path}: ")
    assert sentence in told
    assert len(told.splitlines()) == 1


def test_check_tells_of_every_plugin_and_a_run_before_it_reads_images(install, write, capsys):
    install("lab-one", {"lab_draw": BROKEN}, "views", draw="lab_draw:Draw", no="lab_draw:Fails")
    path = write(views=["draw", "no"], data={"source": "folder", "path": "no/such/folder"})
    for command in ("check", "run"):
        assert main([command, path]) == 2
        told = capsys.readouterr().err
        assert "view 'draw' breaks its contract" in told
        assert "view 'no' failed with OSError" in told


WHOLE = """
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from fewlabels.components.views.flip import Flip


class Loss(nn.Module):
    def forward(self, embeddings, labels):
        return embeddings.square().sum()


def make_loss(*, half: bool = False):
    return Loss()


class Sized(nn.Module):
    def __init__(self, classes) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.zeros(classes, 2))

    def forward(self, embeddings, labels):
        return self.proxies.square().sum()


class Around:
    def __init__(self) -> None:
        self.flip = Flip(probability=0.5)

    def __getattr__(self, name):
        return getattr(self.flip, name)


class Property:
    def __init__(self) -> None:
        self.matrix = partial(Flip(probability=0.5).matrix)

    @property
    def draws(self):
        return 1


@dataclass(kw_only=True)
class Field:
    share: float = 0.5
    draws: int = field(init=False, default=1)

    def matrix(self, draws, side):
        return Flip(probability=self.share).matrix(draws, side)
"""


def test_what_is_whole_in_its_own_way_is_not_accused(install, write, tmp_path, capsys):
    loss, view = "lab_whole_losses", "lab_whole_views"
    made = {"made": f"{loss}:make_loss", "sized": f"{loss}:Sized"}
    install("lab-losses", {loss: WHOLE}, "losses", **made)
    names = {name: f"{view}:{name.title()}" for name in ("around", "property", "field")}
    install("lab-views", {view: WHOLE}, "views", **names)
    path = write(losses=list(made), views=list(names))
    assert main(["check", path]) == 0
    assert main(["run", path, "--out", str(tmp_path / "runs")]) == 0
    metrics = tmp_path / "runs" / "recipe" / "metrics.jsonl"
    facts = json.loads(metrics.read_text().partition("\n")[0])
    assert facts["plugins"] == {
        **{f"loss {name}": "lab-losses 0.3" for name in made},
        **{f"view {name}": "lab-views 0.3" for name in names},
    }
