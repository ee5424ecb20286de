"""An index or embeddings from a stranger cost no more time or memory than their size lets expect."""

import io
import json
import os
import resource
import signal
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewlabels import Index
from fewlabels.errors import DataError, FewLabelsError, ModelError
from fewlabels.search.embeddings_file import Stamp, add_stamp, read_embeddings, write_embeddings


@contextmanager
def limits(memory=500_000_000, seconds=20):
    """Ends what hangs, and what takes this many bytes more than it began with."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)

    def end(*_):
        raise AssertionError("it hangs")

    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, before[1]))
    previous = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def saved(tmp_path):
    rows = np.random.default_rng(0).normal(size=(1100, 4))
    Index.from_embeddings(rows, kind="ivf_pq").save(tmp_path / "index")
    return tmp_path / "index"


FILES = ["config.json", "ids-1.json", "vectors-1.npy", "ivf_pq-1.npz"]


def make_pipe(file):
    file.unlink()
    os.mkfifo(file)


def lead_to_zeros(file):
    file.unlink()
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [make_pipe, lead_to_zeros])
def test_a_pipe_or_a_device_is_not_waited_for(saved, name, harm):
    harm(saved / name)
    sentence = "no index here" if name == "config.json" else f"{name}: no regular file"
    with limits(), pytest.raises(ModelError, match=sentence):
        Index.load(saved)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_file_that_is_far_too_large_is_not_read(saved, name):
    os.truncate(saved / name, 200_000_000_000)  # of which nothing lies on the disk
    with limits(), pytest.raises(ModelError, match=name):
        Index.load(saved)


def test_vectors_are_as_many_bytes_as_they_should_be(saved):
    with (saved / "vectors-1.npy").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelError, match=r"vectors-1\.npy: damaged: 17,732 bytes, not 17,728"):
        Index.load(saved)


def packed(file, changed):
    """Writes the arrays of a file anew, with members of other bytes among them."""
    with np.load(file) as arrays:
        members = {}
        for name, array in arrays.items():
            np.save(draft := io.BytesIO(), array)
            members[name] = [draft.getvalue()]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, pieces in {**members, **changed}.items():
            with out.open(f"{name}.npy", "w", force_zip64=True) as member:
                for piece in pieces:
                    member.write(piece)


def header(shape, dtype="<f4", write=np.lib.format.write_array_header_1_0):
    out = io.BytesIO()
    write(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue()


ZEROS = [bytes(2**20)] * 256
MANY = 2**24


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        ({"centres": [header((MANY, 4)), *ZEROS]}, "does not fit the vectors"),
        ({"books": [header((1, 256, MANY // 64)), *ZEROS]}, "does not fit the vectors"),
        ({"codes": [header((1000, 2**18), "|u1"), *ZEROS]}, "does not fit the vectors"),
        ({"codes": [header((2**62, 2**62), "|u1")]}, "does not fit the vectors"),
        ({"lists": [b"\x93NUMPY\x02\x00\xff\xff\xff\x1f", *ZEROS]}, "another version than 1.0"),
        ({"lists": [header((1100,), "<f8"), bytes(8800)]}, "float64, not int64"),
        ({"lists": [header((1100,), "<i8")]}, "cannot be read"),
    ],
)  # fmt: skip
def test_what_unpacks_to_gigabytes_is_not_unpacked(saved, member, sentence):
    packed(saved / "ivf_pq-1.npz", {})
    assert len(Index.load(saved)) == 1100  # packed, which is no harm
    packed(saved / "ivf_pq-1.npz", member)
    assert (saved / "ivf_pq-1.npz").stat().st_size < 1_000_000
    with limits(memory=100_000_000), pytest.raises(ModelError, match=sentence):
        Index.load(saved)


def test_a_config_of_a_size_that_no_file_has_is_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    for change in ({"images": 10**30}, {"embedding_size": 10**12}, {"trained": 10**20}):
        (saved / "config.json").write_text(json.dumps(config | change))
        with limits(), pytest.raises(ModelError, match=r"vectors-1\.npy|ivf_pq-1\.npz"):
            Index.load(saved)


def test_ids_that_could_not_be_loaded_are_not_saved(tmp_path):
    index = Index.from_embeddings(np.eye(2), ["a" * 9000, "b"])
    with pytest.raises(DataError, match="too long to be read again; give ids of at most 4,096"):
        index.save(tmp_path / "index")
    assert not (tmp_path / "index").exists()
    Index.from_embeddings(np.eye(2), ["a" * 7000, "b"]).save(tmp_path / "index")
    assert Index.load(tmp_path / "index").ids == ["a" * 7000, "b"]


def test_saving_into_a_strangers_folder_writes_through_no_link(saved, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    for name in ("config.json.part", "vectors-2.npy", "ids-2.json", "ivf_pq-2.npz"):
        (saved / name).symlink_to(mine)
    index = Index.load(saved)
    index.add(np.eye(4), [*"abcd"])
    index.save(saved)
    assert mine.read_text() == "mine"
    assert len(Index.load(saved)) == 1104


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000])
def test_a_name_that_no_folder_can_have_is_told(name):
    with pytest.raises(FewLabelsError, match="holds a NUL|cannot be written: File name too long"):
        Index.from_embeddings(np.eye(2), ["a", "b"]).save(name)
    with pytest.raises(ModelError, match="no index here"):
        Index.load(name)


def test_embeddings_of_any_size_keep_their_directions():
    rows = np.array([[3e200, 4e200], [3e-200, 4e-200], [5e-324, 0], [0, 0], [3, 4]])
    found = Index.from_embeddings(rows).vectors
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.6, 0.8], [1, 0], [0, 0], [0.6, 0.8]], 1e-6)


# ------------------------------------------------------------------------ embeddings

STAMP = Stamp(model="m", files="f", shard=1)


def test_embeddings_that_are_a_pipe_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "e.parquet")
    with limits(), pytest.raises(DataError, match="no file of embeddings"):
        read_embeddings(tmp_path / "e.parquet")


def test_embeddings_that_unpack_to_gigabytes_are_not_unpacked(tmp_path):
    rows = 500_000
    numbers = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(64 * rows, np.float32)), 64)
    table = pa.table({"file": pa.array([""] * rows), "embedding": numbers})
    file = tmp_path / "e.parquet"
    pq.write_table(add_stamp(table, STAMP), file, compression="zstd")
    assert file.stat().st_size < 1_000_000
    with limits(memory=100_000_000), pytest.raises(DataError, match="unpacks to far more"):
        read_embeddings(file)


def test_embeddings_that_are_all_alike_are_read(tmp_path):
    names, rows = [f"{i}.jpg" for i in range(20_000)], np.ones((20_000, 64), np.float32)
    write_embeddings(tmp_path / "e.parquet", tmp_path / "part", names, rows, STAMP)
    assert rows.nbytes > 10 * (tmp_path / "e.parquet").stat().st_size
    read, found, _ = read_embeddings(tmp_path / "e.parquet")
    assert read == names
    assert np.array_equal(found, rows)
