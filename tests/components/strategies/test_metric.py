"""Metric: whose embeddings the memory holds, and proxies at new clusters."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from run_folders import read_rows
from safetensors.torch import load_file
from small import DIGITS

import fewlabels
from fewlabels.components.losses.cbml import CBML
from fewlabels.components.losses.map_agreement import MapAgreement
from fewlabels.components.losses.multi_similarity import MultiSimilarity
from fewlabels.components.losses.pml import resolve_pml_loss
from fewlabels.components.strategies.metric import Metric
from fewlabels.components.views.flip import Flip
from fewlabels.contracts import Clock, LabelState, Part, Round
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.errors import DataError
from fewlabels.models.embedder import Embedder
from fewlabels.recipe.recipe import recipe_from
from fewlabels.training.modules import TrainingModules

RECIPE = {
    **DIGITS,
    "views": [{"name": "flip"}],
    "strategy": {"name": "metric", "batch": 20, "per_class": 5},
    "losses": [{"name": "multi_similarity"}],
    "optimizer": {"name": "adam", "lr": 1e-2},
    "rounds": {"rounds": 2, "steps_per_epoch": 4},
    "evaluation": {"before": False},
    "train": {"log_every": 1},
}


def setting(loss, blocks=(), **options):
    """A strategy with its modules, and a batch of 6 images of 3 classes."""
    torch.manual_seed(0)
    student = Embedder(
        "convnet3",
        image_size=32,
        embedding_size=8,
        backbone_options={"width": 0.25},
        blocks=list(blocks),
    )
    build = SimpleNamespace(
        view=Pipeline([Flip()], 32),
        size=9,
        embedding_size=8,
        embedder=lambda: student,
        losses=lambda: {"loss": loss},
    )
    strategy = Metric(batch=6, per_class=2, **options)
    models = TrainingModules(strategy.modules(build), Accelerator(cpu=True))
    (phase,) = strategy.phases(Round(0, 0, 1, 0))
    rng = torch.Generator().manual_seed(1)
    images = (255 * torch.rand(6, 3, 32, 32)).byte()
    views = [view(images, rng) for view in phase.streams["images"].views]
    batch = {"images": Part(torch.arange(6), torch.tensor([0, 0, 1, 1, 2, 2]), views)}
    return strategy, models, phase, batch


def train_rows(folder):
    return read_rows(folder, "train")


def test_a_momentum_copy_fills_the_memory_and_only_the_student_learns():
    strategy, models, phase, batch = setting(MultiSimilarity(), views=2, momentum=0.99)
    student, momentum = models.plain("student"), models.plain("momentum").eval()
    with torch.no_grad():
        student.head.weight.normal_()
    given = strategy.given(models, batch, Clock(0, 0, 0))
    images = torch.cat([view.images for view in batch["images"].views])
    slow = momentum(images).embedding  # the second view writes last
    torch.testing.assert_close(given["memory"].embeddings[:6], slow[6:])
    assert (given["embeddings"] - slow).abs().max() > 0.1
    assert not given["memory"].embeddings.requires_grad
    sum(strategy.losses(phase, models, batch, Clock(0, 0, 0)).values()).backward()
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in momentum.parameters())
    assert strategy.deploys == "student"
    assert phase.averages["momentum"].decay(10_000) == 0.99


def test_without_momentum_the_memory_holds_the_students_own():
    strategy, models, _, batch = setting(MultiSimilarity())
    given = strategy.given(models, batch, Clock(0, 0, 0))
    assert torch.equal(given["memory"].embeddings[:6], given["embeddings"].detach())


def test_momentum_without_a_memory_is_refused():
    with pytest.raises(DataError, match="momentum fills a memory and there is none; set memory"):
        Metric(memory=None, momentum=0.999)


@pytest.mark.parametrize(
    "name", ["proxy_anchor_loss", "normalized_softmax_loss", "sub_center_arc_face_loss"]
)
def test_proxies_start_again_from_new_centres(name):
    loss = resolve_pml_loss(name)(8, 3)
    strategy, models, phase, _ = setting(loss)
    centres = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    found = LabelState(
        np.zeros(9, int), np.zeros(9, int), np.zeros(9, bool), centres, None, changed=True
    )
    before = next(loss.parameters()).clone()
    strategy.begin(phase, models, found._replace(changed=False), None)
    assert torch.equal(next(loss.parameters()), before)
    strategy.begin(phase, models, found, None)
    after = next(loss.parameters()).detach()
    if name == "sub_center_arc_face_loss":  # three for each class: which is the centre's?
        assert torch.equal(after, before)
    else:
        proxies = after.T if name == "normalized_softmax_loss" else after
        assert torch.equal(proxies, torch.from_numpy(centres))


def test_a_momentum_bank_with_a_contrastive_loss_runs(tmp_path):
    """The baseline of chapter 5: multi-similarity in the batch, contrastive against the bank."""
    bank = {"memory": 64, "one_slot_per_image": False, "momentum": 0.9}
    recipe = recipe_from(
        {
            **RECIPE,
            "strategy": {**RECIPE["strategy"], **bank},
            "losses": [
                {"name": "multi_similarity", "memory_weight": 0},
                {"name": "pml:contrastive_loss", "use_memory": True},
            ],
        }
    )
    result = fewlabels.train(recipe, out=tmp_path)
    train = train_rows(result.folder)
    assert len(train) == 8
    assert all(row["pml:contrastive_loss"] > 0 for row in train)


@pytest.mark.parametrize(("side", "given"), [("san.maps", {"san.maps"}), ("san.map", None)])
def test_a_loss_gets_the_side_output_that_it_names_and_no_other(side, given):
    block = {"name": "san", "after": "conv3", "hidden": 8}
    strategy, models, _, batch = setting(MapAgreement(side=side), [block], views=2)
    every = models.plain("student")(batch["images"].views[0].images).side
    assert len(every) > 1
    found = strategy.given(models, batch, Clock(0, 0, 0))["side"]
    assert set(found) == (given or set(every))  # all, for a message that lists them


@pytest.mark.parametrize("name", ["contrastive_loss", "cbml"])
def test_a_loss_against_a_memory_that_is_not_there_is_refused(name):
    if name == "cbml":
        loss = CBML(use_memory=True)
    else:
        loss = resolve_pml_loss(name)(use_memory=True)
    setting(loss)
    with pytest.raises(
        DataError, match=r"'loss' has use_memory: true, and strategy\.memory is null"
    ):
        setting(loss, memory=None)


def test_head_and_proxies_train_alone_for_the_first_epoch(tmp_path):
    """Proxy-Anchor's warm-up: the backbone's parameters get no step, then they learn too."""
    recipe = recipe_from(
        {
            **RECIPE,
            "data": {**RECIPE["data"], "labels": "all"},
            "discovery": [],
            "losses": [{"name": "pml:proxy_anchor_loss"}],
            "optimizer": {"name": "adamw", "lr": 1e-2, "frozen_epochs": {"student.backbone": 1}},
            "train": {"log_every": 1, "checkpoint_every": 1, "keep_checkpoints": 9},
            "rounds": {"rounds": 1, "epochs_per_round": 2, "steps_per_epoch": 4},
        }
    )
    folder = fewlabels.train(recipe, out=tmp_path).folder
    places = {int(at.name[5:]): at for at in (folder / "checkpoints").iterdir()}
    first, one, two = (places[step] for step in (1, 4, 8))
    weights, held, freed = (load_file(at / "modules.safetensors") for at in (first, one, two))
    backbone = [n for n in weights if "backbone" in n and n.endswith(("weight", "bias"))]
    assert len(backbone) == 9
    assert all(torch.equal(weights[name], held[name]) for name in backbone)
    assert not any(torch.equal(weights[name], freed[name]) for name in backbone)
    moved = [n for n in weights if n.endswith("running_mean")]
    assert not any(torch.equal(weights[name], held[name]) for name in moved)
    learnt = [
        len(torch.load(at / "optimizers.pt", weights_only=True)["embed"]["state"])
        for at in (one, two)
    ]
    assert learnt[0] == 3  # the head's weight and bias, and the proxies
    assert learnt[1] > 3


def test_terms_of_a_block_are_logged_and_weighed(tmp_path):
    block = {"name": "san", "after": "conv2", "hidden": 8}
    rows = {}
    for name, weight in [("off", 0.0), ("on", 1.0)]:
        weights = {f"san.{term}": weight for term in ("entropy", "correlation", "coherence")}
        recipe = recipe_from({**RECIPE, "name": name, "blocks": [block], "weights": weights})
        result = fewlabels.train(recipe, out=tmp_path)
        rows[name] = train_rows(result.folder)
    first = rows["on"][0]
    expected = first["multi_similarity"] + sum(
        first[f"san.{term}"] for term in ("entropy", "correlation", "coherence")
    )
    assert first["loss"] == pytest.approx(expected, rel=1e-5)
    assert rows["off"][0]["loss"] == pytest.approx(rows["off"][0]["multi_similarity"], rel=1e-5)
    assert rows["on"][-1]["san.off_diagonal"] < rows["off"][-1]["san.off_diagonal"]
