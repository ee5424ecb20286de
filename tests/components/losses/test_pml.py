import inspect
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses as library
from torch.nn.functional import normalize

from fewlabels.components.losses.pml import UNFIT, list_pml_losses, resolve_pml_loss
from fewlabels.errors import ComponentError
from fewlabels.models.memory import CrossBatchMemory
from fewlabels.recipe.component_schema import derive_component_schema
from fewlabels.registry.signature import check_signature, list_options

SIZES = {"embedding_size": 8, "classes": 4}
REAL: dict[str, Any] = {
    "contrastive_loss": (library.ContrastiveLoss, {"neg_margin": 0.5}),
    "triplet_margin_loss": (library.TripletMarginLoss, {"margin": 0.2, "swap": True}),
    "ntxent_loss": (library.NTXentLoss, {"temperature": 0.1}),
    "supcon_loss": (library.SupConLoss, {}),
    "circle_loss": (library.CircleLoss, {"m": 0.25, "gamma": 64}),
    "multi_similarity_loss": (library.MultiSimilarityLoss, {"beta": 40}),
    "margin_loss": (library.MarginLoss, {"nu": 0.1}),
    "nca_loss": (library.NCALoss, {}),
    "fast_ap_loss": (library.FastAPLoss, {"num_bins": 5}),
    "smooth_ap_loss": (library.SmoothAPLoss, {}),
    "signal_to_noise_ratio_contrastive_loss": (library.SignalToNoiseRatioContrastiveLoss, {}),
    "n_pairs_loss": (library.NPairsLoss, {}),
}
OVER_CLASSES: dict[str, Any] = {
    "p2s_grad_loss": (library.P2SGradLoss, {}),
    "proxy_anchor_loss": (library.ProxyAnchorLoss, {"margin": 0.2}),
    "proxy_nca_loss": (library.ProxyNCALoss, {}),
    "subcenter_arcface_loss": (library.SubCenterArcFaceLoss, {"sub_centers": 2}),
    "soft_triple_loss": (library.SoftTripleLoss, {"centers_per_class": 2}),
}


def build(name, **chosen):
    component = resolve_pml_loss(name)
    parameters = inspect.signature(component).parameters.values()
    return component(*[SIZES[p.name] for p in parameters if p.name in SIZES], **chosen)


def draw(rows=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, 8, generator=generator)), torch.arange(rows) % 4


@pytest.mark.parametrize("name", [*REAL, *OVER_CLASSES])
def test_value_is_that_of_the_library_called_directly(name):
    found, chosen = (REAL | OVER_CLASSES)[name]
    x, y = draw()
    sizes = {"embedding_size": 8, "num_classes": 4} if name in OVER_CLASSES else {}
    if name == "p2s_grad_loss":
        sizes = {"descriptors_dim": 8, "num_classes": 4}
    torch.manual_seed(0)
    expected = found(**sizes, **chosen)(x, y)
    torch.manual_seed(0)
    torch.testing.assert_close(build(name, **chosen)(x, y), expected)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", list_pml_losses())
def test_every_listed_loss_is_a_component_that_runs(name):
    component = resolve_pml_loss(name)
    check_signature(component, "loss", name)
    schema = derive_component_schema(component)
    assert schema["x-inputs"] == ["embeddings", "labels"]
    x, y = draw()
    loss = build(name)(x.requires_grad_(), y)
    loss.backward()
    assert loss.shape == ()
    assert x.grad.isfinite().all()


def test_class_weights_learn_and_are_saved():
    loss = build("proxy_anchor_loss")
    x, y = draw()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    first = loss(x, y).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.step()
    assert loss(x, y).item() < 0.8 * first
    again = build("proxy_anchor_loss")
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again(x, y), loss(x, y))


@pytest.mark.parametrize("name", ["contrastive_loss", "triplet_margin_loss", "ntxent_loss"])
def test_memory_term_is_that_of_the_librarys_cross_batch_memory(name):
    found = REAL[name][0]
    theirs = library.CrossBatchMemory(found(), 8, memory_size=40)
    memory = CrossBatchMemory(99, 40, 8, one_slot_per_image=False)
    loss = build(name, use_memory=True)
    for step in range(4):  # the queue wraps in the third
        x, y = draw(seed=step)
        ours = loss(x, y, memory.enqueue_batch(x, y, torch.arange(16)))
        torch.testing.assert_close(ours, theirs(x, y))


def test_empty_slots_and_unlabelled_rows_take_no_part():
    x, y = draw()
    y[3] = -1
    labelled = y >= 0
    loss = build("contrastive_loss", use_memory=True)
    slots = CrossBatchMemory(50, None, 8)
    queue = CrossBatchMemory(50, None, 8, one_slot_per_image=False)
    indices = torch.arange(16)
    ours = loss(x, y, slots.enqueue_batch(x, y, indices))
    filled = queue.enqueue_batch(x[labelled], y[labelled], indices[labelled])
    torch.testing.assert_close(ours, loss(x[labelled], y[labelled], filled))
    torch.testing.assert_close(loss(x, y), library.ContrastiveLoss()(x[labelled], y[labelled]))
    assert loss(x, torch.full_like(y, -1)) == 0


def test_a_memory_is_used_only_when_asked_for():
    x, y = draw()
    memory = CrossBatchMemory(50, None, 8).enqueue_batch(x, y, torch.arange(16))
    loss = build("contrastive_loss")
    assert torch.equal(loss(x, y, memory), loss(x, y))
    assert "use_memory" in list_options(resolve_pml_loss("contrastive_loss"))
    assert "use_memory" not in list_options(resolve_pml_loss("proxy_anchor_loss"))


def test_options_show_the_librarys_defaults():
    shown = derive_component_schema(resolve_pml_loss("triplet_margin_loss"))["properties"]
    assert shown["margin"] == {"type": "number", "default": 0.05}
    assert shown["swap"] == {"type": "boolean", "default": False}
    assert set(shown) == {"margin", "swap", "smooth_loss", "triplets_per_anchor", "use_memory"}


def test_a_number_is_not_refused_where_the_library_writes_a_whole_one():
    shown = derive_component_schema(resolve_pml_loss("contrastive_loss"))["properties"][
        "neg_margin"
    ]
    assert {"type": "number"} in shown["anyOf"]


@pytest.mark.parametrize("name", ["pml:contrastive_loss", "ContrastiveLoss", "contrastive_loss"])
def test_one_loss_is_one_class_however_its_name_is_spelt(name):
    assert resolve_pml_loss(name).__name__ == "PMLContrastiveLoss"


def test_an_unknown_name_shows_the_nearest_and_all():
    with pytest.raises(ComponentError, match=r"did you mean 'contrastive_loss'\?.*all: angular"):
        resolve_pml_loss("contrastiv_loss")


@pytest.mark.parametrize("name", UNFIT)
def test_a_loss_that_needs_something_else_says_what(name):
    with pytest.raises(ComponentError, match="cannot be used by itself: it"):
        resolve_pml_loss(name)


def test_a_loss_over_classes_without_their_number_says_so():
    with pytest.raises(ComponentError, match="number of classes is not known"):
        resolve_pml_loss("proxy_anchor_loss")(8, None)


def test_an_option_that_the_library_refuses_is_a_sentence():
    with pytest.raises(ComponentError, match="pml:pnp_loss refuses these options: variant=X"):
        build("pnp_loss", variant="X")


def test_half_precision_embeddings_give_a_float32_loss():
    x, y = draw()
    with torch.autocast("cpu", torch.bfloat16):
        loss = build("ntxent_loss")(x.bfloat16(), y)
    assert loss.dtype == torch.float32
