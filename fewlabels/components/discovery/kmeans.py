"""KMeans: clusters of the embeddings as pseudo labels."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.ops.centres import l2_normalize
from fewlabels.ops.kmeans import cluster_kmeans
from fewlabels.registry import discovery


@discovery.register("kmeans")
class KMeans:
    """Labels every sample with its cluster (Section 4.3.2); centres serve Eq. 4.3.

    Scores are the similarity to the cluster's centre. The budget is not looked at: a cluster number
    means nothing beside the numbers of another clustering, so all samples are labelled anew.

    Args:
        clusters: how many; the text has 100 for CUB and Cars, 10,000 for SOP.
        iterations: of k-means.
        warm: begin with the centres of the discovery before, so that numbers stay comparable.
    """

    def __init__(
        self,
        *,
        clusters: Annotated[int, Ge(2)] = 100,
        iterations: Annotated[int, Ge(1)] = 20,
        warm: bool = True,
    ) -> None:
        self.classes: int | None = clusters
        self.clusters, self.iterations, self.warm = clusters, iterations, warm
        self.centres: np.ndarray | None = None

    def needs(self) -> Needs:
        """The student's embeddings."""
        return Needs("student")

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered:
        """Clusters of all samples that no person has labelled.

        Raises:
            DataError: fewer samples than clusters, or features that are not finite.
        """
        free = np.flatnonzero(~pool.given)
        with np.errstate(invalid="ignore"):  # what is not finite is refused by kmeans
            features = l2_normalize(pool.features[free])
        centres, labels = cluster_kmeans(
            features,
            self.clusters,
            iterations=self.iterations,
            seed=int(rng.integers(2**31)),
            start=self.centres if self.warm else None,
        )
        self.centres = centres
        scores = np.einsum("nd,nd->n", features, centres[labels]).astype(np.float32)
        return Discovered(free, labels, scores, centres, merge="replace")

    def state_dict(self) -> dict[str, np.ndarray]:
        """The centres that the next discovery begins with."""
        return {} if self.centres is None else {"centres": self.centres}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Take over the centres of a stopped run."""
        self.centres = state.get("centres")
