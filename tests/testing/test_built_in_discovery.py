"""The discoveries that come with this package keep what every discovery promises."""

import numpy as np
import pytest

from fewlabels.contracts import Discovered, Pool, Records
from fewlabels.testing import conformance
from fewlabels.training.ledger import write_ledger


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


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """A ledger of images with the rows that the checks give theirs."""
    rows, labels = 1000 + 3 * np.arange(12_000), np.arange(12_000) % 4
    records = Records([None] * (rows[-1] + 1), np.full(rows[-1] + 1, -1), tuple("abcd"))
    pool = Pool(rows, np.zeros((len(rows), 0)), np.full(len(rows), -1), np.zeros(len(rows), bool))
    found = Discovered(np.arange(len(rows)), labels, np.cos(rows).astype(np.float32))
    write_ledger(tmp_path / "ledger" / "round-001-a.parquet", found, pool, records, 1, "a")
    monkeypatch.setenv("FEWLABELS_DATA", str(tmp_path))


@conformance(
    "discovery",
    "ledger",
    options={"path": "ledger"},
    exempt={"features_that_are_not_finite_are_refused_in_words": "it looks at no features"},
)
def test_ledger(check, ledger):
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
