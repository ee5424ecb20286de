import numpy as np
import pyarrow.parquet as pq
import pytest

from fewlabels.contracts import Discovered, Pool, Records
from fewlabels.training.ledger import write_ledger


def test_every_discovered_sample_is_kept_with_label_score_round_and_truth(tmp_path):
    records = Records(
        [None] * 9, np.array([0, 0, 0, 1, 1, 1, 2, 2, -1]), tuple("abc"), names=list("ABCDEFGHI")
    )
    pool = Pool(np.array([8, 7, 6, 5, 4, 3]), np.zeros((6, 2)), np.full(6, -1), np.zeros(6, bool))
    found = Discovered(
        np.array([0, 1, 3, 4]), np.array([7, 7, 7, 2]), np.array([0.5, 0.6, 0.7, 0.8])
    )
    path = tmp_path / "ledger" / "round-000-kmeans.parquet"
    write_ledger(path, found, pool, records, 0, "kmeans")
    table = pq.read_table(path).to_pydict()
    assert table["row"] == [8, 7, 5, 4]
    assert table["name"] == ["I", "H", "F", "E"]
    assert table["label"] == [7, 7, 7, 2]
    assert table["truth"] == [-1, 2, 1, 1]
    assert table["score"] == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert set(table["discovery"]) == {"kmeans"}
