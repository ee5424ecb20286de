"""The discoveries of a recipe, asked in turn; what they find goes into the ledger."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fewlabels.contracts import Discovered, Discovery, Found, Pool, Records
from fewlabels.data.pixels import Selected
from fewlabels.errors import ComponentError, FewLabelsError
from fewlabels.ledger import write_ledger
from fewlabels.metrics import Metrics
from fewlabels.plan import Plan
from fewlabels.seeds import generator


class Discoveries:
    """Runs in the main process only.

    Args:
        components: by the names of the recipe, in order.
        rows: (N,) data-set rows of the training images.
        given: (N,) bool, labelled by a person.
    """

    def __init__(
        self,
        components: Sequence[tuple[str, Discovery]],
        records: Records,
        rows: np.ndarray,
        given: np.ndarray,
        plan: Plan,
        seed: int,
        folder: Path,
        metrics: Metrics,
    ) -> None:
        self.components, self.records, self.rows, self.given = components, records, rows, given
        self.plan, self.seed, self.folder, self.metrics = plan, seed, folder, metrics

    def models(self) -> set[str]:
        """The models whose features are looked at."""
        return {component.needs().model for _, component in self.components}

    def __call__(
        self, round: int, labels: np.ndarray, features: Mapping[str, np.ndarray]
    ) -> tuple[Found, int]:
        """What is labelled now, and how many labels were found.

        Args:
            labels: (N,) labels so far, -1 = unlabelled.
            features: (N, D) by model.

        Raises:
            ComponentError: a discovery that needs what this version's loop does not keep.
        """
        labels, found, count = labels.copy(), None, 0
        for name, component in self.components:
            pool = self._pool(name, component, labels, features, found)
            budget = self.plan.budget(labels, self.given)
            rng = generator(self.seed, "discovery", name, round)
            try:
                found = component.discover(pool, budget, rng)
            except FewLabelsError:
                raise
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                raise ComponentError(
                    f"discovery {name!r} failed with {type(error).__name__}: {error} "
                    f"({last.filename}:{last.lineno})"
                ) from error
            if found.merge == "replace":
                labels = np.where(self.given, labels, -1)
            labels[found.indices] = found.labels
            count += len(found.indices)
            path = self.folder / "ledger" / f"round-{round:03d}-{name}.parquet"
            summary = write_ledger(path, found, pool, self.records, round, name)
            self.metrics.write([{"kind": "discovery", "discovery": name, **summary}], round=round)
        centres, pairs = (None, None) if found is None else (found.centres, found.pairs)
        return Found(labels, self.given, centres, pairs, fresh=True), count

    def _pool(
        self,
        name: str,
        component: Discovery,
        labels: np.ndarray,
        features: Mapping[str, np.ndarray],
        found: Discovered | None,
    ) -> Pool:
        need = component.needs()
        if need.history or need.probabilities:
            raise ComponentError(
                f"discovery {name!r} needs the history or the probabilities of a classifier, "
                "which this strategy does not keep"
            )
        images = Selected(self.records.images, self.rows) if need.images else None
        return Pool(
            self.rows, features[need.model], labels.copy(), self.given, images=images, found=found
        )

    def state_dict(self) -> dict[str, np.ndarray]:
        """What the components keep between rounds."""
        return {
            f"{name}.{key}": value
            for name, component in self.components
            if hasattr(component, "state_dict")
            for key, value in component.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Give it back to them."""
        for name, component in self.components:
            if hasattr(component, "load_state_dict"):
                start = f"{name}."
                own = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
                component.load_state_dict(own)
