"""Models pushed to a Hub and loaded from it, by the real client over HTTP."""

import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_client import started
from safetensors.torch import load, save

from fewlabels.errors import FewLabelsError
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder
from fewlabels.models.load import load_model

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
CBAM = {"name": "cbam", "after": "conv2"}


def embedder(seed=0):
    torch.manual_seed(seed)
    return Embedder("convnet3", embedding_size=8, image_size=32, blocks=[CBAM])


def files_of(model, folder):
    """What a repository of the model holds."""
    model.save_pretrained(folder)
    return {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return files_of(embedder(), tmp_path_factory.mktemp("saved"))


# ------------------------------------------------------- in the client's process


def push_both():
    model = embedder()
    torch.manual_seed(0)
    classifier = Classifier("convnet3", classes=["cat", "<b>dog</b>"], image_size=32)
    addresses = [model.push_to_hub("lab/embedder"), classifier.push_to_hub("lab/classifier")]
    return addresses, model.encode(list(IMAGES)), classifier.predict(list(IMAGES))


def encode(place, revision=None):
    return Embedder.from_pretrained(place, revision=revision).encode(list(IMAGES))


def predict(place):
    model = load_model(place)
    return model.classes, model.predict(list(IMAGES))


def card_of(place):
    from huggingface_hub import ModelCard

    card = ModelCard.load(place)
    return card.data.to_dict(), card.text


def mistake(place, revision=None, load=load_model):
    """The sentence that loading ends with, and whether it is one."""
    try:
        load(place, revision=revision)
    except FewLabelsError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def push_mistake(repo, private=False):
    try:
        embedder().push_to_hub(repo, private=private)
    except FewLabelsError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


# ------------------------------------------------------------------ what works


def test_a_pushed_model_loads_by_its_name_and_computes_the_same(hub, client):
    addresses, vectors, probabilities = client(push_both)
    assert addresses[0].startswith(f"{hub.url}/lab/embedder/commit/")
    repo = hub.repos["lab/embedder"]
    assert repo.sent == [["README.md", "config.json", "model.safetensors"]]  # one commit
    np.testing.assert_allclose(client(encode, "lab/embedder"), vectors, atol=1e-6)
    classes, again = client(predict, "lab/classifier")
    assert classes == ("cat", "<b>dog</b>")
    np.testing.assert_allclose(again, probabilities, atol=1e-6)
    data, text = client(card_of, "lab/embedder")
    assert data["pipeline_tag"] == "image-feature-extraction"
    assert data["library_name"] == "fewlabels"
    assert 'Embedder.from_pretrained("lab/embedder")' in text
    assert client(card_of, "lab/classifier")[0]["pipeline_tag"] == "image-classification"


def test_a_revision_is_the_model_of_that_commit(hub, client, tmp_path, saved):
    first = hub.add("lab/two", saved)
    hub.add("lab/two", files_of(embedder(seed=1), tmp_path))
    old, new = client(encode, "lab/two", first), client(encode, "lab/two")
    np.testing.assert_allclose(old, embedder().encode(list(IMAGES)), atol=1e-6)
    np.testing.assert_allclose(new, embedder(seed=1).encode(list(IMAGES)), atol=1e-6)
    assert "lab/two has no revision 'v9'" in client(mistake, "lab/two", "v9")


def test_only_the_three_files_of_a_model_are_downloaded(hub, client, cache, saved):
    hub.add("lab/more", {**saved, "modeling.py": b"1 / 0", "pytorch_model.bin": b"x"})
    client(encode, "lab/more")
    got = {line.rpartition("/")[2] for line in hub.asked if "/resolve/" in line}
    assert got == {"config.json", "model.safetensors"}


def test_a_folder_goes_before_a_repository_of_its_name(hub, client, tmp_path, saved):
    files_of(embedder(seed=1), tmp_path)
    np.testing.assert_allclose(
        client(encode, str(tmp_path)), embedder(seed=1).encode(list(IMAGES)), atol=1e-6
    )
    assert hub.asked == []
    assert "which has no revisions" in client(mistake, str(tmp_path), "main")


def test_without_a_network_a_model_that_was_loaded_before_still_loads(hub, client, cache, saved):
    hub.add("lab/warm", saved)
    expected = client(encode, "lab/warm")
    nowhere = "http://127.0.0.1:9"  # nothing listens there
    with started(nowhere, cache) as alone:
        np.testing.assert_array_equal(alone(encode, "lab/warm"), expected)
        told = alone(mistake, "lab/cold")
        assert told.startswith(f"HubError: lab/cold: {nowhere} cannot be reached")
        assert f"no folder {alone(os.getcwd)}/lab/cold either" in told
    with started(nowhere, cache, HF_HUB_OFFLINE="1") as offline:
        np.testing.assert_array_equal(offline(encode, "lab/warm"), expected)
        told = offline(mistake, "lab/cold")
        assert "HF_HUB_OFFLINE is set, and main is not whole in the cache" in told
        assert "HF_HUB_OFFLINE is set" in offline(push_mistake, "lab/cold")


# ------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ((401, {"X_Error_Code": "RepoNotFound"}), "no such repository on the Hub, or a private"),
        (
            (401, {"X_Error_Message": "Invalid credentials in Authorization header"}),
            "the Hub wants a token, and one that it knows; log in by `hf auth login`",
        ),
        (
            (403, {"X_Error_Code": "GatedRepo"}),
            "is gated: ask for access at {url}/lab/refused, then log in",
        ),
        ((403, {}), "the Hub forbids this to your token"),
        ((404, {"X_Error_Code": "RepoNotFound"}), "no folder {here}/lab/refused either"),
        ((429, {}), "asked too often"),
        ((418, {}), "the Hub refuses (418)"),
    ],
)
def test_a_refusal_is_one_sentence_with_its_fix(hub, client, saved, fault, sentence):
    hub.add("lab/refused", saved)
    hub.fail("GET /api/models/lab/refused", fault, times=9)
    told = client(mistake, "lab/refused")
    assert told.startswith("HubError: lab/refused")
    assert sentence.format(url=hub.url, here=client(os.getcwd)) in told
    assert len(told.splitlines()) == 1


