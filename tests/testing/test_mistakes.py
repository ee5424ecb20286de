"""Mistakes of losses, blocks, sources and strategies are found by the check that is about them."""

import importlib
import itertools
import re
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from fewlabels.components.strategies.mean_teacher import MeanTeacher
from fewlabels.components.strategies.semi_supervised import forward_batches, get_images
from fewlabels.contracts import Records, write_term
from fewlabels.registry import REGISTRIES
from fewlabels.testing import runs
from fewlabels.testing.subject import Subject


class Loss(nn.Module):
    """Right: the mean distance of an image to those of its label."""

    def __init__(self):
        super().__init__()

    def forward(self, embeddings, labels):
        return self.of(embeddings, labels)

    def of(self, embeddings, labels):
        same = (labels[:, None] == labels) & (labels >= 0)
        squares = (embeddings[:, None] - embeddings).square().sum(2)
        return (squares * same).sum() / same.sum().clamp(min=1)


class Idle(Loss):
    """Has a weight that nothing uses."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


class Counts(Loss):
    """Grows, and forgets by how much."""

    count = 0

    def forward(self, embeddings, labels):
        self.count += 1
        return self.count * self.of(embeddings, labels)


def vector(self, embeddings, labels):
    return self.of(embeddings, labels)[None]


def looks(self, embeddings, labels, side, logits):
    return self.of(embeddings, labels) + side["gaze"].square().mean() + logits.square().mean()


def inside(self, embeddings, labels, valid):
    return self.of(embeddings, labels) + embeddings.mean() * valid[valid].float().mean()


def detached(self, embeddings, labels):
    return self.of(embeddings, labels).detach()


def remembering(self, embeddings, labels, memory):
    return self.of(embeddings, labels) + memory.embeddings.mean()


def first(self, embeddings, labels):
    return self.of(embeddings, labels) + embeddings[0].sum()


def root(self, embeddings, labels):
    return self.of(embeddings, labels).sqrt()


def empty(self, embeddings, labels):
    return embeddings[labels >= 0].square().mean() + self.of(embeddings, labels)


def asks(self, embeddings, truth):
    return self.of(embeddings, truth)


class Block(nn.Module):
    """Right: a gate a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, maps):
        return self.of(maps)

    def of(self, maps):
        return maps * self.gate.sigmoid()


def pooled(self, maps):
    return self.of(maps).mean((2, 3))


def unused(self, maps):
    return maps


def secret(self, maps):
    write_term("secret", self.gate.mean())
    return self.of(maps)


def kept(self, maps):
    self.last = self.of(maps)
    return self.last


def kept_detached(self, maps):
    self.last = self.of(maps).detach()
    return self.of(maps)


def centred(self, maps):
    return self.of(maps - maps.mean(0))


def running(self, maps):
    self.mean = 0.5 * getattr(self, "mean", 0) + 0.5 * maps.detach().mean()
    return self.of(maps) + self.mean


class Source:
    """Right: four grey squares."""

    default_split = "all"

    def load(self):
        images = [Image.new("RGB", (8, 8), (i, i, i)) for i in range(4)]
        return Records(images, np.arange(4) % 2, ("a", "b"), names=list("abcd"))


def changed(**fields):
    def load(self):
        right = vars(Source.load(self)) | fields
        return Records(**right)

    return {"load": load}


LOADS = itertools.count()


def any_order(self):
    order = np.roll(np.arange(4), next(LOADS))
    right = Source.load(self)
    return Records([right.images[i] for i in order], order % 2, ("a", "b"))


class Student(MeanTeacher):
    """Right, with few images a step."""

    def __init__(self, *, labelled: int = 8, batch: int = 8) -> None:
        super().__init__(labelled=labelled, batch=batch)


def through_the_teacher(self, phase, models, batch, clock):
    teacher = models.plain("teacher").requires_grad_(True)
    (out,) = forward_batches(teacher, get_images(batch["unlabelled"]))
    right = MeanTeacher.losses(self, phase, models, batch, clock)
    return {**right, "consistency": right["consistency"] + out.logits.square().mean()}


