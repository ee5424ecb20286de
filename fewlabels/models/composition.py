"""Learned model composition: three frozen feature extractors that feed one trained network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear
from torch.nn.modules.batchnorm import _BatchNorm

from fewlabels.contracts import Output
from fewlabels.errors import ModelError, first_few, suggest_nearest
from fewlabels.models.classifier import Classifier
from fewlabels.models.modes import evaluating, keeping_modes


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
        layer: the composition layer, a path of a module in the backbone; None: the last stage
            before global pooling, according to the backbone's ``feature_info``.
        clusters: number of clusters of J_D; their centres are a buffer of this module.

    Raises:
        ModelError: no such module, one that does not cut the network in two, or one whose output
            is not a feature map.
    """

    composed: Tensor
    centres: Tensor

    def __init__(self, model: Classifier, layer: str | None = None, clusters: int = 2) -> None:
        super().__init__()
        self.layer = last_stage(model.backbone) if layer is None else layer
        known = [name for name, _ in model.backbone.named_modules() if name]
        if self.layer not in known:
            raise ModelError(
                f"composition layer: backbone {model.name!r} has no module {self.layer!r}"
                f"{suggest_nearest(self.layer, known)}  (all: {first_few(known, 12)})"
            )
        # Its layers before the cut are those of the average: the third extractor.
        self.decision = copy.deepcopy(model)
        with evaluating(self.decision):
            channels = self._freeze_before_the_cut()
        self.average, self.current, self.previous = (
            copy.deepcopy(model).requires_grad_(False).eval() for _ in range(3)
        )
        for norm in self._batch_norms(self):
            norm.momentum = None  # the mean of all batches since the last reset
        self.converters = nn.ModuleList(Converter(*channels, 1 / 3) for _ in range(3))
        self.register_buffer("composed", torch.tensor(False))
        self.register_buffer("centres", torch.zeros(clusters, model.feature_size))

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
        for norm in self._batch_norms(self):
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()  # the next batch replaces what was copied
        self.composed.fill_(True)

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
        return [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]

    def forward(self, images: Tensor) -> Output:
        """Features (B, F) and logits (B, C) of images (B, 3, H, W), floats in [0, 1]."""
        with torch.no_grad():
            maps = [map_at(model, self.layer, images) for model in (self.current, self.previous)]

        def fuse(own: Tensor) -> Tensor:
            parts = zip(self.converters, (*maps, own), strict=True)
            return torch.stack([converter(each) for converter, each in parts]).sum(0)

        network = self.decision if self.training else self.average
        with replace_output(network, self.layer, fuse):
            output: Output = network(images)
        return output

    def _freeze_before_the_cut(self) -> tuple[int, int]:
        """Freeze the parameters before the cut; give the feature map's channels and their axis."""
        network, layer = self.decision, self.layer
        rng = torch.Generator().manual_seed(0)
        one, two = torch.rand(2, 1, 3, network.image_size, network.image_size, generator=rng)
        with torch.no_grad():
            found = map_at(network, layer, one)
        if not isinstance(found, Tensor) or found.ndim not in (3, 4):
            raise ModelError(
                f"composition layer {layer!r} gives no feature map (B, C, H, W), (B, H, W, C) or "
                "(B, N, C); choose a stage or a block"
            )
        leaf, calls = found.clone().requires_grad_(), 0

        def put(own: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return leaf.clone()  # what follows may change it in place

        logits = []
        try:
            with replace_output(network, layer, put):
                logits = [network(images).logits for images in (one, two)]
        except (RuntimeError, ValueError):
            pass  # the map does not fit where it passes the layer again
        if calls != 2 or not logits or not torch.equal(*logits):
            raise ModelError(
                f"composition layer {layer!r} does not cut backbone {network.name!r} in two: "
                "the map passes it more than once, or goes around it; choose a stage or a block"
            )
        learning = [p for p in network.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(logits[0].sum(), learning, allow_unused=True)
        for parameter, slope in zip(learning, slopes, strict=True):
            parameter.requires_grad_(slope is not None)
        last = found.ndim == 3 or getattr(network.backbone, "output_fmt", "NCHW") == "NHWC"
        axis = found.ndim - 1 if last else 1
        return found.shape[axis], axis


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


def last_stage(backbone: nn.Module) -> str:
    """The path of the last stage before global pooling.

    Raises:
        ModelError: a backbone that does not say what its stages are.
    """
    info: Any = getattr(backbone, "feature_info", None)
    stages = [stage["module"] for stage in getattr(info, "info", info) or () if stage.get("module")]
    if not stages:
        raise ModelError(
            "composition layer: this backbone does not say what its stages are; name one of its "
            f"modules (it has {first_few([n for n, _ in backbone.named_children()], 12)})"
        )
    return str(stages[-1])


class _ReachedError(Exception):
    """Raised once the wanted layer has run, to skip the layers after it."""


def map_at(model: Classifier, layer: str, images: Tensor) -> Any:
    """The output of a layer of the backbone; the layers after it are not run."""
    found: list[Any] = []

    def stop(own: Any) -> None:
        found.append(own)
        raise _ReachedError

    try:
        with replace_output(model, layer, stop):
            model(images)
    except _ReachedError:
        pass
    if not found:
        raise ModelError(
            f"composition layer {layer!r} is not run by backbone {model.name!r}; choose another"
        )
    return found[0]


@contextmanager
def replace_output(model: Classifier, layer: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Context manager: within it, ``make(output)`` replaces the layer's output.

    Until the layer has run, all modules but batch norms are in evaluation mode, also in a model in
    train mode.
    """
    with keeping_modes(model) as restore_modes:

        def answer(module: nn.Module, inputs: Any, output: Any) -> Any:
            restore_modes()
            return make(output)

        handle = model.backbone.get_submodule(layer).register_forward_hook(answer)
        for each in model.modules():
            each.training = each.training and isinstance(each, _BatchNorm)
        try:
            yield
        finally:
            handle.remove()
