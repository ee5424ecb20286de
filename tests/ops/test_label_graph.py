"""Labels along a graph: by a plain solution, and neighbours that tell the scatter of classes."""

import numpy as np

from fewlabels.ops.label_graph import build_neighbour_graph, separate_neighbours, spread_labels


def test_three_samples_by_hand():
    """a and b are each other's nearest, c's is b: edges ab twice cos^3, bc once."""
    angles = np.array([0.0, 0.5, 1.2])
    features = np.stack([np.cos(angles), np.sin(angles)], 1)
    ab, bc = 2 * np.cos(0.5) ** 3, np.cos(0.7) ** 3
    degrees = np.array([ab, ab + bc, bc])
    plain = np.array([[0, ab, 0], [ab, 0, bc], [0, bc, 0]]) / np.sqrt(np.outer(degrees, degrees))
    graph = build_neighbour_graph(features, 1)
    assert np.allclose(graph.toarray(), plain, atol=1e-6)
    found = spread_labels(graph, np.array([0, -1, 1]), 3, alpha=0.9)
    wanted = np.linalg.solve(np.eye(3) - 0.9 * plain, np.eye(3)[[0, 2]].T)
    assert np.allclose(found[:, :2], wanted, atol=1e-4)
    assert not found[:, 2].any()


def test_a_class_with_more_labels_has_no_more_mass():
    rng = np.random.default_rng(0)
    graph = build_neighbour_graph(rng.normal(size=(60, 3)), 5)
    labels = np.full(60, -1)
    labels[:9], labels[9] = 0, 1
    one = spread_labels(graph, labels, 2)
    labels[1:9] = -1
    labels[9] = 1
    assert one[:, 1].sum() == np.float64(spread_labels(graph, labels, 2)[:, 1].sum())
    assert np.isfinite(one).all()


def test_neighbours_tell_the_scatter_within_classes():
    """Classes lie apart in a narrow direction, and widely scattered within in another one."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    features = rng.normal(size=(400, 30)) * 0.1
    features[:, 0] = 6 * rng.normal(size=400)
    features[:, 1] += labels

    def agree(vectors):
        graph = build_neighbour_graph(vectors, 5).toarray()
        return graph[labels[:, None] == labels].sum() / graph.sum()

    assert agree(separate_neighbours(features, 10)) > agree(features) + 0.2