def test_a_missing_repository_says_what_was_looked_for_on_both_sides(hub, client):
    told = client(mistake, "runs/quickstart")
    assert "runs/quickstart: no such repository on the Hub" in told
    assert f"no folder {client(os.getcwd)}/runs/quickstart either" in told
    told = client(mistake, "runs/x/model")
    assert f"no such folder (looked for {client(os.getcwd)}/runs/x/model)" in told
    assert "no name on the Hub, which reads org/name" in told


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("GET /api/models/", 500),
        ("GET /api/models/", "cut"),
        ("HEAD .*config.json", 503),
        ("GET .*/resolve/.*model.safetensors", "cut"),
        ("GET .*/resolve/.*model.safetensors", 500),
    ],
)
def test_an_error_that_passes_is_waited_for(hub, client, saved, place, fault):
    repo = f"lab/shaky{len(place)}{fault}"  # one that is not in the cache yet
    hub.add(repo, saved)
    hub.fail(place, fault)
    np.testing.assert_allclose(client(encode, repo), embedder().encode(list(IMAGES)), atol=1e-6)
    assert hub.faults == []


def test_a_model_in_the_cache_does_for_a_hub_that_is_away_but_not_for_one_that_refuses(
    hub, client, saved
):
    commit = hub.add("lab/kept", saved)
    client(encode, "lab/kept")
    for fault in (500, 429, "cut"):
        hub.fail("GET /api/models/lab/kept", fault)
        assert client(mistake, "lab/kept") == "none"
    hub.fail("GET /api/models/lab/kept", (403, {"X_Error_Code": "GatedRepo"}))
    assert "lab/kept is gated" in client(mistake, "lab/kept")
    hub.asked.clear()
    assert client(mistake, "lab/kept", commit) == "none"
    assert hub.asked == []  # a commit cannot have changed


