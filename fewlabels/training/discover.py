"""Runs the discoveries of a recipe in turn, and writes what they find into the ledger."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fewlabels.contracts import (
    Discovered,
    Discovery,
    LabelState,
    Needs,
    Pairs,
    Phase,
    Pool,
    Records,
    Strategy,
    check_discovered,
    restore_state,
    state_of,
    weighs_found,
)
from fewlabels.data.pixels import Selected
from fewlabels.errors import ComponentError, FewLabelsError, component_failed
from fewlabels.evaluation.discovery_quality import of_classes, of_clusters, of_pairs
from fewlabels.ops.seeds import make_generator
from fewlabels.training.ledger import write_ledger
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.round_schedule import RoundSchedule
from fewlabels.training.run_folder import RunFolder

LOG = logging.getLogger(__name__)


class Extracted(NamedTuple):
    """A model's outputs for the training images, as discoveries need them."""

    features: np.ndarray  # (N, D)
    probabilities: np.ndarray | None = None  # (N, C)
    history: tuple[np.ndarray, ...] = ()  # (N, D) each, at the discoveries before, newest first


class Discoverer:
    """Runs a recipe's discoveries; in the main process only.

    Args:
        components: each discovery with its name in the recipe, in order.
        rows: (N,) data-set rows of the training images.
        given: (N,) bool, labelled by a person.
    """

    def __init__(
        self,
        components: Sequence[tuple[str, Discovery]],
        records: Records,
        rows: np.ndarray,
        given: np.ndarray,
        schedule: RoundSchedule,
        seed: int,
        folder: RunFolder,
        metrics: MetricLog,
    ) -> None:
        self.components, self.records, self.rows, self.given = components, records, rows, given
        self.schedule, self.seed, self.folder, self.metrics = schedule, seed, folder, metrics

    def collect_needs(self) -> dict[str, Needs]:
        """The model outputs to compute, by model: the union of what the components need."""
        result: dict[str, Needs] = {}
        for _, component in self.components:
            need = component.needs()
            other = result.get(need.model, Needs(need.model, features=False))
            result[need.model] = Needs(
                need.model,
                max(need.history, other.history),
                need.probabilities or other.probabilities,
                features=need.features or other.features,
            )
        return result

    def check_models(self, strategy: Strategy, models: Collection[str]) -> None:
        """Refuse a discovery that needs a model which the strategy does not have.

        Raises:
            ComponentError: naming the discovery, the model, and those that there are.
        """
        for name, component in self.components:
            asked = component.needs().model
            if strategy.seen_through(asked, 0) not in models or asked not in models:
                raise ComponentError(
                    f"discovery {name!r} looks through the {asked}, which this strategy does not "
                    f"have; set by: to one of {', '.join(models)}"
                )

    def discover_labels(
        self,
        round: int,
        before: LabelState,
        seen: Mapping[str, Extracted],
        phases: Sequence[Phase],
    ) -> tuple[LabelState, int]:
        """Run the discoveries; give the new labels, and how many labels were found.

        Args:
            before: the labels so far, with their weights.
            seen: outputs for the training images, by model.
            phases: of the round; unlabelled images that they train on must not run out.

        Raises:
            ComponentError: a discovery that fails, or that breaks its contract.
        """
        labels, found, count = before.labels.copy(), None, 0
        weights = np.ones(len(labels), np.float32) if before.weights is None else before.weights
        weights = weights.copy()
        centres: np.ndarray | None = None
        pairs: Pairs | None = None
        for name, component in self.components:
            pool = self._make_pool(component, labels, seen[component.needs().model], found)
            budget = self._find_budget(labels, phases)
            found = self._ask(name, component, pool, budget, round)
            if found.merge == "replace":
                labels = np.where(self.given, labels, -1)
                weights[:] = 1
            truth = self.records.truth[self.rows[found.indices]]
            labels[found.indices] = truth if self.schedule.oracle else found.labels
            counts = found.weights is not None and not self.schedule.oracle
            weights[found.indices] = found.weights if counts else 1
            centres = centres if found.centres is None else found.centres
            pairs = pairs if found.pairs is None else found.pairs
            count += len(found.indices)
            file = f"round-{round:03d}-{name.replace(':', '-')}.parquet"  # no colon, for Windows
            path = self.folder.ledger / file
            own = component.classes is not None
            write_ledger(path, found, pool, self.records, round, name)
            told: dict[str, float] = {"discovered": float(len(found.indices))}
            if own:
                told |= of_clusters(found.labels, truth, before.labels[found.indices])
            else:
                told |= of_classes(found.labels, truth)
            if found.pairs is not None:
                told |= of_pairs(found.pairs, labels, self.records.truth[self.rows])
            self.metrics.write_rows([{"kind": "discovery", "discovery": name, **told}], round=round)
        state = LabelState(
            labels,
            before.labels,
            self.given,
            centres,
            pairs,
            changed=count > 0,
            weights=None if (weights == 1).all() else weights,
            previous_weights=before.weights,
        )
        return state, count

    def _ask(
        self, name: str, component: Discovery, pool: Pool, budget: int, round: int
    ) -> Discovered:
        """What a discovery finds in a pool, held to its contract."""
        rng = make_generator(self.seed, "discovery", name, round)
        try:
            found = component.discover(pool, budget, rng)
        except FewLabelsError:
            raise
        except Exception as error:
            raise component_failed(f"discovery {name!r}", error) from error
        broken = check_discovered(found, pool, budget, component.classes)
        if not broken and found.weights is not None and not weighs_found(component):
            broken = (
                "it gave weights and does not say so; give it an option weigh, or its class "
                "weigh = True"
            )
        if broken:
            raise ComponentError(f"discovery {name!r} broke its contract: {broken}")
        return found

    def _find_budget(self, labels: np.ndarray, phases: Sequence[Phase]) -> int:
        """How many samples a discovery may label now, of labels (N,) so far.

        Where a phase trains on the images without a label, a batch of them is kept; at most half
        of those that were not labelled by a person.
        """
        budget = self.schedule.label_budget(labels, self.given)
        streams = [stream for phase in phases for stream in phase.streams.values()]
        batches = [stream.batch for stream in streams if stream.of == "unlabelled"]
        if not batches:
            return budget
        kept = min(max(batches), max(1, int((~self.given).sum()) // 2))
        left = int((labels < 0).sum())
        if min(budget, left) <= left - kept:
            return budget
        LOG.warning(
            "%d of %d images have no label, and the strategy trains on a batch of such images: "
            "discovery keeps %d of them; set rounds.limit to stop it earlier",
            left,
            len(labels),
            min(left, kept),
        )
        return max(0, left - kept)

    def _make_pool(
        self, component: Discovery, labels: np.ndarray, seen: Extracted, found: Discovered | None
    ) -> Pool:
        need, names = component.needs(), self.records.names
        return Pool(
            self.rows,
            seen.features,
            labels.copy(),
            self.given,
            classes=len(self.records.classes) or None,
            probabilities=seen.probabilities if need.probabilities else None,
            images=Selected(self.records.images, self.rows) if need.images else None,
            history=seen.history[: need.history],
            found=found,
            names=[str(names[row]) for row in self.rows.tolist()] if len(names) else (),
            class_names=self.records.classes,
        )

    def state_dict(self) -> dict[str, np.ndarray]:
        """The state that the components keep between rounds."""
        state = {}
        for name, component in self.components:
            for key, value in state_of(component).items():
                state[f"{name}.{key}"] = np.asarray(value)
                if state[f"{name}.{key}"].dtype.hasobject:
                    raise ComponentError(
                        f"discovery {name!r}: state_dict() has {type(value).__name__} under "
                        f"{key!r}; only arrays of numbers can be kept"
                    )
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`state_dict` gave."""
        for name, component in self.components:
            start = f"{name}."
            own = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            if own:  # else it had kept nothing yet
                restore_state(component, own)
