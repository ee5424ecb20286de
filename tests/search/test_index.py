"""An index of pictures, from the embedder to the ids and through its folder."""

import copy
import json
import shutil

import faiss
import numpy as np
import pytest
import torch
from pictures import texture
from PIL import Image

import fewlabels
from fewlabels import Embedder, Index
from fewlabels.errors import DataError, ModelError


def small(seed=0, **chosen):
    torch.manual_seed(seed)
    options = {"image_size": 16, "embedding_size": 16, "backbone_options": {"width": 0.25}}
    return Embedder("convnet3", **{**options, **chosen}).eval()


@pytest.fixture(scope="module")
def embedder():
    return small()


@pytest.fixture(scope="module")
def pictures():
    return [texture(seed, 24) for seed in range(12)]


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    place = tmp_path_factory.mktemp("photos")
    (place / "sea side").mkdir()
    for i, picture in enumerate(pictures):
        picture.save(place / ("sea side" if i % 2 else ".") / f"{i}.png")
    (place / "._0.png").write_bytes(b"macOS writes these")
    return place


@pytest.fixture
def saved(embedder, pictures, tmp_path):
    Index.build(embedder, pictures).save(tmp_path / "index")
    return tmp_path / "index"


def same(first, second):
    return first.ids == second.ids and np.array_equal(first.scores, second.scores)


# ------------------------------------------------------------------------ images and ids


def test_a_photograph_finds_itself_by_its_path_in_the_folder(embedder, folder, pictures):
    index = Index.build(embedder, folder)
    assert len(index) == 12
    assert set(index.ids) == {f"{'sea side/' * (i % 2)}{i}.png" for i in range(12)}
    found = index.search([pictures[3], pictures[4]], 2)
    assert [ids[0] for ids in found.ids] == ["sea side/3.png", "4.png"]
    assert found.scores[:, 0] == pytest.approx([1, 1], abs=1e-6)
    assert same(index.search(folder / "4.png"), index.search(pictures[4]))


def test_ids_are_given_or_the_files_or_numbers(embedder, folder, pictures):
    files = [folder / "0.png", str(folder / "2.png")]
    assert Index.build(embedder, files).ids == [str(file) for file in files]
    assert Index.build(embedder, files, ["x", "y"]).ids == ["x", "y"]
    assert Index.build(embedder, folder / "0.png").ids == [str(folder / "0.png")]
    assert Index.build(embedder, (picture for picture in pictures)).ids == [
        str(i) for i in range(12)
    ]


def test_it_is_told_what_was_passed_over_in_a_folder(embedder, folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "photos")
    (place / "0.dng").write_bytes(b"raw")
    (place / "gone.jpg").symlink_to("nowhere.jpg")
    for use in (
        lambda: Index.build(embedder, place),
        lambda: Index.build(embedder, place / "sea side").add(place),
        lambda: embedder.encode(place),
    ):
        with pytest.warns(UserWarning, match="passed over") as told:
            use()
        said = [str(each.message) for each in told]
        assert len(said) == 2
        assert any("0.dng is passed over: .dng is not read here" in each for each in said)
        assert any("gone.jpg is passed over: the link leads nowhere" in each for each in said)


def test_a_query_that_cannot_be_read_is_named(embedder, folder, tmp_path):
    index, bad = Index.build(embedder, folder), tmp_path / "bad.png"
    bad.write_bytes((folder / "0.png").read_bytes()[:300])
    with Image.open(bad) as opened:
        for query in (bad, str(bad), [bad], opened, {"path": str(bad)}):
            with pytest.raises(ModelError, match=rf"image 0 \({bad}\) cannot be read"):
                index.search(query)


def test_added_images_are_found_beside_the_old_ones(embedder, pictures):
    index = Index.build(embedder, pictures[:5])
    index.add(pictures[5:7])
    index.add(embedder.encode(pictures[7:]), [f"late {i}" for i in range(7, 12)])
    assert index.ids == [*map(str, range(7)), *(f"late {i}" for i in range(7, 12))]
    found, whole = (i.search(pictures) for i in (index, Index.build(embedder, pictures, index.ids)))
    assert found.ids == whole.ids
    assert found.scores == pytest.approx(whole.scores, abs=1e-6)  # other batches, other roundings