def test_an_error_that_stays_is_a_sentence(hub, client):
    hub.fail("GET /api/models/lab/down", 500, times=3)
    assert "lab/down: the Hub has an error of its own (500); try again" in client(
        mistake, "lab/down"
    )
    hub.fail("GET /api/models/lab/cut", "cut", times=3)
    assert "or the line was cut" in client(mistake, "lab/cut")


def test_a_hub_that_does_not_answer_is_a_sentence(hub, client):
    hub.fail("GET /api/models/lab/slow", 20.0, times=3)
    assert "does not answer in time; try again, or give it longer by HF_HUB_ETAG_TIMEOUT" in client(
        mistake, "lab/slow"
    )


# ------------------------------------------------------------------ pushing


def test_a_push_that_broke_goes_on_and_sends_nothing_twice(hub, client):
    hub.fail("POST /api/models/lab/again/commit", 403)
    assert "the Hub forbids this to your token" in client(push_mistake, "lab/again")
    assert [line for line in hub.asked if line.startswith("PUT")] != []
    hub.asked.clear()
    hub.fail("POST /api/models/lab/again/commit", 500)  # one that passes
    assert client(push_mistake, "lab/again") == "none"
    assert [line for line in hub.asked if line.startswith("PUT")] == []
    assert client(push_mistake, "lab/again") == "none"  # unchanged: no commit
    assert len(hub.repos["lab/again"].commits) == 1


def test_a_push_meant_to_be_private_never_lands_in_a_public_repository(hub, client, saved):
    assert client(push_mistake, "lab/hidden", True) == "none"
    assert hub.repos["lab/hidden"].private
    hub.add("lab/open", saved)
    assert "is there already, and public" in client(push_mistake, "lab/open", True)
    assert len(hub.repos["lab/open"].commits) == 1


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("POST /api/repos/create", 500),
        ("POST /api/validate-yaml", "cut"),
        ("POST .*/preupload/", 503),
        ("POST .*/objects/batch", 500),
        ("PUT /lfs/", 500),
    ],
)
def test_an_error_that_passes_does_not_stop_a_push(hub, client, place, fault):
    hub.fail(place, fault)
    assert client(push_mistake, "lab/rough") == "none"
    assert hub.faults == []
    assert len(hub.repos["lab/rough"].commits) == 1


def test_a_push_without_a_right_to_it_is_a_sentence(hub, client):
    hub.fail("POST /api/repos/create", 401)
    assert "the Hub wants a token, and one that it knows" in client(push_mistake, "lab/mine")
    hub.fail("POST .*/preupload/", 403)
    assert "the Hub forbids this to your token" in client(push_mistake, "lab/mine")
    assert not hub.repos["lab/mine"].commits


def test_a_name_that_is_none_is_refused_before_anything_is_sent(hub, client):
    assert "'lab/a/b' is no name on the Hub; write org/name" in client(push_mistake, "lab/a/b")
    assert "cannot be a name on the Hub" in client(push_mistake, "lab/a..b")
    assert hub.asked == []


# ------------------------------------------------------------------ hostile repositories


class Intruder:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path(self.mark).touch, ())


def config(saved, **changes):
    return {**saved, "config.json": json.dumps(json.loads(saved["config.json"]) | changes).encode()}


def weights(saved, change):
    state = load(saved["model.safetensors"])
    change(state)
    return {**saved, "model.safetensors": save(state)}


def pickled(mark):
    file = io.BytesIO()
    torch.save({"x": Intruder(mark)}, file)
    return {"pytorch_model.bin": file.getvalue(), "model.pkl": pickle.dumps(Intruder(mark))}


