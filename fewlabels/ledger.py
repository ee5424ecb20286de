"""The ledger: which sample got which label, in which round, by what, how sure, and the truth."""

from __future__ import annotations

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
    classes: bool = False,
) -> dict[str, float]:
    """Write one discovery as parquet and sum it up.

    Columns: ``row`` (of the data set), ``name``, ``label``, ``score``, ``round``, ``discovery``,
    ``truth`` (-1: unknown). For discoveries that label by class, ``truth`` is what ``label`` should
    be; cluster numbers mean nothing by themselves. Truth goes into this file, never into training.

    Args:
        classes: whether labels are numbers of the data set's classes.

    Returns:
        ``discovered`` and, where truth is known, ``wrong``: the share of labels that are not the
        true class; or, for numbers of clusters, ``purity``: the share of samples that belong to the
        most frequent true class of their label.
    """
    rows = pool.rows[found.indices]
    truth = records.truth[rows]
    names = (
        [str(records.names[int(r)]) for r in rows] if len(records.names) else [str(r) for r in rows]
    )
    table = pa.table(
        {
            "row": rows.astype(np.int64),
            "name": names,
            "label": found.labels.astype(np.int64),
            "score": found.scores.astype(np.float32),
            "round": np.full(len(rows), round, np.int32),
            "discovery": pa.array([by] * len(rows)).dictionary_encode(),
            "truth": truth.astype(np.int64),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    summary = {"discovered": float(len(rows))}
    known = truth >= 0
    if known.any() and classes:
        summary["wrong"] = float((found.labels != truth)[known].mean())
    elif known.any():
        counts = np.zeros((found.labels.max() + 1, truth.max() + 1), np.int64)
        np.add.at(counts, (found.labels[known], truth[known]), 1)
        summary["purity"] = float(counts.max(1).sum() / known.sum())
    return summary