def test_embeddings_and_images_are_searched_alike(embedder, pictures):
    vectors = embedder.encode(pictures)
    index = Index.from_embeddings(3 * vectors, embedder=embedder)
    by_image = index.search(pictures, 4)
    assert same(index.search(vectors, 4), by_image)
    assert same(index.search(torch.from_numpy(vectors), 4), by_image)
    assert index.search(vectors.astype(np.float16), 4).ids == by_image.ids


def test_all_options_together_find_a_picture_first(embedder, pictures):
    index = Index.build(embedder, pictures)
    found = index.search(pictures, 3, expand=1, rerank=True, k1=3, k2=1)
    assert [ids[0] for ids in found.ids] == index.ids


# ------------------------------------------------------------------------ the folder


def test_a_saved_index_finds_the_same_and_stays_on_disk(embedder, pictures, saved):
    before = Index.build(embedder, pictures).search(pictures)
    index = fewlabels.Index.load(saved, embedder)
    assert same(index.search(pictures), before)
    assert same(Index.load(saved).search(embedder.encode(pictures)), before)
    base = index.vectors
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not index.vectors.flags.writeable


def test_an_embedder_that_was_itself_saved_is_recognised(embedder, saved, tmp_path):
    embedder.save_pretrained(tmp_path / "model")
    again = Embedder.from_pretrained(tmp_path / "model")
    assert Index.load(saved, again).embedder is again
    assert Index.load(saved, copy.deepcopy(embedder).train())


def test_an_approximate_index_finds_the_same_after_loading(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(2000, 10))
    index = Index.from_embeddings(vectors, kind="ivf_pq")
    index.save(tmp_path)
    again = Index.load(tmp_path)
    assert repr(again) == repr(index) == "Index(2000 images, 10 dimensions, ivf_pq)"
    assert same(again.search(vectors[:50]), index.search(vectors[:50]))
    for either in (index, again):
        either.add(vectors[:3] + 0.5, ["a", "b", "c"])
    assert same(again.search(vectors[:50]), index.search(vectors[:50]))


def test_an_index_can_grow_in_its_own_folder(embedder, pictures, saved):
    for i in range(2):
        index = Index.load(saved, embedder)
        index.add(pictures[i], [f"again {i}"])
        index.save(saved)
    assert len(Index.load(saved)) == 14
    assert sorted(path.name for path in saved.iterdir()) == [
        "config.json",
        "ids-3.json",
        "vectors-3.npy",
    ]


@pytest.mark.parametrize("broken", ["numpy.save", "json.dumps", "os.replace"])
def test_a_failed_save_leaves_the_old_index(embedder, pictures, saved, monkeypatch, broken):
    before = Index.load(saved, embedder).search(pictures)
    other = Index.build(embedder, pictures[:4])
    with monkeypatch.context() as patch:
        patch.setattr(broken, lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            other.save(saved)
    assert same(Index.load(saved, embedder).search(pictures), before)
    other.save(saved)
    assert len(Index.load(saved)) == 4
    assert len(list(saved.iterdir())) == 3  # nothing of the failed save remains


def test_other_files_in_the_folder_are_left_alone(embedder, pictures, saved):
    (saved / "notes-1.txt").write_text("mine")
    (saved / "vectors.npy").write_text("mine too")
    Index.build(embedder, pictures).save(saved)
    assert (saved / "notes-1.txt").read_text() == "mine"
    assert (saved / "vectors.npy").read_text() == "mine too"


def test_files_of_the_names_of_an_index_that_were_there_before_it_stay(tmp_path):
    for name in ("vectors-1.npy", "ids-3.json"):
        (tmp_path / name).write_text("mine")
    for _ in range(3):
        Index.from_embeddings(np.eye(4), list("abcd")).save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.json", "ids-3.json", "ids-6.json", "vectors-1.npy", "vectors-6.npy",
    ]  # fmt: skip
    assert (tmp_path / "vectors-1.npy").read_text() == "mine"


def test_ids_of_any_text_come_back(tmp_path):
    ids = ["", "a\nb", 'quo"te', "Ärger/写真.jpg", "bad \udcff name"]
    Index.from_embeddings(np.eye(5), ids).save(tmp_path)
    assert Index.load(tmp_path).ids == ids


# ------------------------------------------------------------------------ what is refused


