"""Learned model composition: three frozen feature extractors that feed one trained network."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear
from torch.nn.modules.batchnorm import _BatchNorm

from fewlabels.contracts import Output
from fewlabels.models.classifier import Classifier
from fewlabels.models.cut import find_layer, freeze_before, is_affine_after, map_at, replace_output
from fewlabels.models.modes import batch_norms, evaluating

LOG = logging.getLogger(__name__)


class Composition(nn.Module):
    """The master of LMCS (Section 3.3.2, Figure 3.3).

    The network is cut at the composition layer. The layer's feature maps in student k, in student
    k-1 and in the student's average each pass a *converter* of their own and are summed. The
    *decision network*, the layers after the cut, turns the sum into logits. Only the converters and
    the decision network learn. Evaluation mode uses a moving average of the decision network.

    The weights of the extractors are frozen, but the running statistics of their batch norms are
    estimated anew from the batches of each composition. The student's own come from mixed images;
    on unmixed images its outputs are far worse with them than with the batch's (docs/results/).

    With three equal extractors, its output before training equals that of each of them.

    Args:
        model: the student; it is copied, and shares no tensor with this module.
        layer: the composition layer: a path of a module in the backbone, or the number of a stage,
            -2 for the last but one before global pooling, so that a whole stage follows; None: -1.
            Where all that follows is an affine map, such as pooling and a linear layer, a warning
            says so, for the converters are then no more than one linear layer on pooled features.
        clusters: number of clusters of J_D; their centres are a buffer of this module.

    Raises:
        ModelError: no such module, one that does not cut the network in two, or one whose output
            is not a feature map.
    """

    composed: Tensor
    centres: Tensor

    def __init__(self, model: Classifier, layer: str | int | None = -2, clusters: int = 2) -> None:
        super().__init__()
        self.layer = find_layer(model, layer)
        # Its layers before the cut are those of the average: the third extractor.
        self.decision = copy.deepcopy(model)
        with evaluating(self.decision):
            like = freeze_before(self.decision, self.layer)
            self.affine = is_affine_after(self.decision, self.layer, like)
        if self.affine:
            LOG.warning(
                "composition layer %r of backbone %r is followed by an affine map alone, so the "
                "master is a linear layer on the students' pooled features; set strategy.layer to "
                "an earlier stage, as -2",
                self.layer,
                model.name,
            )
        self.average, self.current, self.previous = (
            copy.deepcopy(model).requires_grad_(False).eval() for _ in range(3)
        )
        for norm in self._batch_norms(self):
            norm.momentum = None  # the mean of all batches since the last reset
        last = like.ndim == 3 or getattr(model.backbone, "output_fmt", "NCHW") == "NHWC"
        axis = like.ndim - 1 if last else 1
        self.converters = nn.ModuleList(Converter(like.shape[axis], axis, 1 / 3) for _ in range(3))
        self.register_buffer("composed", torch.tensor(False))
        self.register_buffer("centres", torch.zeros(clusters, model.feature_size))
        self._estimating, self._seen = False, 0

    @torch.no_grad()
    def begin_composition(self, student: nn.Module, average: nn.Module) -> None:
        """Begin a composition: copy student k and its average as they are now. Student k-1 is the
        student of the composition before; in the first composition it is student k."""
        before = self.current if self.composed else student
        self.previous.load_state_dict(before.state_dict())
        self.current.load_state_dict(student.state_dict())
        self.decision.load_state_dict(average.state_dict())
        self.average.load_state_dict(average.state_dict())
        for converter in self.converters:
            converter.reset_to_identity()  # type: ignore[operator]
        self._forget_statistics()
        self.composed.fill_(True)

    @property
    def takes_statistics(self) -> bool:
        """Whether batch norms of the decision network normalise by the batch at present."""
        return any(norm.training for norm in self._batch_norms(self.decision))

    @contextmanager
    def estimating_statistics(self) -> Iterator[None]:
        """Context manager: passes in evaluation mode within it take the running statistics anew.

        They are means over the images, in all three extractors and the decision network. For use
        after :meth:`begin_composition`. Where batch norms are frozen, nothing changes.
        """
        self._estimating, self._seen = self.takes_statistics, 0
        try:
            yield
        finally:
            if self._estimating:
                self.decision.load_state_dict(self.average.state_dict())
            self._estimating = False
            for norm in self._batch_norms(self):
                norm.momentum = None
            self._forget_statistics()

    def _weigh_batch(self, count: int) -> None:
        """Let a batch of ``count`` images move the running statistics by its share of all."""
        self._seen += count
        for network in (self.average, self.current, self.previous):
            for norm in self._batch_norms(network):
                norm.momentum, norm.training = count / self._seen, count > 1

    def _forget_statistics(self) -> None:
        for norm in self._batch_norms(self):
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()  # the next batch replaces what is there

    def train(self, mode: bool = True) -> Composition:
        """Set the mode; of the frozen students only batch norms enter train mode."""
        super().train(mode)
        self.average.eval()
        for extractor in (self.current, self.previous):
            extractor.eval()
            for norm in self._batch_norms(extractor):
                norm.train(mode)
        return self

    @staticmethod
    def _batch_norms(module: nn.Module) -> list[_BatchNorm]:
        return [norm for norm in batch_norms(module) if isinstance(norm, _BatchNorm)]

    def forward(self, images: Tensor) -> Output:
        """Features (B, F) and logits (B, C) of images (B, 3, H, W), floats in [0, 1]."""
        if self._estimating:
            self._weigh_batch(len(images))
        with torch.no_grad():
            maps = [map_at(model, self.layer, images) for model in (self.current, self.previous)]

        def fuse(own: Tensor) -> Tensor:
            parts = zip(self.converters, (*maps, own), strict=True)
            return torch.stack([converter(each) for converter, each in parts]).sum(0)

        network = self.decision if self.training else self.average
        with replace_output(network, self.layer, fuse):
            output: Output = network(images)
        return output


class Converter(nn.Module):
    """A fully connected layer over the channels of a feature map: a 1x1 convolution.

    Args:
        channels: of the input and of the output.
        axis: axis of the channels: 1 in (B, C, H, W), else the last.
        scale: the initial weight is the identity times this.
    """

    def __init__(self, channels: int, axis: int, scale: float) -> None:
        super().__init__()
        self.first, self.scale = axis == 1, scale
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_to_identity()

    @torch.no_grad()
    def reset_to_identity(self) -> None:
        """Set the weight to the identity times ``scale``, and the bias to 0."""
        nn.init.eye_(self.weight).mul_(self.scale)
        nn.init.zeros_(self.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """A map of the same shape."""
        if self.first:
            return conv2d(maps, self.weight[:, :, None, None], self.bias)
        return linear(maps, self.weight, self.bias)
