"""The discoveries that come with this package keep what every discovery promises."""

import pytest

from fewlabels.testing import conformance


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path))


@conformance("discovery", "by_prediction")
def test_by_prediction(check):
    check()


@conformance("discovery", "confident")
def test_confident(check):
    check()


@conformance("discovery", "by_prediction", options={"weigh": True})
def test_by_prediction_that_weighs(check):
    check()


@conformance("discovery", "confident", options={"weigh": True, "normalise": False})
def test_confident_that_weighs(check):
    check()


@conformance("discovery", "confident", options={"fusion": "rank", "balance": True})
def test_confident_of_three_models(check):
    check()


@conformance("discovery", "confident", options={"select": "random", "pool_factor": 2})
def test_confident_at_random(check):
    check()


@conformance("discovery", "confined_entropy")
def test_confined_entropy(check):
    check()


@conformance("discovery", "kmeans", options={"clusters": 4})
def test_kmeans(check):
    check()


@conformance(
    "discovery",
    "matching",
    options={"workers": 0, "size": 96},
    exempt={
        "ten_thousand_images_take_less_than_five_seconds": "it looks at the images themselves, "
        "a tenth of a second each; what it has seen of one is kept on disk"
    },
)
def test_matching(check):
    check()
