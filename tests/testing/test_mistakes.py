"""Mistakes of losses, blocks, sources and strategies are found by the check that is about them."""

import importlib
import itertools
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fewlabels.contracts import Records, write_term
from fewlabels.registry import REGISTRIES
from fewlabels.strategies.mean_teacher import MeanTeacher
from fewlabels.strategies.semi import forward, images_of
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
    (out,) = forward(teacher, images_of(batch["unlabelled"]))
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


MISTAKES = [
    ("losses", Loss, {"forward": vector}, "it_is_one_finite_number"),
    ("losses", Loss, {"forward": asks}, "it_asks_for_nothing_that_a_strategy_cannot_give"),
    ("losses", Idle, {}, "the_network_learns_from_it"),
    ("losses", Loss, {"forward": first}, "the_order_of_a_batch_means_nothing"),
    ("losses", Loss, {"forward": root}, "equal_embeddings_have_a_finite_gradient"),
    ("losses", Loss, {"forward": empty}, "a_batch_without_labels_or_pairs_is_no_nan"),
    ("losses", Counts, {}, "a_stopped_run_goes_on_with_the_same_loss"),
    ("blocks", Block, {"forward": pooled}, "the_backbone_can_go_on_with_what_it_gives"),
    ("blocks", Block, {"forward": unused}, "every_weight_learns_and_so_does_what_is_before_it"),
    ("blocks", Block, {"forward": secret}, "its_loss_terms_are_declared"),
    ("blocks", Block, {"forward": kept}, "a_saved_model_computes_the_same"),
    ("blocks", Block, {"forward": centred}, "an_image_is_seen_the_same_in_any_batch"),
    ("blocks", Block, {"forward": running}, "two_passes_do_not_see_each_other"),
    ("sources", Source, changed(truth=np.arange(3)), "labels_stand_with_their_images"),
    ("sources", Source, changed(truth=np.full(4, 2)), "every_truth_is_a_class_or_unknown"),
    (
        "sources",
        Source,
        changed(images=[Image.new("L", (8, 8))] * 4),
        "images_are_rgb_and_the_same_each_time",
    ),
    ("sources", Source, {"default_split": property()}, "it_has_what_the_program_reads"),
    ("losses", Loss, {"forward": detached}, "the_network_learns_from_it"),
    ("losses", Loss, {"forward": remembering}, "the_first_steps_without_a_memory_are_no_traceback"),
    ("sources", Source, {"load": any_order}, "two_loads_give_the_same_order"),
    ("sources", Source, {"default_split": "official"}, "its_own_split_can_be_made"),
    ("strategies", Student, {"losses": through_the_teacher}, "no_gradient_flows_into_an_average"),
    (
        "strategies",
        Student,
        {"losses": reads_labels},
        "labels_that_are_hidden_are_never_looked_at",
    ),
    ("strategies", Student, {"losses": remembers}, "a_stopped_run_goes_on_bit_for_bit"),
    (
        "strategies",
        Student,
        {"losses": undeclared},
        "every_loss_term_is_finite_and_has_a_name_that_a_recipe_can_weigh",
    ),
    (
        "strategies",
        Student,
        {"modules": with_an_idle_part},
        "every_parameter_that_a_phase_trains_is_reached",
    ),
]


@pytest.fixture
def subject(monkeypatch):
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


@pytest.mark.parametrize(("plural", "right", "attributes", "check"), MISTAKES)
def test_each_mistake_is_found(subject, plural, right, attributes, check):
    with pytest.raises((AssertionError, RuntimeError, AttributeError)):
        checks_of(plural)[check](subject(plural, right, attributes))


@pytest.mark.parametrize(
    ("plural", "right"), [("losses", Loss), ("blocks", Block), ("sources", Source)]
)
def test_what_is_right_passes(subject, plural, right):
    made = subject(plural, right, {})
    for check in checks_of(plural).values():
        check(made)


TWO = """
from fewlabels import strategies
from fewlabels.strategies.supervised import Supervised


@strategies.register("of_one_process")
class Fails(Supervised):
    "Fails where there are many."

    def losses(self, phase, models, batch, clock):
        if models.accelerator.num_processes > 1:
            raise RuntimeError("made for one process")
        return super().losses(phase, models, batch, clock)


@strategies.register("of_its_own_rows")
class Differs(Supervised):
    "Weighs a loss by the images that one process sees."

    def losses(self, phase, models, batch, clock):
        right = super().losses(phase, models, batch, clock)
        return {"supervised": right["supervised"] * len(batch["labelled"].labels)}
"""


def test_what_many_processes_would_do_is_said_of_each_strategy(tmp_path, monkeypatch):
    registry, checks = REGISTRIES["strategies"], checks_of("strategies")
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    (tmp_path / "of_two_processes.py").write_text(TWO)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("of_two_processes")
    few = {"labelled": 8, "batch": 8}
    fails, differs = (Subject(registry, n, few) for n in ("of_one_process", "of_its_own_rows"))
    monkeypatch.setattr(checks, "expected", {"two_processes_train_as_one": [differs, fails]})
    with pytest.raises(AssertionError, match="the loss is another one"):
        checks["two_processes_train_as_one"](differs)
    with pytest.raises(AssertionError, match="RuntimeError: made for one process"):
        checks["two_processes_train_as_one"](fails)
    del sys.modules["of_two_processes"]