def reads_labels(self, phase, models, batch, clock):
    right = MeanTeacher.losses(self, phase, models, batch, clock)
    known = (batch["unlabelled"].labels >= 0).float().mean()
    return {**right, "supervised": right["supervised"] * (1 + known)}


def remembers(self, phase, models, batch, clock):
    self.count = getattr(self, "count", 0) + 1
    right = MeanTeacher.losses(self, phase, models, batch, clock)
    return {**right, "supervised": right["supervised"] * self.count}


def undeclared(self, phase, models, batch, clock):
    right = MeanTeacher.losses(self, phase, models, batch, clock)
    return {**right, "extra": right["supervised"]}


def with_an_idle_part(self, build):
    made = MeanTeacher.modules(self, build)
    for module in made.values():
        module.idle = nn.Linear(2, 2)
    return made


def forgets_weights(self, phase, models, batch, clock):
    known = batch["labelled"]._replace(weights=None)
    return MeanTeacher.losses(self, phase, models, {**batch, "labelled": known}, clock)


def hears_weights_alone(self, phase, models, batch, clock):
    right = forgets_weights(self, phase, models, batch, clock)
    less = 1 if batch["labelled"].weights is None else 0.5
    return {**right, "supervised": less * right["supervised"]}


WEIGHS = {"weighs_labels": True}
MISTAKES = {
    "losses": [
        (Loss, {"forward": vector}, "it_is_one_finite_number", "it has the shape (1,); take the mean"),
        (Loss, {"forward": asks}, "it_asks_for_nothing_that_a_strategy_cannot_give", "forward asks for truth, which no strategy of this package gives"),
        (Loss, {"forward": looks}, "it_asks_for_nothing_that_a_strategy_cannot_give", "where yours does, say so by conformance(..., inputs={...})"),
        (Idle, {}, "the_network_learns_from_it", "its parameter weight gets no gradient"),
        (Loss, {"forward": detached}, "the_network_learns_from_it", "the network learns nothing"),
        (Loss, {"forward": remembering}, "the_first_steps_without_a_memory_are_no_traceback", "where memory is None: 'NoneType' object has no attribute"),
        (Loss, {"forward": inside}, "the_first_steps_without_a_memory_are_no_traceback", "where valid is nowhere true: the loss is nan"),
        (Loss, {"forward": first}, "the_order_of_a_batch_means_nothing", "not close"),
        (Loss, {"forward": root}, "equal_embeddings_have_a_finite_gradient", "the gradient of embeddings is not finite"),
        (Loss, {"forward": empty}, "a_batch_without_labels_or_pairs_is_no_nan", "the loss is nan"),
        (Counts, {}, "a_stopped_run_goes_on_with_the_same_loss", "not equal"),
    ],
    "blocks": [
        (Block, {"forward": pooled}, "the_backbone_can_go_on_with_what_it_gives", "the shape (4, 16) came out"),
        (Block, {"forward": unused}, "every_weight_learns_and_so_does_what_is_before_it", "gate gets no gradient"),
        (Block, {"forward": secret}, "its_loss_terms_are_declared", "terms are (), and it wrote ('secret',)"),
        (Block, {"forward": kept}, "a_saved_model_computes_the_same", "it keeps last of a pass"),
        (Block, {"forward": kept, "last": None}, "two_passes_do_not_see_each_other", "hand a map over by fewlabels.contracts.write_side"),
        (Block, {"forward": kept_detached}, "a_saved_model_computes_the_same", "it keeps last of a pass"),
        (Block, {"forward": centred}, "an_image_is_seen_the_same_in_any_batch", "not close"),
        (Block, {"forward": running}, "two_passes_do_not_see_each_other", "it keeps mean of a pass"),
    ],
    "sources": [
        (Source, changed(truth=np.arange(3)), "labels_stand_with_their_images", "there are 3 truths, and of others: {'images': 4, 'names': 4}"),
        (Source, changed(truth=np.full(4, 2)), "every_truth_is_a_class_or_unknown", "truth goes from 2 to 2"),
        (Source, changed(images=[Image.new("L", (8, 8))] * 4), "images_are_rgb_and_the_same_each_time", "is L, not RGB"),
        (Source, {"default_split": property()}, "it_has_what_the_program_reads", "it has no default_split"),
        (Source, {"load": any_order}, "two_loads_give_the_same_order", "truth differs"),
        (Source, {"default_split": "official"}, "its_own_split_can_be_made", "an official split needs a column 'split'"),
    ],
    "strategies": [
        (Student, {"task": "clustering"}, "it_has_what_the_program_reads", "its task is 'clustering', none of retrieval, classification, pretext"),
        (Student, {"losses": through_the_teacher}, "no_gradient_flows_into_an_average", "gradients reach teacher."),
        (Student, {"losses": reads_labels}, "labels_that_are_hidden_are_never_looked_at", "labels of an unlabelled stream change the weights"),
        (Student, {"losses": remembers}, "a_stopped_run_goes_on_bit_for_bit", "the run that was stopped ends with other weights"),
        (Student, {"losses": undeclared}, "every_loss_term_is_finite_and_has_a_name_that_a_recipe_can_weigh", "term 'extra' is not in terms"),
        (Student, {**WEIGHS, "losses": forgets_weights}, "labels_count_by_their_weights_where_it_says_so", "a label of weight 0 changes the weights"),
        (Student, {**WEIGHS, "losses": hears_weights_alone}, "labels_count_by_their_weights_where_it_says_so", "a label of weight 0 changes the weights"),
        (Student, {"modules": with_an_idle_part}, "every_parameter_that_a_phase_trains_is_reached", "no gradient reaches student.idle.bias, student.idle.weight of 2"),
    ],
}  # fmt: skip


