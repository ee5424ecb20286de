"""Base of strategies that compute a classifier's last layer instead of training it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from fewlabels.contracts import Batch, Build, Clock, Extract, LabelState, Models, Phase, Round
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import DataError
from fewlabels.ops.linear_rules import (
    LinearRule,
    Moments,
    fit_temperature,
    measure_moments,
    score_left_out,
    span_features,
)


class ClosedForm(ABC):
    """Base: a round computes the last layer from the features of all labelled images.

    Nothing else of the network changes and no step is trained, so with ``model.frozen`` a round
    takes a second. Subclasses write :meth:`fit_rule`. Scores are scaled so that their softmax is a
    probability: by the factor under which the given labels are the likeliest when each is predicted
    from a fit without it.
    """

    task: Literal["classification"] = "classification"
    deploys = "student"
    supplies = ()
    weighs_labels = True
    terms: tuple[str, ...] = ()
    weights: Mapping[str, Ramp] = {}

    @abstractmethod
    def fit_rule(self, moments: Moments, discovered: bool) -> LinearRule:
        """The rule of labelled features, of whose labels some may be discovered."""

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student.

        Raises:
            DataError: a backbone whose last layer is not one linear layer.
        """
        student = build.classifier()
        self.classes = require_linear_layer(student)
        return {"student": student}

    def seen_through(self, model: str, discoveries: int) -> str:
        """The name of the model through which a discovery sees images: here the same."""
        return model

    def start(self, models: Models, extract: Extract) -> None:  # noqa: B027 (not to be overridden)
        """Nothing to prepare."""

    def phases(self, round: Round) -> list[Phase]:
        """One phase without steps, whose begin computes the layer."""
        return [Phase("fit", ("student",), {}, steps=0)]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Compute the last layer from all labels that there are now."""
        known = np.flatnonzero(found.labels >= 0)
        features, labels = extract("student", "features", known), found.labels[known]
        weights = None if found.weights is None else found.weights[known]
        places, basis = span_features(features)
        moments = measure_moments(places, labels, self.classes, weights, features.shape[1])
        given = found.given[known]
        fit = partial(self.fit_rule, discovered=not given.all())
        judged, scores = score_left_out(fit, moments, places[given], labels[given])
        factor = fit_temperature(scores, labels[given][judged])
        rule = fit(moments).restore_width(basis).scale_scores(factor)
        student: Any = models.plain("student")
        with torch.no_grad():
            layer = student.backbone.get_classifier()
            layer.weight.copy_(torch.from_numpy(rule.weight))
            layer.bias.copy_(torch.from_numpy(rule.bias))

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Never asked for: no phase has steps."""
        return {}


def require_linear_layer(student: Any) -> int:
    """The number of classes of a classifier whose last layer can be computed.

    Raises:
        DataError: a backbone whose last layer is not one linear layer.
    """
    layer = student.backbone.get_classifier()
    if not isinstance(layer, nn.Linear) or is_parametrized(layer):
        raise DataError(
            "a strategy in closed form sets a plain linear layer, which this backbone does not "
            "end in; set model.head: root"
        )
    return len(student.classes)
