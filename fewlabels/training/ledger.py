"""The ledger: which discovery gave which sample which label, when, how surely, and the truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fewlabels.contracts import Discovered, Pool, Records


def write_ledger(
    path: Path,
    found: Discovered,
    pool: Pool,
    records: Records,
    round: int,
    by: str,
) -> None:
    """Write one discovery as parquet.

    Columns: ``row`` (of the data set), ``name``, ``label``, ``score``, ``weight``, ``round``,
    ``discovery``, ``truth`` (-1: unknown). For discoveries that label by class, ``truth`` is what
    ``label`` should be; cluster numbers mean nothing by themselves. The truth in this file never
    enters training. ``weight`` is what the label counts in the loss, 1 where a discovery does not
    weigh; like ``label`` it is the discovery's, also in a run that trains on the true labels.

    The file's metadata have ``classes``, the names of the classes, and ``anew``: whether labels
    that were discovered before count no more.
    """
    rows = pool.rows[found.indices]
    truth = records.truth[rows]
    weights = np.ones(len(rows)) if found.weights is None else found.weights
    names = (
        [str(records.names[int(r)]) for r in rows] if len(records.names) else [str(r) for r in rows]
    )
    table = pa.table(
        {
            "row": rows.astype(np.int64),
            "name": names,
            "label": found.labels.astype(np.int64),
            "score": found.scores.astype(np.float32),
            "weight": weights.astype(np.float32),
            "round": np.full(len(rows), round, np.int32),
            "discovery": pa.array([by] * len(rows)).dictionary_encode(),
            "truth": truth.astype(np.int64),
        }
    )
    anew = found.merge == "replace" or not ((pool.labels >= 0) & ~pool.given).any()
    notes = {"classes": json.dumps(list(records.classes)), "anew": json.dumps(bool(anew))}
    table = table.replace_schema_metadata(notes)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
