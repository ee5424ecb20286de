"""A stranger's table decides what is in its own rows, and about no file of this machine."""

import io
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fewlabels.components.sources.hub import Hub
from fewlabels.components.sources.parquet import Parquet
from fewlabels.errors import DataError

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(i):
    return Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8))


def png(i=0):
    file = io.BytesIO()
    picture(i).save(file, "png")
    return file.getvalue()


def write_table(file, cells, kind=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"image": pa.array(cells, kind), "label": list(range(len(cells)))}), file
    )
    return str(file)


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret.png"
    picture(9).save(file)
    return str(file)


@pytest.fixture
def asked():
    """A server's address, and what it was asked for."""
    paths = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png())

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/x.png", paths
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["a path beside bytes", "text", "large text", "a path alone"])
@pytest.mark.parametrize("named", ["file", "address"])
def test_a_table_that_names_files_is_refused_before_any_is_opened(
    kind, named, secret, asked, tmp_path
):
    place = secret if named == "file" else asked[0]
    cells, kind = {
        "a path beside bytes": ([{"bytes": png()}, {"bytes": None, "path": place}], CELL),
        "text": ([None, place], pa.string()),
        "large text": ([None, place], pa.large_string()),
        "a path alone": ([{"path": None}, {"path": place}], pa.struct([("path", pa.string())])),
    }[kind]
    file = write_table(tmp_path / "table.parquet", cells, kind)
    with pytest.raises(
        DataError, match="row 1 of the column 'image' names a file .*write the bytes"
    ):
        Parquet(files=file).load()
    assert not asked[1]


def test_a_name_beside_the_bytes_is_but_a_name(secret, tmp_path):
    cells = [{"bytes": png(i), "path": secret} for i in range(3)]
    images = Parquet(files=write_table(tmp_path / "table.parquet", cells, CELL)).load().images
    for i in range(3):
        assert np.array_equal(np.asarray(images[i]), np.asarray(picture(i)))


def test_a_column_of_numbers_holds_no_images(tmp_path):
    file = write_table(tmp_path / "table.parquet", [1, 2])
    with pytest.raises(DataError, match="the column 'image' holds int64, and no images"):
        Parquet(files=file).load()


def test_a_copy_of_the_hub_names_its_own_files_alone(secret, asked, tmp_path):
    own = tmp_path / "copy" / "images" / "own.png"
    own.parent.mkdir(parents=True)
    picture(3).save(own)
    cells = [str(own), secret, asked[0], str(own.parent / ".." / ".." / "secret.png"), "secret.png"]
    write_table(tmp_path / "copy" / "data" / "train.parquet", cells)
    images = Hub(id=str(tmp_path / "copy"), image="image").load().images
    assert np.array_equal(np.asarray(images[0]), np.asarray(picture(3)))
    for row in range(1, len(cells)):
        with pytest.raises(DataError, match=f"row {row}: .* is no file of the data set"):
            images[row]
    assert not asked[1]


def test_a_folder_of_images_is_a_copy_of_the_hub(tmp_path):
    for i, name in enumerate(("train/a/0.png", "train/b/1.png", "test/a/2.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(tmp_path / name)
    records = Hub(id=str(tmp_path)).load()
    assert records.classes == ("a", "b")
    found = [np.asarray(records.images[i])[0, 0, 0] for i in range(3)]
    assert sorted(found) == [0, 10, 20]


@pytest.mark.parametrize("cells", ["named", "folders"])
def test_a_copy_behind_a_link_is_read(cells, tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    (real / "train" / "a").mkdir(parents=True)
    picture(3).save(real / "train" / "a" / "0.png")
    if cells == "named":
        (real / "train" / "a").rename(real / "images")
        write_table(real / "data" / "train.parquet", [str(link / "images" / "0.png")])
    link.symlink_to(real)
    image = Hub(id=str(link), image="image").load().images[0]
    assert np.array_equal(np.asarray(image), np.asarray(picture(3)))


def test_a_path_with_brackets_names_one_file_and_no_pattern(tmp_path):
    for i, name in enumerate(("a1", "a[1]")):
        write_table(tmp_path / name / "z.parquet", [{"bytes": png(i), "path": None}], CELL)
    images = Parquet(files=str(tmp_path / "a[1]" / "z.parquet")).load().images
    assert np.array_equal(np.asarray(images[0]), np.asarray(picture(1)))
    with pytest.raises(DataError, match=r"a\[1\]: a data set whose path has .* rename the folder"):
        Hub(id=str(tmp_path / "a[1]")).load()


def write_garbage(folder):
    (folder / "z.parquet").write_bytes(b"garbage")


def write_other_columns(folder):
    write_table(folder / "y.parquet", [{"bytes": png(), "path": None}], CELL)
    pq.write_table(pa.table({"image": ["a"], "other": [1]}), folder / "z.parquet")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (write_garbage, "smaller than the minimum file footer"),
        (write_other_columns, "column names don't match"),
    ],
)
@pytest.mark.parametrize("source", ["parquet", "hub"])
def test_files_here_that_are_damaged_are_told_with_the_reason(damage, reason, source, tmp_path):
    damage(tmp_path)
    files = sorted(str(file) for file in tmp_path.iterdir())
    kind = Parquet(files=files) if source == "parquet" else Hub(id=str(tmp_path))
    with pytest.raises(DataError, match="not read as a data set") as caught:
        kind.load()
    said = str(caught.value)
    assert said.startswith((", ".join(files), str(tmp_path)))
    assert "network" not in said
    assert reason in said or "same columns" in said
