"""Checks of backbones: timm can create them, and an embedder and a classifier can use them."""

from __future__ import annotations

import copy
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fewlabels.errors import ModelError
from fewlabels.models.backbone import make_backbone
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder
from fewlabels.testing.subject import Checks, Subject

CHECKS = Checks()
SIZE = 64


@CHECKS.add
def timm_makes_it_by_its_name(subject: Subject) -> None:
    """Once our registry has imported it; with classes, without, and with one channel."""
    subject.registry.get(subject.name)
    assert timm.is_model(subject.name), "timm does not know it; put @register_model under ours"
    model: Any = timm.create_model(subject.name, num_classes=3, in_chans=1, **subject.options)
    assert model.eval()(torch.rand(2, 1, SIZE, SIZE)).shape == (2, 3)


@CHECKS.add
def a_misspelt_option_is_refused(subject: Subject) -> None:
    """timm passes options on: a ``**kwargs`` would swallow it."""
    try:
        make_backbone(subject.name, options={**subject.options, "no_such_option": 1})
    except ModelError:
        return
    raise AssertionError("it took no_such_option=1; name each option, and take no **kwargs")


@CHECKS.add
def its_feature_is_what_it_says(subject: Subject) -> None:
    """``forward_features`` gives a map, ``forward_head`` the pooled (B, num_features)."""
    model = _make_backbone(subject).eval()
    with torch.no_grad():
        maps = model.forward_features(_make_images())
        features = model.forward_head(maps, pre_logits=True)
        assert features.shape == (2, model.num_features), f"features are {tuple(features.shape)}"
        torch.testing.assert_close(model(_make_images()), features)
    assert isinstance(model.get_classifier(), nn.Identity), "without classes it has a classifier"


@CHECKS.add
def it_can_become_an_embedder_and_a_classifier(subject: Subject) -> None:
    """A recipe makes one of them; a backbone for embedders alone is exempted, with this reason."""
    same: Any = {"image_size": SIZE, "backbone_options": subject.options}
    with torch.no_grad():
        output = Embedder(subject.name, embedding_size=8, **same).eval()(_make_images())
        assert output.embedding.shape == (2, 8), "the embedder gives no vector an image"
        try:
            classifier = Classifier(subject.name, classes=["a", "b", "c"], **same).eval()
        except (AttributeError, TypeError, ModelError) as error:
            raise AssertionError(
                f"no classifier can be made of it: {error}; give it timm's "
                "reset_classifier(num_classes, global_pool), or exempt={...} with the reason"
            ) from error
        assert classifier(_make_images()).logits.shape == (2, 3), "there is no score for each class"


@CHECKS.add
def every_weight_learns(subject: Subject) -> None:
    """A gradient for each parameter; in many processes an idle one ends the run."""
    model: Any = timm.create_model(subject.name, num_classes=3, **subject.options).train()
    model(_make_images()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"


@CHECKS.add
def an_image_is_seen_the_same_in_any_batch(subject: Subject) -> None:
    """In evaluation; and of two passes the second equals the first."""
    model = _make_backbone(subject).eval()
    with torch.no_grad():
        both = model(_make_images())
        torch.testing.assert_close(model(_make_images()), both, rtol=0, atol=0)
        torch.testing.assert_close(model(_make_images()[:1]), both[:1], rtol=1e-4, atol=1e-5)


@CHECKS.add
def a_saved_model_computes_the_same(subject: Subject) -> None:
    """A copy, as a teacher is, and a new one with its state."""
    model = _make_backbone(subject).train()
    model(_make_images())
    twin, other = copy.deepcopy(model), _make_backbone(subject, seed=1)
    other.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        wanted = model.eval()(_make_images())
        for same in (twin, other):
            torch.testing.assert_close(same.eval()(_make_images()), wanted, rtol=0, atol=0)


@CHECKS.add
def blocks_find_the_stages_that_it_names(subject: Subject) -> None:
    """``feature_info`` is true: each module gives a map of its channels and its reduction."""
    model = _make_backbone(subject).eval()
    found: dict[str, Tensor] = {}
    for stage in model.feature_info:
        module = model.get_submodule(stage["module"])
        module.register_forward_hook(
            lambda module, inputs, output, name=stage["module"]: found.update({name: output})
        )
    with torch.no_grad():
        model(_make_images())
    for stage in model.feature_info:
        channels, *sides = found[stage["module"]].shape[1:]
        lost = max(abs(SIZE // stage["reduction"] - side) for side in sides)
        assert channels == stage["num_chs"], f"{dict(stage)}: there are {channels} channels"
        assert lost <= 2, f"{dict(stage)}: its map is {sides}"  # without padding some are lost


def _make_backbone(subject: Subject, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return make_backbone(subject.name, options=subject.options)


def _make_images() -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
