"""A saved model scored at the command line, on data named as a recipe names it."""

import json
import shutil

import numpy as np
import pytest
import torch
from pictures import texture
from run_folders import read_rows
from small import DIGITS

import fewlabels
from fewlabels import Classifier, Embedder
from fewlabels.cli.main import main
from fewlabels.errors import DataError
from fewlabels.runs.evaluate import name_data, renumber_classes

SMALL = {"image_size": 16, "backbone_options": {"width": 0.25}}
SHORT = {
    "strategy": "supervised",
    "rounds": {"steps_per_epoch": 6},
    "evaluation": {"before": False},
}
METRIC = {**SHORT, "strategy": "metric", "losses": "multi_similarity"}


def score(capsys, *words, out=None):
    """What a command printed, and wrote where it was asked to."""
    assert main(["evaluate", *map(str, words), *(["-o", str(out)] if out else [])]) == 0
    return capsys.readouterr().out, json.loads(out.read_text()) if out else None


def rows(run):
    lines = read_rows(run.folder)
    return [row for row in lines if row["kind"] in ("evaluation", "end")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with models, and 40 photos of cats and dogs."""
    root = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    Embedder("convnet3", embedding_size=8, **SMALL).save_pretrained(root / "model")
    Classifier("convnet3", classes=["owl", "dog", "cat"], **SMALL).save_pretrained(root / "kinds")
    Classifier("convnet3", classes=["cat", "fox"], **SMALL).save_pretrained(root / "other")
    Classifier("convnet3", classes=["dog", "cat", "dog"], **SMALL).save_pretrained(root / "twice")
    for i in range(40):
        file = root / "photos" / ("cat", "dog")[i % 2] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        texture(i, 20).save(file)
    shutil.copytree(root / "photos" / "cat", root / "flat")
    return root


def test_an_embedder_of_a_run_has_the_runs_own_scores(tmp_path, capsys):
    searches = ["evaluation.all_against_all=true", "data.query.classes=0-4", "data.gallery={}"]
    run = fewlabels.train({**DIGITS, **METRIC}, searches, out=tmp_path)
    *known, end = rows(run)
    capsys.readouterr()
    printed, found = score(capsys, run.folder / "model", out=tmp_path / "scores.json")
    assert [row["search"] for row in found["scores"]] == [row["search"] for row in known]
    for own, row in zip(known, found["scores"], strict=True):
        assert {k: own[k] for k in row} == row
        assert f"{100 * own['map@r']:.2f}" in printed
    assert found["scores"][0]["recall@1"] == end["score"]
    assert "digits, split official: 597 images of 10 classes" in printed
    named = ["--data", run.folder / "recipe.yaml", "evaluation.ks=[1,10]"]
    _, found = score(capsys, run.folder / "model", *named, out=tmp_path / "again.json")
    assert found["scores"][0]["recall@1"] == end["score"]
    assert "recall@10" in found["scores"][0]


def test_a_classifier_of_a_run_has_the_runs_own_error(tmp_path, capsys):
    data = {"source": "digits", "split": "all", "labels": 50, "validation": 20}
    run = fewlabels.train({**DIGITS, **SHORT, "data": data, "discovery": None}, out=tmp_path)
    *_, last, end = rows(run)
    capsys.readouterr()
    printed, found = score(capsys, run.folder / "model", out=tmp_path / "scores.json")
    assert found["scores"][0]["error"] == last["error"] == end["score"]
    assert found["scores"][0]["validation_error"] == last["validation_error"]
    assert found["images"] == 1797 - 50  # those that people labelled are not tested
    assert f"{100 * end['score']:.2f}" in printed
    assert f"{100 - 100 * end['score']:.2f}" in printed


def test_a_run_is_scored_without_the_weights_that_it_began_with(tmp_path, capsys):
    from fewlabels.models.backbone import make_backbone

    torch.save(make_backbone("convnet3", options={"width": 0.25}).state_dict(), tmp_path / "w.pt")
    model = {"model": {**DIGITS["model"], **SMALL, "weights": str(tmp_path / "w.pt")}}
    run = fewlabels.train({**DIGITS, **METRIC, **model}, out=tmp_path / "runs")
    (tmp_path / "w.pt").unlink()
    capsys.readouterr()
    printed, _ = score(capsys, run.folder / "model")
    assert f"{100 * rows(run)[-1]['score']:.2f}" in printed


def test_a_run_that_was_given_every_label_has_nothing_to_be_scored_on(tmp_path, capsys):
    every = {"data": {"source": "digits", "split": "all", "labels": "all"}, "discovery": None}
    run = fewlabels.train({**DIGITS, **SHORT, **every}, out=tmp_path)
    capsys.readouterr()
    assert main(["evaluate", str(run.folder / "model")]) == 2
    error = capsys.readouterr().err
    assert "the 1797 test images of known classes are those that people labelled" in error
    assert "test on others (data.test, or evaluate --data)" in error


def test_a_name_on_the_hub_is_not_taken_for_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "recipe.yaml").write_text("strategy: supervised")
    with pytest.raises(DataError, match="lab/model lies in no run folder"):
        name_data("lab/model", None, [])


def test_labels_are_found_by_the_names_of_the_classes(place, tmp_path, capsys):
    classifier = Classifier.from_pretrained(place / "kinds")
    files = sorted((place / "photos").rglob("*.png"))
    first = classifier.predict(files).argmax(1)
    wrong = np.mean([classifier.classes[c] != file.parent.name for c, file in zip(first, files)])
    assert 0 < wrong < 1
    out = tmp_path / "scores.json"
    _, found = score(capsys, place / "kinds", "--data", place / "photos", out=out)
    assert found["scores"][0]["error"] == pytest.approx(wrong)
    assert (found["images"], found["classes"], found["image_size"]) == (40, 2, 16)


def test_classes_are_one_where_they_differ_by_blanks_or_the_form_of_unicode():
    known = ["cafe\u0301", "cat "]  # of a model of before
    found = renumber_classes(np.array([1, 0, -1]), np.arange(3), ["caf\u00e9", "cat"], known)
    assert found.tolist() == [1, 0, -1]


def test_data_has_one_meaning_however_it_is_named(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    path = place / "photos"
    printed, _ = score(capsys, "model", "--data", "photos")
    assert "folder, split all: 40 images of 2 classes" in printed
    same = [
        ["data.path=photos", "data.source=folder"],
        ["--data", "folder", f"data.path={path}"],
        ["data.split=all", "--data", "photos"],
    ]
    for words in same:
        assert score(capsys, "model", *words)[0] == printed
    (place / "mine.yaml").write_text(
        "data: {source: folder, path: photos}\nlosses: multi_similarity\n"
    )
    assert score(capsys, "model", "--data", "mine.yaml")[0] == printed


def test_a_query_that_has_nothing_to_find_is_told(place, tmp_path, capsys):
    shutil.copytree(place / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "owl").mkdir()
    texture(77, 20).save(tmp_path / "photos" / "owl" / "a.png")
    printed, _ = score(capsys, place / "model", "--data", tmp_path / "photos")
    assert "1 query has nothing to find" in printed


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("gone --data photos", "gone: no such folder"),
        ("model", "model lies in no run folder, on whose data it could be scored; add --data"),
        ("model --data fotos", "--data fotos: no folder at fotos or "),
        ("model --data cub20", "no source is called so; did you mean 'cub200'?"),
        ("model --data gone.yaml", "gone.yaml: no such file"),
        ("model --data photos data.pth=x", "command line: data.pth: unknown key; did you mean 'path'?"),
        ("model --data photos x", "command line: 'x': expected key=value"),
        ("model --data photos data.split=official", "this source has no official split"),
        ("model --data flat", "nothing can be scored: no test images of known classes"),
        ("kinds --data flat", "nothing can be scored: no test images of known classes"),
        ("other --data photos", "the model does not know these classes of the data: dog (it knows cat, fox)"),
        ("twice --data photos", "two of the model's classes have one name"),
        ("model --data photos -o flat", "flat is there, and may hold something of yours"),
        ("model --data photos -o model/config.json/x", "model/config.json is no folder that you may write to"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_code_2(place, capsys, monkeypatch, command, sentence):
    monkeypatch.chdir(place)
    assert main(["evaluate", *command.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