@pytest.fixture
def subject(built_in, monkeypatch):
    """Registers a component that is right but for some of its attributes."""

    def make(plural, right, attributes):
        registry = REGISTRIES[plural]
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
        name = f"mine{id(attributes)}"
        registry.register(name)(type("Mine", (right,), {"__doc__": "Mine.", **attributes}))
        return Subject(registry, name)

    return make


def checks_of(plural):
    return importlib.import_module(f"fewlabels.testing.{plural}").CHECKS


@pytest.mark.parametrize(
    ("plural", "right", "attributes", "check", "sentence"),
    [(plural, *each) for plural, mistakes in MISTAKES.items() for each in mistakes],
)
def test_each_mistake_is_told(subject, plural, right, attributes, check, sentence):
    with pytest.raises(AssertionError, match=re.escape(sentence)):
        checks_of(plural)[check](subject(plural, right, attributes))


def test_a_loss_can_get_what_its_own_strategy_gives(subject):
    made = subject("losses", Loss, {"forward": looks})
    gaze = {"gaze": torch.rand(12, 2, generator=torch.Generator().manual_seed(0))}
    made = replace(made, inputs={"side": gaze, "logits": torch.ones(12, 4)})
    for check in checks_of("losses").values():
        check(made)


class Bare(nn.Module):
    """A backbone that keeps no way to a classifier."""

    def __init__(self, heads: bool, num_classes: int, in_chans: int, global_pool: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 8, 3, stride=2)
        self.fc = nn.Linear(8, num_classes) if num_classes else nn.Identity()
        self.num_features = 8
        if heads:
            self.reset_classifier = self.give

    def give(self, num_classes, global_pool=None):
        self.fc = nn.Linear(8, num_classes)

    def get_classifier(self):
        return self.fc

    def forward_features(self, images):
        return self.stem(images)

    def forward_head(self, maps, pre_logits=False):
        pooled = maps.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


