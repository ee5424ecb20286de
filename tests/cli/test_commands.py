"""What a person does with a saved model at the command line: embed, index, search, predict."""

import csv
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from children import run_together
from pictures import texture
from PIL import Image

from fewlabels import Classifier, Embedder, Index
from fewlabels.cli.main import main
from fewlabels.components.sources.folder import Folder
from fewlabels.search.embeddings_parts import Parts

SMALL = {"image_size": 128, "crop_pct": 1.0, "backbone_options": {"width": 0.5}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with models, 60 photos, and the embeddings of these, made without a stop."""
    root = tmp_path_factory.mktemp("commands")
    for seed, name in enumerate(("model", "other")):
        torch.manual_seed(seed)
        Embedder("convnet3", embedding_size=8, **SMALL).save_pretrained(root / name)
    torch.manual_seed(2)
    Classifier("convnet3", classes=["cat", "dog", "owl"], **SMALL).save_pretrained(root / "kinds")
    for i in range(60):
        file = root / "photos" / f"{'ab'[i % 2]}, c" / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        texture(i, 40).save(file)
    shutil.copytree(root / "kinds", root / "run" / "model")
    (root / "run" / "recipe.yaml").write_text("strategy: supervised")
    assert embed(root, root / "whole.parquet") == 0
    return root


@pytest.fixture
def few(place, tmp_path):
    """Eleven photos, of which the last cannot be read, and the parts that a run left before it."""
    for file in sorted((place / "photos" / "a, c").iterdir())[:10]:
        shutil.copy2(file, tmp_path / file.name)
    (tmp_path / "z.png").write_bytes(b"no picture")
    assert embed(place, tmp_path / "few.parquet", tmp_path, shard=4) == 2
    return tmp_path


def words(place, out, photos=None, model="model", shard=8):
    folder = photos or place / "photos"
    return [str(place / model), str(folder), "-o", str(out), "--shard", str(shard)]


def embed(place, out, photos=None, model="model", shard=8, more=()):
    return main(["embed", *words(place, out, photos, model, shard), *more])


def parts(out):
    """When each finished part was written."""
    folder = out.with_name(f"{out.name}.parts")
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.parquet")}


def test_every_image_is_embedded_under_its_name(place):
    table = pq.read_table(place / "whole.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    files = sorted((place / "photos").rglob("*.png"))
    assert table["file"].to_pylist() == [f.relative_to(place / "photos").as_posix() for f in files]
    vectors = Embedder.from_pretrained(place / "model").encode(files)
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist()), vectors, atol=1e-6)
    assert not (place / "whole.parquet.parts").exists()


def in_one_thread(arguments):
    torch.set_num_threads(1)
    sys.exit(main(arguments))


def test_a_run_killed_three_times_ends_with_the_same_file_and_repeats_no_shard(place, tmp_path):
    out, rng = tmp_path / "out.parquet", np.random.default_rng(0)
    command = ["embed", *words(place, out), "--batch-size", "4"]
    for _ in range(3):
        before = parts(out)
        # Forked: a new interpreter would spend its time on importing torch.
        run = multiprocessing.get_context("fork").Process(target=in_one_thread, args=(command,))
        run.start()
        while len(parts(out)) == len(before) and run.is_alive():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.08))
        os.kill(run.pid, signal.SIGKILL)
        run.join()
        assert run.exitcode == -signal.SIGKILL
        after = parts(out)
        assert len(before) < len(after) < 8
        assert after.items() >= before.items()
        assert not out.exists()
    (tmp_path / "out.parquet.parts" / "00007.part").write_bytes(b"half")
    assert main(command) == 0
    whole = place / "whole-4.parquet"
    assert embed(place, whole, more=["--batch-size", "4"]) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_two_processes_write_the_same_file_as_one(place, tmp_path):
    out = tmp_path / "out.parquet"
    codes, said = run_together(["embed", *words(place, out)], 2)
    assert codes == [0, 0], said
    assert said.count("(process 0)") == said.count("(process 1)") == 4
    assert out.read_bytes() == (place / "whole.parquet").read_bytes()
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_an_image_that_cannot_be_read_is_named_or_left_out(place, few, capsys):
    out = few / "few.parquet"
    assert embed(place, out, few, shard=4) == 2
    error = capsys.readouterr().err
    assert f"{few / 'z.png'}: cannot be read as an image" in error
    assert "--skip-unreadable" in error
    assert len(error.splitlines()) == 1
    before = parts(out)
    assert len(before) == 2
    assert embed(place, out, few, shard=4, more=["--skip-unreadable"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["shard 3 of 3", str(out)]
    assert captured.err == "1 image left out, which cannot be read:\nz.png\n"
    assert len(pq.read_table(out)) == 10
    assert embed(place, out, few, shard=4) == 2  # who asks again without the option is told
    assert "z.png: cannot be read" in capsys.readouterr().err


def test_parts_of_something_else_are_not_gone_on_with(place, few, capsys):
    out = few / "few.parquet"
    capsys.readouterr()
    assert embed(place, out, few, model="other", shard=4) == 2
    assert "are of another model" in capsys.readouterr().err
    assert embed(place, out, few, shard=5) == 2
    assert "hold 4 images each; go on with --shard 4" in capsys.readouterr().err
    texture(99, 40).save(few / "z.png")
    assert embed(place, out, few, shard=4) == 2
    error = capsys.readouterr().err
    assert "are of another folder, or its images changed since" in error
    assert f"the parts in {few / 'few.parquet.parts'} are" in error
    assert "remove that folder to start anew" in error
    assert len(parts(out)) == 2
    assert not out.exists()


def test_what_is_no_part_is_left_alone(place, few):
    strange, mine = few / "few.parquet.parts" / "²².parquet", few / "few.parquet.part"
    strange.write_bytes((few / "few.parquet.parts" / "00001.parquet").read_bytes())
    mine.write_text("mine")
    assert embed(place, few / "few.parquet", few, shard=4, more=["--skip-unreadable"]) == 0
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    "columns",
    [
        {"file": ["a"]},
        {"file": ["a"], "embedding": ["x"]},
        {"file": ["a"], "embedding": pa.array([[1.0] * 8], pa.list_(pa.float32(), 8)), "x": [1]},
        {"file": [1], "embedding": pa.array([[1.0] * 8], pa.list_(pa.float32(), 8))},
        {"file": ["a"], "embedding": pa.array([[1.0] * 8], pa.list_(pa.float64(), 8))},
        {"file": ["a"], "embedding": pa.array([None], pa.list_(pa.float32(), 8))},
        {"file": ["a"], "embedding": pa.array([[None] * 8], pa.list_(pa.float32(), 8))},
    ],
)
def test_other_columns_under_our_stamp_are_a_sentence(place, tmp_path, capsys, columns):
    bad = tmp_path / "bad.parquet"
    stamp = pq.read_schema(place / "whole.parquet").metadata
    pq.write_table(pa.table(columns).replace_schema_metadata(stamp), bad)
    index = ["index", str(place / "model"), "-o", str(tmp_path / "x"), "--from", str(bad)]
    assert main(index) == 2
    assert "bad.parquet: damaged: " in capsys.readouterr().err


def test_a_damaged_part_is_computed_again(place, few, capsys):
    out = few / "few.parquet"
    damaged = few / "few.parquet.parts" / "00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    capsys.readouterr()
    assert embed(place, out, few, shard=4, more=["--skip-unreadable"]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == ["shard 2 of 3", "shard 3 of 3"]
    assert len(pq.read_table(out)) == 10


def test_what_is_done_is_not_done_again_and_what_is_not_ours_stays(place, tmp_path, capsys):
    assert embed(place, place / "whole.parquet") == 0
    assert capsys.readouterr().out == f"{place / 'whole.parquet'}\n"
    other = tmp_path / "sales.parquet"
    pq.write_table(pa.table({"sold": [1]}), other)
    before = other.read_bytes()
    assert embed(place, other) == 2
    assert "is there, and not a file of embeddings" in capsys.readouterr().err
    assert other.read_bytes() == before


def test_a_run_stopped_before_its_parts_are_removed_removes_them_later(place, tmp_path, capsys):
    out = tmp_path / "out.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "remove_parts", lambda _: sys.exit("stopped"))
        with pytest.raises(SystemExit, match="stopped"):
            embed(place, out)
    assert len(parts(out)) == 8
    capsys.readouterr()
    own = out.with_name("out.parquet.parts") / "mine.parquet"
    own.write_text("mine")
    assert embed(place, out) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert os.listdir(own.parent) == ["mine.parquet"]


HOLD = """
import sys
from fewlabels.files import hold_file
from pathlib import Path
with hold_file(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_commands_do_not_write_one_file(place, tmp_path, capsys):
    out, folder = tmp_path / "out.parquet", tmp_path / "out.parquet.parts"
    folder.mkdir()
    hold = [sys.executable, "-c", HOLD, str(folder / "lock")]
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert embed(place, out) == 2
        said = f"{out} is being written by process {other.pid}; wait for its end, or stop it"
        assert said in capsys.readouterr().err
        assert os.listdir(folder) == ["lock"]
        other.communicate()
    assert embed(place, out) == 0
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_an_index_of_embeddings_finds_what_one_of_the_folder_finds(place, tmp_path, capsys):
    model, photos = str(place / "model"), str(place / "photos")
    saved = ["--from", str(place / "whole.parquet")]
    assert main(["index", model, photos, "-o", str(tmp_path / "one")]) == 0
    assert main(["index", model, photos, "-o", str(tmp_path / "two"), *saved]) == 0
    assert main(["index", model, "-o", str(tmp_path / "three"), *saved, "--kind", "flat"]) == 0
    assert capsys.readouterr().out.count(": 60 images") == 3
    query = str(place / "photos" / "b, c" / "07.png")
    for more in ([], ["--expand", "3"], ["--rerank"]):
        found = []
        for name in ("one", "two", "three"):
            assert main(["search", model, str(tmp_path / name), query, "-k", "5", *more]) == 0
            rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
            found.append([name for _, name in rows])
            scores = [float(score) for score, _ in rows]
            assert len(rows) == 5
            assert scores == sorted(scores, reverse=True)
        assert found[0] == found[1] == found[2]
        if not more:
            assert found[0][0] == "b, c/07.png"
    shutil.copytree(place / "photos", tmp_path / "photos", copy_function=shutil.copy)
    texture(98, 40).save(tmp_path / "photos" / "new.png")
    four = ["-o", str(tmp_path / "four"), *saved]
    assert main(["index", model, str(tmp_path / "photos"), *four]) == 2
    assert "its embeddings are of another folder" in capsys.readouterr().err
    assert main(["index", str(place / "other"), photos, *four]) == 2
    assert "its embeddings are of another model" in capsys.readouterr().err
    assert main(["search", str(place / "other"), str(tmp_path / "one"), query]) == 2
    assert "this embedder is not the one that made the index" in capsys.readouterr().err


def test_predicted_labels_are_read_as_labels(place, tmp_path):
    out = tmp_path / "new" / "labels.csv"
    assert main(["predict", str(place / "kinds"), str(place / "photos"), "-o", str(out)]) == 0
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "probability"]
    classifier = Classifier.from_pretrained(place / "kinds")
    probabilities = classifier.predict(place / "photos")
    best = probabilities.argmax(1)
    assert [row["label"] for row in rows] == [classifier.classes[c] for c in best]
    sure = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(sure, probabilities.max(1), atol=1e-6)
    records = Folder(path=str(place / "photos"), labels_csv=str(out)).load()
    assert [records.classes[label] for label in records.truth] == [row["label"] for row in rows]
    assert list(records.names) == [row["file"] for row in rows]


def test_labels_are_predicted_without_the_images_that_cannot_be_read(place, few, capsys):
    out = few / "labels.csv"
    (few / "labels.csv.part").write_text("mine")
    predict = ["predict", str(place / "kinds"), str(few), "-o", str(out)]
    capsys.readouterr()
    assert main(predict) == 2
    assert "z.png: cannot be read as an image" in capsys.readouterr().err
    assert not out.exists()
    assert main([*predict, "--skip-unreadable"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}: 10 images\n"
    assert captured.err == "1 image left out, which cannot be read:\nz.png\n"
    assert len(out.read_text().splitlines()) == 11
    assert (few / "labels.csv.part").read_text() == "mine"


@pytest.mark.parametrize("command", ["embed", "index", "predict"])
def test_every_command_names_all_damaged_images_or_leaves_them_out(
    command, place, tmp_path, capsys
):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for i in range(6):
        texture(i, 40).save(photos / f"{i}.png")
    for name in ("3.png", "a.png", "z.png"):
        (photos / name).write_bytes(b"no picture")
    model = place / ("kinds" if command == "predict" else "model")
    words = [command, str(model), str(photos), "-o", str(out)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("3 images cannot be read: ")
    assert all(f"{photos / name} (" in said for name in ("3.png", "a.png", "z.png"))
    assert said.endswith("or leave out all such images with --skip-unreadable\n")
    assert not out.exists()
    assert main([*words, "--skip-unreadable"]) == 0
    said = capsys.readouterr().err
    assert said == "3 images left out, which cannot be read:\n3.png\na.png\nz.png\n"
    if command == "index":
        assert len(Index.load(out)) == 5


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("command", ["embed", "index", "predict", "search"])
def test_an_image_that_would_fill_the_memory_is_refused_by_name(command, place, tmp_path, capsys):
    photos, out = tmp_path / "photos", str(tmp_path / "out")
    photos.mkdir()
    huge = photos / "huge.png"
    Image.new("1", (13_300, 13_300)).save(huge)
    assert huge.stat().st_size < 40_000
    Index.build(Embedder.from_pretrained(place / "model"), texture(0, 128)).save(tmp_path / "index")
    words = {"search": [str(tmp_path / "index"), str(huge)]}.get(command, [str(photos), "-o", out])
    model = place / ("kinds" if command == "predict" else "model")
    capsys.readouterr()
    assert main([command, str(model), *words]) == 2
    said = capsys.readouterr().err
    assert str(huge) in said
    assert "13300 x 13300 pixels are more than 89,478,485; make it smaller" in said


def test_a_strangers_ids_do_not_move_the_cursor(place, tmp_path, capsys, monkeypatch):
    embedder = Embedder.from_pretrained(place / "model")
    picture = texture(0, 128)
    picture.save(tmp_path / "query.png")
    Index.build(embedder, [picture], ["\x1b[2Ja\u202e"]).save(tmp_path / "index")
    search = [str(place / "model"), str(tmp_path / "index"), str(tmp_path / "query.png")]
    assert main(["search", *search]) == 0
    assert capsys.readouterr().out == "1.0000\t\x1b[2Ja\u202e\n"  # whole, for a program
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["search", *search]) == 0
    assert capsys.readouterr().out == "1.0000\t�[2Ja�\n"
    assert main(["search", "\x1b[2J", *search[1:]]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("embed gone photos -o x.parquet", "gone: no such folder"),
        ("embed kinds photos -o x.parquet", "kinds: a classifier, which embeds nothing"),
        ("embed model gone -o x.parquet", "gone: no such folder; name the one that holds your images"),
        ("embed model model -o x.parquet", "model: no image in this folder"),
        ("embed model photos -o x.parquet --batch-size 0", "--batch-size 0: give at least 1"),
        ("embed model photos -o model", "model is there, and not a file of embeddings"),
        ("embed model photos -o model/config.json/x", "config.json is no folder that you may write to"),
        ("index model -o x.index", "nothing to index; name a folder of images, or --from"),
        ("index model photos -o x.index --kind round", "kind 'round': no such index"),
        ("index model photos -o x.index --from gone", "gone: no file of embeddings"),
        ("index model photos -o whole.parquet --from whole.parquet", "whole.parquet is no folder that you may"),
        ("index model photos -o model", "model: its config.json is not of an index; save to a folder"),
        ("search model model model/config.json", "expected 'index'"),
        ("search model gone model/config.json", "gone: no index here"),
        ("search model gone photos", "photos: no such file; name one picture to search with"),
        ("predict model photos -o x.csv", "model: an embedder, which knows no labels"),
        ("predict kinds photos -o whole.parquet", "whole.parquet is there, and may hold labels of yours"),
        ("predict kinds gone -o x.csv", "gone: no such folder"),
        ("predict kinds photos -o model/config.json/x", "config.json is no folder that you may write"),
        ("predict kinds photos -o /", "/ is there, and may hold labels of yours"),
        (f"predict kinds photos -o {'x' * 300}", "cannot be written: File name too long"),
        ("predict run photos -o x.csv", "this is a run, whose model is in run/model: give that"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_code_2(place, capsys, monkeypatch, command, sentence):
    monkeypatch.chdir(place)
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not list(Path().glob("x*"))