HOSTILE = {
    "pickle only": (
        lambda saved, mark: {"config.json": saved["config.json"], **pickled(mark)},
        "no model.safetensors; model.pkl is pickled, can run code and is not read",
    ),
    "no model": (lambda saved, mark: {"README.md": b"x"}, "no config.json"),
    "pickle named safetensors": (
        lambda saved, mark: {**saved, "model.safetensors": pickled(mark)["model.pkl"]},
        "model.safetensors: damaged",
    ),
    "a module": (
        lambda saved, mark: config(saved, backbone="os.system"),
        "neither timm nor a plugin has a backbone called 'os.system'",
    ),
    "a function": (
        lambda saved, mark: config(saved, backbone="intruder:run"),
        "'intruder:run' is no registered name",
    ),
    "a block by path": (
        lambda saved, mark: config(saved, blocks=[{"name": "../intruder.py", "after": "conv1"}]),
        "'../intruder.py' is no registered name",
    ),
    "a block by module": (
        lambda saved, mark: config(saved, blocks=[{"name": "os:system", "after": "conv1"}]),
        "no block is called 'os:system'",
    ),
    "a block at a path": (
        lambda saved, mark: config(saved, blocks=[{"name": "cbam", "after": "__class__"}]),
        "the backbone has no module '__class__'",
    ),
    "auto_map": (
        lambda saved, mark: config(saved, auto_map={"AutoModel": "modeling.Intruder"}),
        "auto_map: unknown key",
    ),
    "a file to read": (
        lambda saved, mark: config(saved, backbone_options={"checkpoint_path": "/etc/passwd"}),
        "checkpoint_path cannot be set there",
    ),
    "options of a wrong kind": (
        lambda saved, mark: config(saved, backbone_options={"width": [1]}),
        "lab/hostile/config.json: ",
    ),
    "deep": (
        lambda saved, mark: {**saved, "config.json": b"[" * 100_000},
        "config.json: not JSON",
    ),
    "another library's": (
        lambda saved, mark: {**saved, "config.json": b'{"model_type": "vit"}'},
        "no format number, so fewlabels did not write this",
    ),
    "from the future": (
        lambda saved, mark: config(saved, format=9),
        "format 9 is newer than this fewlabels reads (1); pip install --upgrade fewlabels",
    ),
    "a plugin": (
        lambda saved, mark: config(
            saved,
            plugins=[
                {"kind": "block", "name": "gem", "distribution": "fewlabels-gem", "version": "0.2"}
            ],
        ),
        "block 'gem' is of fewlabels-gem 0.2, which is not installed; pip install fewlabels-gem",
    ),
    "a plugin with more to say": (
        lambda saved, mark: config(
            saved, plugins=[{"kind": "block", "name": "gem", "distribution": "x; rm -rf ~"}]
        ),
        "'x; rm -rf ~' is no registered name",
    ),
    "other shapes": (
        lambda saved, mark: weights(saved, lambda s: s.update({"head.bias": torch.zeros(3)})),
        "head.bias (3,) for (8,)",
    ),
    "more keys": (
        lambda saved, mark: weights(saved, lambda s: s.update(more=torch.zeros(3))),
        "more not expected",
    ),
    "fewer keys": (
        lambda saved, mark: weights(saved, lambda s: s.pop("head.bias")),
        "head.bias missing",
    ),
    "cut off": (
        lambda saved, mark: {**saved, "model.safetensors": saved["model.safetensors"][:-100]},
        "model.safetensors: damaged",
    ),
    "long header": (
        lambda saved, mark: {**saved, "model.safetensors": b"\xff" * 64},
        "model.safetensors: damaged",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_repository_is_a_sentence_and_runs_nothing(hub, client, saved, tmp_path, kind):
    make, sentence = HOSTILE[kind]
    mark = tmp_path / "intruded"
    code = f"open({str(mark)!r}, 'w')".encode()
    more = dict.fromkeys(("intruder.py", "modeling.py", "__init__.py", "setup.py"), code)
    page = b"<script>alert(1)</script>"
    hub.add("lab/hostile", {"README.md": page, **make(saved, str(mark)), **more})
    told = client(mistake, "lab/hostile")
    assert told.startswith("ModelError: lab/hostile")
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert not mark.exists()


def test_a_page_with_html_beside_a_good_model_changes_nothing(hub, client, saved):
    hub.add("lab/page", {**saved, "README.md": b"---\n!!python/object:os.system x\n---\n<script>"})
    assert client(mistake, "lab/page") == "none"
