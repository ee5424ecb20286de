"""The Hub's real client, in front of a small Hub of ours."""

import pytest
from hub_client import started
from hub_server import Hub
from pictures import texture

import fewlabels


@pytest.fixture(scope="session")
def server():
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def hub(server):
    """The Hub without repositories, faults or a memory of what was asked."""
    for kept in (server.repos, server.stored, server.faults, server.asked):
        kept.clear()
    return server


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("hf")


@pytest.fixture(scope="session")
def client(server, cache):
    with started(server.url, cache) as call:
        yield call


EMBEDDER = {
    "data": {"source": "digits", "warp": True},
    "model": {
        "backbone": "convnet3",
        "backbone_options": {"width": 0.25},
        "embedding_size": 8,
        "image_size": 16,
    },
    "strategy": {"name": "metric", "batch": 60, "per_class": 5, "views": 1},
    "discovery": {"name": "kmeans", "clusters": 10},
    "losses": ["multi_similarity"],
    "rounds": {"steps_per_epoch": 2},
    "evaluation": {"ks": [1, 2]},
}
HOSTILE_NAMES = ["<img src=x onerror=alert(1)>", "[here](javascript:alert) `", "a|b\n# c\n```\n$x"]


@pytest.fixture(scope="session")
def embedders(tmp_path_factory):
    """Run folders of one recipe under two seeds."""
    out = tmp_path_factory.mktemp("runs")
    return [
        fewlabels.train(EMBEDDER, [f"name=digits-{seed}", f"seed={seed}"], out=out).folder
        for seed in (0, 1)
    ]


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """A run folder of a classifier whose classes have names that no page should trust."""
    photos = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(HOSTILE_NAMES):
        (photos / name).mkdir()
        for i in range(8):
            texture(10 * number + i, 24).save(photos / name / f"<b>{i}.png")
    recipe = {
        "data": {"source": "folder", "path": photos, "labels": 6},
        "model": {**EMBEDDER["model"], "embedding_size": None},
        "strategy": {"name": "snowball", "labelled": 3, "batch": 3},
        "discovery": "confident",
        "rounds": {"rounds": 2, "steps_per_epoch": 2},
    }
    run = fewlabels.train(recipe, ["name=shop"], out=tmp_path_factory.mktemp("runs"))
    (run.folder / "pictures").mkdir()
    texture(0, 24).save(run.folder / "pictures" / "<i>one.png")
    return run.folder
