import numpy as np
import pytest

from fewlabels.components.discovery.kmeans import KMeans
from fewlabels.contracts import Pool
from fewlabels.errors import DataError


def pool(count=90, given=0, seed=0):
    rng = np.random.default_rng(seed)
    features = np.repeat(rng.normal(size=(3, 6)), count // 3, 0) + 0.05 * rng.normal(
        size=(count, 6)
    )
    known = np.arange(count) < given
    return Pool(np.arange(count) + 1000, features.astype(np.float32), np.where(known, 5, -1), known)


def discover(component, pool, seed=0):
    return component.discover(pool, len(pool.rows), np.random.default_rng(seed))


def test_every_unlabelled_sample_gets_its_cluster_and_a_person_is_not_overruled():
    found = discover(KMeans(clusters=3), pool(given=10))
    assert found.indices.tolist() == list(range(10, 90))
    assert len(set(found.labels[:20])) == len(set(found.labels[20:50])) == 1
    assert found.merge == "replace"
    assert (found.scores > 0.9).all()
    assert found.centres.shape == (3, 6)


def test_clusters_keep_their_numbers_between_rounds_and_over_a_resume():
    component = KMeans(clusters=3)
    first = discover(component, pool(), seed=0)
    stopped = KMeans(clusters=3)
    stopped.load_state_dict(component.state_dict())
    assert (discover(component, pool(seed=0), seed=7).labels == first.labels).all()
    assert (discover(stopped, pool(seed=0), seed=9).labels == first.labels).all()


def test_inputs_are_left_as_they_were():
    given = pool()
    before = given.features.copy()
    discover(KMeans(clusters=3), given)
    assert (given.features == before).all()


def test_more_clusters_than_images_say_what_to_lower():
    with pytest.raises(DataError, match="lower clusters"):
        discover(KMeans(clusters=91), pool())


def test_images_that_people_have_all_labelled_are_refused_in_words():
    with pytest.raises(
        DataError, match=r"none is left to cluster; remove discovery, or lower data\.labels"
    ):
        discover(KMeans(clusters=3), pool(given=90))