def bare(heads):
    def conformance_bare(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
    ) -> nn.Module:
        """A few weights."""
        return Bare(heads, num_classes, in_chans, global_pool)

    return conformance_bare


def test_a_backbone_without_a_classifier_is_told_so(built_in, monkeypatch):
    registry = REGISTRIES["backbones"]
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    check = checks_of("backbones")["it_can_become_an_embedder_and_a_classifier"]
    subject = Subject(registry, "conformance_bare")
    for heads in (False, True):
        made = bare(heads)
        registry._registered.pop("conformance_bare", None)
        registry.register("conformance_bare")(made)
        monkeypatch.setitem(timm.models._registry._model_entrypoints, "conformance_bare", made)
        if heads:
            check(subject)
        else:
            with pytest.raises(
                AssertionError, match=r"no classifier can be made of it: .*reset_cl"
            ):
                check(subject)


@pytest.mark.parametrize(
    ("plural", "right"), [("losses", Loss), ("blocks", Block), ("sources", Source)]
)
def test_what_is_right_passes(subject, plural, right):
    made = subject(plural, right, {})
    for check in checks_of(plural).values():
        check(made)


TWO = """
from fewlabels import strategies
from fewlabels.components.strategies.supervised import Supervised


@strategies.register("of_one_process")
class Fails(Supervised):
    "Fails in the second process, while the first one waits for it."

    def losses(self, phase, models, batch, clock):
        if models.accelerator.process_index == 1:
            raise RuntimeError("made for one process")
        return super().losses(phase, models, batch, clock)


@strategies.register("of_its_own_rows")
class Differs(Supervised):
    "Weighs a loss by the images that one process sees."

    def losses(self, phase, models, batch, clock):
        right = super().losses(phase, models, batch, clock)
        return {"supervised": right["supervised"] * len(batch["labelled"].labels)}
"""


LOSS = """
from fewlabels import losses
from fewlabels.components.losses.multi_similarity import MultiSimilarity


@losses.register("of_another_module")
class Same(MultiSimilarity):
    "Multi-similarity, from a module that the strategy knows nothing of."
"""


@pytest.mark.slow
def test_what_many_processes_would_do_is_said_of_each_strategy(tmp_path, built_in, monkeypatch):
    registry, checks = REGISTRIES["strategies"], checks_of("strategies")
    for each in (registry, REGISTRIES["losses"]):
        monkeypatch.setattr(each, "_registered", dict(each._registered))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, code in (("of_two_processes", TWO), ("losses_of_two_processes", LOSS)):
        (tmp_path / f"{name}.py").write_text(code)
        importlib.import_module(name)
        monkeypatch.delitem(sys.modules, name)
    few = {"labelled": 8, "batch": 8}
    fails, differs = (Subject(registry, n, few) for n in ("of_one_process", "of_its_own_rows"))
    pairs, losses = {"batch": 8, "per_class": 2}, {"losses": "of_another_module"}
    other = Subject(registry, "metric", pairs, losses)
    monkeypatch.setattr(checks, "expected", {"two_processes_train_as_one": [differs, other, fails]})
    check = checks["two_processes_train_as_one"]
    with pytest.raises(AssertionError, match="the loss is another one"):
        check(differs)
    check(other)
    with pytest.raises(AssertionError) as caught:
        check(fails)
    first, second = str(caught.value).split("RuntimeError: made for one process")
    assert "closed by peer" not in first
    assert "closed by peer" in second


def test_what_was_printed_before_the_time_was_up_is_told(tmp_path, monkeypatch):
    text = "import time\nprint('x' * 200_000, 'waits for ever', flush=True)\ntime.sleep(60)"
    (tmp_path / "sitecustomize.py").write_text(text)  # runs before anything that takes its time
    monkeypatch.syspath_prepend(str(tmp_path))
    told = runs._start_two([str(tmp_path)], seconds=2)
    assert told.startswith("it did not end within 2 s")
    assert "waits for ever" in told