def test_another_embedder_is_refused(embedder, pictures, saved):
    settings = {"crop_pct": 0.9, "interpolation": "nearest", "mean": (0.4,) * 3, "pooling": "max"}
    others = [small(seed=1), *(small(**{name: value}) for name, value in settings.items())]
    for other in others:
        with pytest.raises(ModelError, match="not the one that made the index"):
            Index.load(saved, other)
    trained = copy.deepcopy(embedder)
    index = Index.load(saved, trained)
    with torch.no_grad():
        trained.head.bias += 0.1
    for use in (index.search, index.add):
        with pytest.raises(ModelError, match="not the one that made the index"):
            use(pictures)


def test_images_without_their_embedder_are_refused(pictures, saved, embedder):
    with pytest.raises(ModelError, match=r"no embedder for images; give one to Index\.load"):
        Index.load(saved).search(pictures)
    Index.from_embeddings(np.eye(16)).save(saved)
    with pytest.raises(ModelError, match="does not know which embedder made them"):
        Index.load(saved, embedder)


@pytest.mark.parametrize(
    ("embeddings", "ids", "sentence"),
    [
        (np.eye(3), ["a", "b", "a"], "taken already: a; give each"),
        (np.eye(3), ["a", "b"], "2 for ids of 3 images"),
        (np.eye(3), "abc", "one text for ids of 3 images"),
        (np.eye(3), ["a", 7, "b"], "id 7: ids are text, got int"),
        (np.eye(3)[0], None, r"floats \(N, D\), got float64 of shape \(3,\)"),
        (np.eye(3, dtype=int), None, r"floats \(N, D\), got int64"),
        (np.eye(3)[:, :0], None, r"shape \(3, 0\)"),
        (np.eye(3)[:0], None, "no image to index"),
        (np.array([[1, 0], [np.nan, 1], [np.inf, 0]]), None, "not finite: rows 1, 2; leave"),
    ],
)
def test_embeddings_and_ids_that_cannot_be_indexed(embeddings, ids, sentence):
    with pytest.raises(DataError, match=sentence):
        Index.from_embeddings(embeddings, ids)


def test_wrong_ids_are_refused_before_hours_of_encoding(embedder, pictures, monkeypatch):
    index = Index.build(embedder, pictures)
    monkeypatch.setattr(Embedder, "encode", lambda *a, **k: 1 / 0)
    for ids in (["a"], ["a"] * 12, [7] * 12, "twelve texts"):
        for use in (index.add, lambda images, ids: Index.build(embedder, images, ids)):
            with pytest.raises(DataError, match="ids"):
                use(pictures, ids)
    with pytest.raises(DataError, match="kind 'hnsw': no such index"):
        Index.build(embedder, pictures, kind="hnsw")


def test_a_refused_addition_changes_nothing():
    index = Index.from_embeddings(np.eye(3), ["a", "b", "2"])
    for embeddings, ids, sentence in [
        (np.eye(3)[:2], ["c", "b"], "taken already: b"),
        (np.eye(3), ["c"], "1 for ids of 3"),
        (np.eye(4), None, "4 dimensions, expected 3"),
        (np.full((1, 3), np.nan), ["c"], "not finite"),
    ]:
        with pytest.raises(DataError, match=sentence):
            index.add(embeddings, ids)
    assert index.ids == ["a", "b", "2"]
    assert index.vectors.shape == (3, 3)


@pytest.mark.parametrize(
    "option",
    [
        {"k": 0},
        {"expand": -1},
        {"alpha": -0.1},
        {"shortlist": 0},
        {"k1": 0},
        {"k2": 0},
        {"blend": 1.1},
        {"blend": -0.1},
    ],
)
def test_options_out_of_range_are_named(option):
    with pytest.raises(DataError, match=f"{next(iter(option))}=.*: give at (least|most) [01]"):
        Index.from_embeddings(np.eye(3)).search(np.eye(3), **option)


def test_queries_that_cannot_be_searched(embedder, pictures):
    index = Index.build(embedder, pictures)
    with pytest.raises(DataError, match="no image to search with"):
        index.search([])
    with pytest.raises(DataError, match="3 dimensions, expected 16"):
        index.search(np.eye(3))
    with pytest.raises(DataError, match="not finite: rows 0"):
        index.search(np.full(16, np.nan))
    with pytest.raises(ModelError, match="image 1 .*cannot be read"):
        index.search([pictures[0], "nowhere.jpg"])
    with pytest.raises(
        DataError, match="kind 'hnsw': no such index; choose from auto, flat, ivf_pq"
    ):
        Index.build(embedder, pictures, kind="hnsw")
    with pytest.raises(DataError, match="dimensions, expected 16"):
        Index.from_embeddings(np.eye(3), embedder=embedder)


