import numpy as np
import pytest
from sklearn.cluster import KMeans as Reference
from sklearn.metrics import adjusted_rand_score

from fewlabels.errors import DataError
from fewlabels.ops.kmeans import cluster_kmeans, find_nearest_centres


def groups(count=6, each=40, width=8, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, width))
    rows = np.repeat(centres, each, 0) + 0.1 * rng.normal(size=(count * each, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_clusters_are_those_of_scikit_learn_on_separate_groups():
    rows = groups()
    start = rows[::40].copy()
    _, found = cluster_kmeans(rows, 6, start=start, spherical=False)
    reference = Reference(6, init=start, n_init=1).fit_predict(rows)
    assert adjusted_rand_score(found, reference) > 0.99


def test_spherical_centres_have_unit_length_and_the_seed_decides():
    rows = groups(each=20)
    centres, labels = cluster_kmeans(rows, 10, seed=3)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, rtol=1e-5)
    again = cluster_kmeans(rows, 10, seed=3)
    assert (again[0] == centres).all()
    assert (again[1] == labels).all()
    assert (labels == (rows @ centres.T).argmax(1)).all()


def test_a_warm_start_keeps_the_numbers_of_clusters():
    rows = groups()
    centres, labels = cluster_kmeans(rows, 6, seed=0)
    moved = rows + 0.01 * np.random.default_rng(1).normal(size=rows.shape).astype(np.float32)
    _, again = cluster_kmeans(moved, 6, seed=99, start=centres)
    assert (again == labels).mean() > 0.99
    _, other = cluster_kmeans(
        moved, 5, seed=0, start=centres
    )  # of another number of clusters: not used
    assert other.max() < 5


def test_equal_rows_do_not_crash():
    centres, labels = cluster_kmeans(np.ones((20, 4), np.float32), 5)
    assert centres.shape == (5, 4)
    assert np.isfinite(centres).all()
    assert len(labels) == 20


def test_half_precision_and_other_layouts_are_read_and_left_alone():
    rows = groups().astype(np.float16)
    before = rows.copy()
    cluster_kmeans(np.asfortranarray(rows), 3)
    assert (rows == before).all()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (np.ones((3, 2)), "cannot make 5 clusters of 3 images; lower clusters"),
        (np.full((9, 2), np.nan), "not finite"),
        (np.ones(9), "features \\(N, D\\)"),
    ],
)
def test_what_cannot_be_clustered_is_refused(rows, sentence):
    with pytest.raises(DataError, match=sentence):
        cluster_kmeans(rows, 5)


def test_starting_centres_are_read_in_any_layout_and_refused_when_not_finite():
    rows = groups()
    start = rows[::40].copy()
    centres, _ = cluster_kmeans(rows, 6, start=start)
    assert (cluster_kmeans(rows, 6, start=np.asfortranarray(start, np.float64))[0] == centres).all()
    start[2, 1] = np.nan
    with pytest.raises(DataError, match="start with that are not finite"):
        cluster_kmeans(rows, 6, start=start)


def test_two_nearest_of_a_single_centre_are_refused():
    with pytest.raises(DataError, match="at least 2 centres"):
        find_nearest_centres(np.ones((5, 3)), np.ones((1, 3)))


def test_two_nearest_centres_are_those_of_a_full_comparison():
    rng = np.random.default_rng(0)
    rows, centres = rng.normal(size=(50, 4)), rng.normal(size=(7, 4))
    _, found = find_nearest_centres(rows, centres, 2, spherical=False)
    distances = ((rows[:, None] - centres) ** 2).sum(2)
    assert (found == distances.argsort(1)[:, :2]).all()
