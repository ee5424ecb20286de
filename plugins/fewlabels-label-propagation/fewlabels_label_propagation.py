"""Label propagation: labels flow from the labelled samples along a graph of nearest neighbours."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Interval
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import cg

from fewlabels import discovery
from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.errors import DataError
from fewlabels.ops.centres import l2_normalize
from fewlabels.ops.certainty import measure_certainty
from fewlabels.ops.label_graph import connect_neighbours, normalise_graph
from fewlabels.ops.selection import select_samples

fewlabels_api = 1  # the version of the contracts that this is written for


@discovery.register("label_propagation")
class LabelPropagation:
    """Labels what the diffusion of the known labels is surest of (Iscen et al., CVPR 2019).

    Z solves (I - alpha S) Z = Y: Y holds the labelled samples of each class, S is the normalised
    graph of nearest neighbours. A sample gets the class of its largest Z; the score is one minus
    the entropy of its normalised row, as a share of the largest entropy. A sample that no label
    reaches is not given.

    Args:
        neighbours: of each sample in the graph, k.
        mutual: an edge needs both samples to be among each other's neighbours; false is the paper:
            one of them is enough, and both count twice.
        gamma: an edge weighs the cosine of its two samples to this power, negative ones nothing.
        alpha: share of a sample's labels that come from its neighbours.
        balance: the same number from each class instead of the best of all together.
        by: the model whose features are compared.
        weigh: a label counts in the loss as much as it is certain, which is its score, as in the
            paper; false: as 1.
    """

    classes: int | None = None

    def __init__(
        self,
        *,
        neighbours: Annotated[int, Ge(1)] = 50,
        mutual: bool = False,
        gamma: Annotated[float, Gt(0)] = 3.0,
        alpha: Annotated[float, Interval(gt=0, lt=1)] = 0.99,
        balance: bool = True,
        by: Literal["student", "teacher", "master"] = "student",
        weigh: bool = False,
    ) -> None:
        self.neighbours, self.mutual, self.gamma = neighbours, mutual, gamma
        self.alpha, self.balance, self.by, self.weigh = alpha, balance, by, weigh

    def needs(self) -> Needs:
        """One model's features."""
        return Needs(self.by)

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered:
        """At most ``budget`` samples with their labels.

        Raises:
            DataError: no sample is labelled, or features that are not finite.
        """
        if not (pool.labels >= 0).any():
            raise DataError(
                "discovery 'label_propagation' needs labelled samples to start from; "
                "set data.labels"
            )
        if not np.isfinite(pool.features).all():
            raise DataError("discovery 'label_propagation' got features that are not finite")
        known = np.unique(pool.labels[pool.labels >= 0])
        near = l2_normalize(pool.features)
        graph = connect_neighbours(near, self.neighbours, self.gamma, self.mutual)
        spread = diffuse(graph, (pool.labels[:, None] == known).astype(float), self.alpha)
        # Certainties can be equal; in the data's order one class would win.
        free = rng.permutation(np.flatnonzero((pool.labels < 0) & (spread.sum(1) > 0)))
        labels, score = known[spread[free].argmax(1)], measure_certainty(spread[free])
        chosen = select_samples(score, labels, budget, "min", None, self.balance, rng)
        chosen = chosen[free[chosen].argsort()]
        score = score[chosen].astype(np.float32)
        weights = score if self.weigh else None
        return Discovered(free[chosen], labels[chosen], score, weights=weights)


def diffuse(graph: csr_array, known: np.ndarray, alpha: float) -> np.ndarray:
    """Z (N, C) >= 0 of (I - alpha D^-1/2 W D^-1/2) Z = Y, a class at a time."""
    system = (eye_array(len(known)) - alpha * normalise_graph(graph)).tocsr()
    columns = [cg(system, column, rtol=1e-6)[0] for column in known.T]
    return np.maximum(np.stack(columns, 1), 0)
