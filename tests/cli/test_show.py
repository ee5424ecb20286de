"""What a person sees of a saved model."""

import json

import pytest

from fewlabels import Classifier, Embedder
from fewlabels.cli.main import main
from fewlabels.models.fingerprint import fingerprint_model

SMALL = {"image_size": 16, "crop_pct": 0.8, "backbone_options": {"width": 0.25}}


def show(capsys, place, code=0):
    """What is told of a model, line by line, and the error."""
    assert main(["show", str(place)]) == code
    captured = capsys.readouterr()
    told = {line[2:18].strip(): line[18:] for line in captured.out.splitlines()[1:]}
    return captured.out.partition("\n")[0], told, captured.err


def test_an_embedder_is_shown_whole(tmp_path, capsys):
    placed = [{"name": "san", "after": "conv2", "hidden": 8}, {"name": "cbam", "after": "conv3"}]
    model = Embedder("convnet3", embedding_size=8, blocks=placed, **SMALL)
    model.save_pretrained(tmp_path / "m")
    first, told, _ = show(capsys, tmp_path / "m")
    assert first == f"{tmp_path / 'm'}: embedder, format 1"
    assert told == {
        "backbone": "convnet3 {'width': 0.25}",
        "blocks": "san after conv2 {'hidden': 8}; cbam after conv3",
        "plugins": "none",
        "image size": "16 x 16: 80.0% of the shorter side, from the centre, bicubic",
        "normalisation": f"mean {model.statistics['mean']}, standard deviation {model.statistics['std']}",
        "embedding size": "8",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "fingerprint": fingerprint_model(model),
    }


def test_code_that_a_run_kept_is_found(tmp_path, capsys):
    (tmp_path / "run" / "code").mkdir(parents=True)
    (tmp_path / "run" / "code" / "lab_shown.py").touch()
    Embedder("convnet3", **SMALL).save_pretrained(tmp_path / "run" / "model")
    assert main(["show", str(tmp_path / "run" / "model"), "--import", "lab_shown"]) == 0


def test_many_classes_are_abridged_and_none_of_their_names_moves_the_cursor(tmp_path, capsys):
    classes = ["a cat\x1b[2J", *map(str, range(99))]
    Classifier("convnet3", classes=classes, **SMALL).save_pretrained(tmp_path / "m")
    first, told, _ = show(capsys, tmp_path / "m")
    assert first.endswith(": classifier, format 1")
    assert told["classes"] == "100: a cat�[2J, 0, 1, 2, 3, 4, 5, 6 and 92 more"


def test_a_plugin_that_is_missing_is_named_with_all_that_can_be_told(tmp_path, capsys):
    Embedder("convnet3", **SMALL).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    gate = {"kind": "block", "name": "gate", "distribution": "fewlabels-gate", "version": "0.3"}
    config |= {"plugins": [gate], "blocks": [{"name": "gate", "after": "conv2"}]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, told, error = show(capsys, tmp_path, code=2)
    assert told["plugins"] == "block gate of fewlabels-gate 0.3"
    assert "fingerprint" not in told
    assert "pip install fewlabels-gate" in error


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("loss", "show loss: which one? Its name comes behind, as in fewlabels show loss "),
        ("losses", "(fewlabels list losses)"),
        ("multi_similarity", "no model but a loss; fewlabels show loss multi_similarity"),
        ("gone", "gone: no such folder"),
        ("photos", "photos: no config.json; a model is config.json and model.safetensors"),
        ("loss gone", "no loss is called 'gone'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path, capsys, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert main(["show", *words.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


def test_a_folder_called_as_a_component_is_a_model(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Embedder("convnet3", **SMALL).save_pretrained("loss")
    assert show(capsys, "loss")[0] == "loss: embedder, format 1"


def test_a_component_tells_its_source_and_a_line_of_a_recipe(capsys):
    assert main(["show", "loss", "multi_similarity"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("loss multi_similarity: Weights positive and negative pairs")
    [source] = [line for line in told if line.startswith("source: ")]
    assert source.endswith("arXiv 1912.06798.")  # the whole of it, over several lines
    assert "recipe: losses: [{name: multi_similarity, beta: 40}]" in told
