"""``fewlabels push`` against a Hub over HTTP."""

import contextlib
import io
import json
import os
import shutil
import time

import numpy as np
import pytest

from fewlabels.cli.main import main
from fewlabels.errors import HubError, RecipeError
from fewlabels.hub import upload as send
from fewlabels.models.load import load_model
from fewlabels.recipe.recipe import load_recipe

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), np.uint8)


def command(*words):
    """The exit code, and what was printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["push", *map(str, words)])
    return code, out.getvalue() + err.getvalue()


def outputs(place):
    model = load_model(place)
    return getattr(model, "encode", getattr(model, "predict", None))(list(IMAGES))


def parsed(place):
    from huggingface_hub import ModelCard

    return ModelCard.load(place).data.to_dict()


@pytest.mark.slow
def test_a_run_is_one_commit_that_loads_and_computes_the_same(hub, client, embedders, tmp_path):
    code, told = client(command, embedders[0], "--seeds", embedders[1], "--repo", "lab/digits")
    assert code == 0, told
    repo = hub.repos["lab/digits"]
    names = ["README.md", "config.json", "metrics.jsonl", "model.safetensors"]
    assert repo.sent == [[*names, "pictures/neighbours.png", "recipe.yaml"]]
    note, address = told.strip().splitlines()
    assert note.startswith("note: pictures/neighbours.png: images of the data are in it")
    assert address == f"{hub.url}/lab/digits/commit/{repo.commits[0][0]}"
    expected = outputs(embedders[0] / "model")
    np.testing.assert_allclose(client(outputs, "lab/digits"), expected, atol=1e-6)
    data = client(parsed, "lab/digits")
    assert data["pipeline_tag"] == "image-feature-extraction"
    assert data["model-index"][0]["results"][0]["dataset"]["name"] == "digits"
    pushed = tmp_path / "recipe.yaml"
    pushed.write_bytes(repo.commits[0][1]["recipe.yaml"])
    assert load_recipe(pushed).hash == load_recipe(embedders[0] / "recipe.yaml").hash


def test_a_classifier_goes_with_its_pictures_and_tells_of_paths(hub, client, classifier):
    code, told = client(command, classifier, "--repo", "lab/shop", "--private")
    assert code == 0, told
    assert hub.repos["lab/shop"].private
    assert "pictures/<i>one.png" in hub.repos["lab/shop"].sent[0]
    assert "note: recipe.yaml says data.path: /" in told
    expected = outputs(classifier / "model")
    np.testing.assert_allclose(client(outputs, "lab/shop"), expected, atol=1e-6)


def test_a_push_is_repeated_after_a_failure_and_sends_nothing_twice(hub, client, embedders):
    words = (embedders[0], "--repo", "lab/late", "--no-pictures")
    hub.fail("POST /api/models/lab/late/commit", 403)
    code, told = client(command, *words)
    assert code == 2
    assert told.startswith("lab/late: the Hub forbids this to your token")
    assert len(told.strip().splitlines()) == 1
    assert not hub.repos["lab/late"].commits
    hub.asked.clear()
    hub.fail("POST /api/models/lab/late/commit", "cut")
    assert client(command, *words)[0] == 0
    assert client(command, *words)[0] == 0
    assert len(hub.repos["lab/late"].commits) == 1
    assert not [line for line in hub.asked if line.startswith("PUT")]


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, client, embedders):
    hub.lose = "POST /api/models/lab/lost/commit"
    assert client(command, embedders[0], "--repo", "lab/lost")[0] == 0
    assert len(hub.repos["lab/lost"].commits) == 1


def test_a_dry_run_tells_names_and_sizes_and_asks_nothing(hub, client, embedders, tmp_path):
    card = tmp_path / "card.md"
    code, told = client(command, embedders[0], "--repo", "lab/dry", "--dry-run", "--card", card)
    assert code == 0
    assert hub.asked == []
    size = (embedders[0] / "model" / "model.safetensors").stat().st_size
    assert f"{size / 1000:.1f} kB  model.safetensors" in told
    for name in ("README.md", "config.json", "recipe.yaml", "metrics.jsonl"):
        assert f"  {name}\n" in told
    assert "in one commit to lab/dry; nothing was sent" in told
    assert f"{len(card.read_bytes()) / 1000:.1f} kB  README.md" in told
    assert 'Embedder.from_pretrained("lab/dry")' in card.read_text("utf-8")
    again = ("--repo", "lab/dry", "--card", card)
    assert client(command, embedders[0], *again, "--dry-run")[0] == 0  # the same card
    card.write_text("mine")
    code, told = client(command, embedders[0], *again)
    assert code == 2
    assert card.read_text() == "mine"
    assert "card.md is there, and may hold a card of yours" in told
    code, told = client(command, embedders[0], "--repo", "lab/dry", "--card", "x" * 300)
    assert code == 2
    assert "cannot be written: File name too long" in told
    assert hub.asked == []


def test_pictures_of_the_data_can_be_left_at_home(hub, client, embedders):
    code, told = client(command, embedders[0], "--repo", "lab/bare", "--no-pictures")
    assert code == 0
    repo = hub.repos["lab/bare"]
    assert not [path for path in repo.sent[0] if path.startswith("pictures")]
    assert b"neighbours" not in repo.commits[0][1]["README.md"]
    assert "note" not in told


def impatient(*words):
    send.PATIENCE = 0.5
    return command(*words)


def test_a_server_that_keeps_silent_is_not_waited_for(hub, client, embedders):
    begin = time.monotonic()
    for place in ("POST /api/repos/create", "POST .*/commit/"):
        hub.fail(place, 30.0)
    code, told = client(impatient, embedders[0], "--repo", "lab/silent")
    assert code == 0, told
    assert len(hub.repos["lab/silent"].commits) == 1
    assert time.monotonic() - begin < 20


def test_the_users_own_client_keeps_its_patience(client):
    assert client(patience_after_a_refusal) == (None, None)


def patience_after_a_refusal():
    from huggingface_hub import get_session

    before = get_session().timeout.read
    with pytest.raises(HubError):
        send.upload_files({"a/../b": b""}, "lab/x", False, "no path")
    return before, get_session().timeout.read


@pytest.fixture
def copied(embedders, tmp_path):
    return shutil.copytree(embedders[0], tmp_path / "run")


def refused(folder, *words):
    code, told = command(folder, "--repo", "lab/x", "--dry-run", *words)
    assert code == 2
    return told


def test_a_run_that_was_given_the_true_labels_is_refused(copied):
    recipe = copied / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("oracle: false", "oracle: true"))
    assert "which is an analysis and no result, so it is not pushed" in refused(copied)


def test_its_stamp_is_enough_where_the_recipe_was_changed_back(copied):
    metrics = copied / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "ORACLE": "true labels"})
    metrics.write_text("\n".join(lines))
    assert "which is an analysis and no result" in refused(copied)


def test_it_cannot_hide_among_the_seeds(copied, embedders):
    recipe = copied / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("oracle: false", "oracle: true"))
    assert "which is an analysis and no result" in refused(embedders[1], "--seeds", str(copied))


def test_the_weights_that_a_run_began_from_need_not_be_here(copied):
    for name, null in (("recipe.yaml", "weights: null"), ("metrics.jsonl", '"weights": null')):
        text = (copied / name).read_text()
        assert null in text
        value = null.replace("null", '"gone/away.pth"')
        (copied / name).write_text(text.replace(null, value))
    code, told = command(copied, "--repo", "lab/x", "--dry-run")
    assert code == 0, told
    with pytest.raises(RecipeError, match="no such file"):  # to run it they must be
        load_recipe(copied / "recipe.yaml")


def test_a_run_whose_recipe_was_edited_is_refused(copied):
    recipe = copied / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 7", 1))
    assert "seed (0 then, 7 now); put it back, or push a run of the edited" in refused(copied)


def test_paths_of_the_beginning_are_told_too(copied):
    metrics = copied / "metrics.jsonl"
    row, *rest = metrics.read_text().splitlines(keepends=True)
    row = json.loads(row)
    row["resolved"]["imports"] = ["/home/me/secret"]
    metrics.write_text("".join([json.dumps(row) + "\n", *rest]))
    _, told = command(copied, "--repo", "lab/x", "--dry-run")
    assert "note: metrics.jsonl says imports: /home/me/secret, which readers of lab/x" in told


def test_metrics_without_what_a_card_says_are_damaged(copied):
    metrics = copied / "metrics.jsonl"
    row, *rest = metrics.read_text().splitlines(keepends=True)
    row = {key: value for key, value in json.loads(row).items() if key != "device"}
    metrics.write_text("".join([json.dumps(row) + "\n", *rest]))
    assert "metrics.jsonl is damaged: a row lacks 'device'" in refused(copied)


def test_a_run_that_has_not_ended_is_refused(copied):
    metrics = copied / "metrics.jsonl"
    metrics.write_text("\n".join(metrics.read_text().splitlines()[:-1]))
    assert f"fewlabels run --resume {copied} goes on with it" in refused(copied)
    metrics.write_text('{"kind": "ru')
    assert "is damaged: it is no row of metrics" in refused(copied)


def test_a_model_that_nobody_could_load_is_refused(copied):
    weights = copied / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "model.safetensors: damaged" in refused(copied)


@pytest.mark.parametrize(
    "name",
    ["pictures", "pictures/neighbours.png", "pictures/more.jpg", "model", "model/config.json",
     "model/model.safetensors", "recipe.yaml", "metrics.jsonl"],
)  # fmt: skip
def test_no_link_sends_a_file_from_elsewhere(copied, hub, client, tmp_path, name):
    place, elsewhere = copied / name, tmp_path / "elsewhere"
    if place.exists():
        shutil.move(place, elsewhere)  # so that the run is whole: the link alone is wrong
    else:
        elsewhere.write_bytes(b"secret")
    place.symlink_to(elsewhere)
    sentence = f"{place} is a link, which could lead to any file of yours, so nothing is sent"
    assert sentence in refused(copied)
    code, told = client(command, copied, "--repo", "lab/links")
    assert (code, sentence in told) == (2, True)
    assert hub.asked == []
    if name.startswith("pictures"):
        assert command(copied, "--repo", "lab/x", "--dry-run", "--no-pictures")[0] == 0


def test_a_link_within_the_run_is_none_of_its_files_either(copied):
    (copied / "pictures" / "ledger.png").symlink_to(copied / "recipe.yaml")
    assert "ledger.png is a link" in refused(copied)


def test_the_run_folder_itself_may_be_called_by_a_link(copied, tmp_path):
    (tmp_path / "newest").symlink_to(copied)
    code, told = command(tmp_path / "newest", "--repo", "lab/x", "--dry-run")
    assert code == 0, told


@pytest.mark.parametrize("name", ["pictures/a.png", "metrics.jsonl"])
def test_a_pipe_in_the_run_is_not_waited_for(copied, embedders, name):
    (copied / name).unlink(missing_ok=True)
    os.mkfifo(copied / name)
    assert f"{name} is no regular file, so nothing is sent" in refused(copied)
    if name == "metrics.jsonl":
        told = refused(embedders[1], "--seeds", copied)
        assert "metrics.jsonl: no regular file, but a pipe" in told
