"""What the demo's page answers, without the page; ids are those of a stranger's index."""

import os

import numpy as np
import pytest
import torch
from pictures import texture
from PIL import Image

from fewlabels import Embedder, Index
from fewlabels.cli.demo_answers import Answers
from fewlabels.cli.main import main

SMALL = {"image_size": 16, "crop_pct": 1.0, "backbone_options": {"width": 0.25}}


@pytest.fixture(scope="module")
def embedder():
    torch.manual_seed(0)
    return Embedder("convnet3", embedding_size=8, **SMALL)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "shelf").mkdir(parents=True)
    for i in range(6):
        texture(i, 40).save(folder / "shelf" / f"{i}.png")
    return folder


def near_query(embedder, query, ids):
    """An index in which these ids are found in this order."""
    [vector] = embedder.encode(query)
    rng = np.random.default_rng(0)
    rows = [vector + 0.01 * i * rng.standard_normal(8) for i in range(len(ids))]
    return Index.from_embeddings(np.float32(rows), ids, embedder=embedder)


def test_it_finds_what_the_search_finds_and_shows_its_pictures(embedder, photos):
    index = Index.build(embedder, photos)
    query = photos / "shelf" / "3.png"
    for options in ({"expand": 0, "rerank": False}, {"expand": 2, "rerank": True}):
        answer = Answers(index, photos)(str(query), 4, **options)
        found = index.search(query, 4, **options)
        expected = [f"{s:.3f}\n{i}" for s, i in zip(found.scores[0], found.ids[0], strict=True)]
        assert [caption for _, caption in answer.pictures] == expected
        assert answer.sentence.startswith("The nearest 4 of 6 images, best first by")
        for picture, caption in answer.pictures:
            with Image.open(photos / caption.partition("\n")[2]) as own:
                assert picture.tobytes() == own.tobytes()


def test_no_id_shows_a_picture_from_outside_the_folder(embedder, photos, tmp_path):
    texture(9, 40).save(tmp_path / "secret.png")
    (tmp_path / "photos-private").mkdir()
    texture(9, 40).save(tmp_path / "photos-private" / "secret.png")
    os.symlink(tmp_path / "secret.png", photos / "link.png")
    os.symlink(tmp_path, photos / "way")
    os.symlink(photos / "circle", photos / "circle")
    (photos / "text.png").write_text("no picture")
    outside = ["../secret.png", str(tmp_path / "secret.png"), "shelf/../../secret.png", "link.png"]
    outside += ["way/secret.png", "../photos-private/secret.png"]
    nowhere = ["circle", "gone.png", "shelf", "", ".", "a\0b", "\ud800.png", "x" * 5000, "text.png"]
    query = photos / "shelf" / "0.png"
    ids = ["shelf/0.png", *outside, *nowhere]
    answer = Answers(near_query(embedder, query, ids), photos)(str(query), 50, 0, False)
    shown = {caption.partition("\n")[2]: picture for picture, caption in answer.pictures}
    assert len(shown) == len(ids)  # id and score of every one
    assert shown.pop("shelf/0.png").size == (40, 40)
    assert len({picture.tobytes() for picture in shown.values()}) == 1  # the blank tile
    assert f"{len(shown)} of them are not a readable picture in" in answer.sentence
    for caption in shown:
        caption.encode()  # as the page must
        assert caption.isprintable()
        assert len(caption) < 100


def test_without_a_folder_ids_and_scores_are_shown_and_how_to_see_more(embedder, photos):
    index = Index.build(embedder, photos)
    answer = Answers(index, None)(str(photos / "shelf" / "3.png"), 2, 0, False)
    assert answer.pictures[0][1].startswith("1.000\n")
    assert "start the page with --images FOLDER" in answer.sentence


def test_what_is_no_image_is_answered_by_a_sentence(embedder, photos, tmp_path):
    answers = Answers(Index.build(embedder, photos), photos)
    bad = tmp_path / "bad.jpg"
    bad.write_text("<svg onload=alert(1)>")
    assert answers(None, 3, 0, False) == ("Drop an image to search with.", [])
    assert answers(str(bad), 3, 0, False).sentence.startswith(
        "This file cannot be read as an image"
    )
    cut = (photos / "shelf" / "0.png").read_bytes()[:300]
    bad.write_bytes(cut)
    assert answers(str(bad), 3, 0, False).pictures == []


def test_a_large_picture_is_sent_small_and_upright_without_what_its_file_says(embedder, photos):
    exif = Image.Exif()
    exif[274], exif[315] = 6, "the photographer"  # lies on its side
    texture(7, 900).crop((0, 0, 900, 500)).save(photos / "big.jpg", exif=exif)
    index = near_query(embedder, photos / "big.jpg", ["big.jpg"])
    [(picture, _)] = Answers(index, photos)(str(photos / "big.jpg"), 1, 0, False).pictures
    assert picture.height == 320
    assert picture.width < picture.height
    picture.save(photos / "sent.webp")
    assert b"the photographer" not in (photos / "sent.webp").read_bytes()


def test_mistakes_are_sentences(embedder, photos, tmp_path, capsys):
    embedder.save_pretrained(tmp_path / "model")
    words = ["demo", str(tmp_path / "model"), str(tmp_path / "photos.index")]
    assert main([*words, "--port", "0"]) == 2
    assert "--port 0: give a number from 1 to 65535" in capsys.readouterr().err
    assert main([*words, "--images", "gone"]) == 2
    assert "--images gone: no such folder; name the one that was indexed" in capsys.readouterr().err
