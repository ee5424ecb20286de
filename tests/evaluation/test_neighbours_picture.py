"""Pictures of what test queries find: drawn without a choice, framed by class, kept by each run."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small import DIGITS

import fewlabels
from fewlabels.components.sources.digits import Digits
from fewlabels.data.splits import Split
from fewlabels.evaluation.neighbours_picture import (
    FRAME,
    GAP,
    OTHER,
    PANEL,
    SAME,
    TEXT,
    UNKNOWN,
    draw_neighbours,
)
from fewlabels.evaluation.retrieval_protocol import NEAREST, RetrievalTest

RNG = np.random.default_rng(0)
TRUTH = np.array([0, 0, 0, 1, 1, 2, -1, 3, 3, 3, 4, 4] + [9] * 10)
FEATURES = RNG.standard_normal((22, 5)).astype(np.float32)


def searched(query, gallery):
    rows = np.arange(100, 122)  # of a data set in which others come first
    truth = np.full(122, -1)
    truth[100:] = TRUTH
    split = Split(rows[:0], rows, 100 + query, None if gallery is None else 100 + gallery)
    return RetrievalTest(split, truth, (1,))


def test_what_is_found_is_nearest_and_never_the_query_itself():
    test = searched(np.arange(22), None)
    found = test.find_examples(FEATURES)
    assert found.found.shape == (5, NEAREST)
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    for query, rows, cosines in zip(*found, strict=True):
        order = sorted((j for j in range(22) if j != query), key=lambda j: -unit[j] @ unit[query])
        assert list(rows) == order[:NEAREST]
        np.testing.assert_allclose(cosines, unit[rows] @ unit[query], atol=1e-6)


def test_queries_are_of_different_classes_have_something_to_find_and_do_not_depend_on_a_model():
    for query, gallery in ((np.arange(22), None), (np.arange(0, 22, 2), np.arange(1, 22, 2))):
        test = searched(query, gallery)
        found = test.find_examples(FEATURES)
        np.testing.assert_array_equal(test.find_examples(-FEATURES[::-1]).queries, found.queries)
        assert set(found.queries) <= set(query)
        classes = TRUTH[found.queries]
        searching = np.arange(22) if gallery is None else gallery
        assert set(found.found.flat) <= set(searching)
        to_find = {c for c in range(10) for q in query if TRUTH[q] == c
                   and any(TRUTH[g] == c and g != q for g in searching)}  # fmt: skip
        assert sorted(classes) == sorted(to_find)


def test_a_small_gallery_is_shown_whole_and_without_a_query_that_is_in_it():
    apart = searched(np.array([0]), np.array([1, 3, 4])).find_examples(FEATURES)
    assert sorted(apart.found[0]) == [1, 3, 4]
    among = searched(np.array([0]), np.array([0, 1, 3])).find_examples(FEATURES)
    assert sorted(among.found[0]) == [1, 3]


def test_frames_tell_the_class():
    test = searched(np.arange(22), None)
    found = test.find_examples(FEATURES)
    grey = torch.full((NEAREST + 1, 3, 8, 8), 99, dtype=torch.uint8)
    drawn = np.asarray(draw_neighbours(found, TRUTH, lambda rows: grey))
    cell = PANEL + 2 * FRAME
    assert drawn.shape[:2] == (5 * (cell + TEXT + GAP) - GAP, 8 * (cell + GAP) + GAP)
    seen = set()
    for row, query in enumerate(found.queries):
        for column, other in enumerate(found.found[row]):
            same = TRUTH[other] == TRUTH[query]
            expected = UNKNOWN if TRUTH[other] < 0 else SAME if same else OTHER
            top, left = row * (cell + TEXT + GAP), (column + 1) * (cell + GAP) + GAP
            assert tuple(drawn[top, left]) == expected
            middle = drawn[top + cell // 2, left + cell // 2]
            assert tuple(middle) == (99, 99, 99)
            seen.add(expected)
    assert seen == {SAME, OTHER, UNKNOWN}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = {**DIGITS, "losses": ["multi_similarity"], "rounds": {"steps_per_epoch": 2}}
    recipe["strategy"] = {"name": "metric", "batch": 60, "per_class": 5}
    return fewlabels.train(recipe, out=tmp_path_factory.mktemp("runs"))


def test_a_run_ends_with_the_picture_of_its_own_model(run):
    digits, model = Digits().load(), run.embedder()
    rows = np.arange(1200, 1797)
    test = RetrievalTest(Split(rows[:0], rows, rows, None), digits.truth, (1,))
    pictures = [model.preprocess_image(digits.images[i]) for i in rows]
    features = model.encode([digits.images[i] for i in rows])
    drawn = draw_neighbours(
        test.find_examples(features),
        digits.truth[rows],
        lambda chosen: torch.stack([pictures[i] for i in chosen]),
    )
    kept = Image.open(run.folder / "pictures" / "neighbours.png")
    assert np.asarray(kept).tobytes() == np.asarray(drawn).tobytes()


def test_a_run_stopped_before_the_picture_draws_the_same_when_resumed(run):
    picture, metrics = run.folder / "pictures" / "neighbours.png", run.folder / "metrics.jsonl"
    before = picture.read_bytes()
    picture.unlink()
    lines = metrics.read_text().splitlines()
    assert json.loads(lines[-1])["kind"] == "end"
    metrics.write_text("\n".join(lines[:-1]) + "\n")
    fewlabels.train(resume=run.folder)
    assert picture.read_bytes() == before