def test_a_model_is_not_overwritten(embedder, pictures, tmp_path):
    embedder.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"its config\.json is not of an index"):
        Index.build(embedder, pictures).save(tmp_path)
    assert Embedder.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="of the kind 'embedder'; expected 'index'"):
        Index.load(tmp_path)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-20])


def pickled(file):
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("vectors-1.npy", truncate),
        ("vectors-1.npy", pickled),
        ("vectors-1.npy", lambda file: np.save(file, np.eye(3))),
        ("vectors-1.npy", lambda file: file.write_bytes(b"")),
        ("vectors-1.npy", lambda file: file.unlink()),
        ("ids-1.json", truncate),
        ("ids-1.json", lambda file: file.write_text("[1, 2]")),
        ("ids-1.json", lambda file: file.write_text('["a", "a"]')),
        ("ids-1.json", lambda file: file.write_text("[" * 100_000)),
        ("ids-1.json", lambda file: file.unlink()),
    ],
)
def test_a_damaged_file_is_named(saved, name, harm):
    harm(saved / name)
    with pytest.raises(ModelError, match=f"{name}: damaged: .*; copy the folder again"):
        Index.load(saved)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(None)])
def test_vectors_that_are_not_finite_are_named_when_they_are_found(tmp_path, number, rows):
    Index.from_embeddings(np.eye(3)).save(tmp_path)
    vectors = np.load(tmp_path / "vectors-1.npy")
    vectors[rows] = number
    np.save(tmp_path / "vectors-1.npy", vectors)
    with pytest.raises(ModelError, match="holds vectors that are not finite; build it again"):
        Index.load(tmp_path).search(np.ones(3), 3)


def test_an_index_of_a_stranger_opens_no_other_file(tmp_path):
    """faiss's own format can name a file elsewhere, which it opens to write."""
    Index.from_embeddings(np.eye(1100, 4) + 1, kind="ivf_pq").save(tmp_path / "a")
    engine = Index.load(tmp_path / "a")._ivf_pq.engine
    theirs, code = tmp_path / "theirs.bin", engine.code_size
    lists = faiss.OnDiskInvertedLists(engine.nlist, code, str(theirs))
    engine.replace_invlists(lists, False)
    faiss.write_index(engine, str(tmp_path / "a" / "ivf_pq-1.npz"))
    theirs.write_bytes(b"mine")
    with pytest.raises(ModelError, match="cannot be read"):
        Index.load(tmp_path / "a")
    assert theirs.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "harm", [truncate, lambda file: file.unlink(), lambda file: file.write_text("x")]
)
def test_a_damaged_approximate_index_is_named(tmp_path, harm):
    vectors = np.random.default_rng(0).normal(size=(1100, 4))
    Index.from_embeddings(vectors, kind="ivf_pq").save(tmp_path / "a")
    Index.from_embeddings(vectors[:1050], kind="ivf_pq").save(tmp_path / "b")
    harm(tmp_path / "a" / "ivf_pq-1.npz")
    with pytest.raises(ModelError, match=r"ivf_pq-1\.npz: cannot be read"):
        Index.load(tmp_path / "a")
    shutil.copy(tmp_path / "b" / "ivf_pq-1.npz", tmp_path / "a" / "ivf_pq-1.npz")
    with pytest.raises(ModelError, match="does not fit the vectors"):
        Index.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, r"format 2 is newer than this fewlabels reads \(1\); pip install"),
        ({"search": "magic"}, "search: Input should be"),
        ({"embedder": "../x"}, "embedder: String should match"),
        ({"save": "1/../../x"}, "save: Input should be a valid integer"),
        ({"savve": 1}, "savve: unknown key; did you mean 'save'"),
    ],
)
def test_a_config_that_does_not_fit_is_explained(saved, change, sentence):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=sentence):
        Index.load(saved)


def test_a_folder_without_an_index_is_named(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            ModelError, match=r"no index here; give a folder that Index\.save wrote"
        ):
            Index.load(place)
