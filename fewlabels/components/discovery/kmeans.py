"""KMeans: clusters of the embeddings as pseudo labels."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.errors import DataError
from fewlabels.ops.centres import l2_normalize
from fewlabels.ops.kmeans import cluster_kmeans
from fewlabels.registry import discovery


@discovery.register("kmeans")
class KMeans:
    """Labels every sample with its k-means cluster (TAC-CCL, Section 4.3.2).

    Embeddings (N, D) are scaled to length 1. The score of a sample is its cosine to the centre of
    its cluster; centres are given to the losses (Eq. 4.3). The budget is ignored: cluster numbers
    of two clusterings do not correspond, so every sample is labelled anew.

    Args:
        clusters: number of clusters; the dissertation has 100 for CUB and Cars, 10,000 for SOP.
        iterations: iterations of k-means.
        warm: start from the centres of the previous discovery, so that a cluster tends to keep its
            number.

    Source: Li (2021), chapter 4, Section 4.3.2.
    Recipe: `discovery: {name: kmeans, clusters: 100}`
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
        """The embeddings of the student."""
        return Needs("student")

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered:
        """Clusters of all samples without a given label.

        Raises:
            DataError: fewer samples than clusters, or features that are not finite.
        """
        free = np.flatnonzero(~pool.given)
        if len(free) == 0:
            raise DataError(
                "discovery 'kmeans': every training image has a label of a person, and none is "
                "left to cluster; remove discovery, or lower data.labels"
            )
        with np.errstate(invalid="ignore"):  # kmeans refuses features that are not finite
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
        """The centres from which the next discovery starts."""
        return {} if self.centres is None else {"centres": self.centres}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Restore the centres of a stopped run."""
        self.centres = state.get("centres")
