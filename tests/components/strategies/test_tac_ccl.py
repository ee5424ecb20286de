"""TAC-CCL: what losses are told about a pair, whole runs, and attention that collapses."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from run_folders import load_newest_modules, read_rows
from small import DIGITS

import fewlabels
from fewlabels.components.losses.attention_consistency import AttentionConsistency
from fewlabels.components.losses.cbml import CBML
from fewlabels.components.losses.feature_similarity import FeatureSimilarity
from fewlabels.components.losses.multi_similarity import MultiSimilarity
from fewlabels.components.strategies.tac_ccl import TACCCL
from fewlabels.components.views.flip import Flip
from fewlabels.components.views.homography import Homography
from fewlabels.contracts import Clock, LabelState, Part, Partners, Round, View
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.errors import ComponentError, RecipeError
from fewlabels.models.embedder import Embedder
from fewlabels.ops import geometry
from fewlabels.recipe.recipe import recipe_from
from fewlabels.training.modules import TrainingModules

RECIPE = {
    **DIGITS,
    "blocks": [{"name": "cbam", "after": "conv2", "reduction": 4}],
    "views": [{"name": "homography", "crop": [0.7, 1.0], "rotation": 20, "perspective": 0.1}],
    "strategy": {"name": "tac_ccl", "batch": 20, "per_class": 5},
    "losses": [
        {"name": "multi_similarity"},
        {"name": "contrastive_clustering"},
        {"name": "attention_consistency"},
        {"name": "feature_similarity"},
    ],
    "weights": {"feature_similarity": 0.1},
    "optimizer": {"name": "adam", "lr": 1e-3},
    "rounds": {"rounds": 2, "steps_per_epoch": 6},
    "train": {"log_every": 1},
}


def setting(losses=("attention_consistency", "feature_similarity"), **options):
    """A strategy with its modules, and a batch of 6 images seen twice."""
    torch.manual_seed(0)
    known = {
        "attention_consistency": AttentionConsistency(),
        "feature_similarity": FeatureSimilarity(),
        "multi_similarity": MultiSimilarity(),
        "cbml": CBML(),
    }
    student = Embedder(
        "convnet3",
        image_size=32,
        embedding_size=8,
        backbone_options={"width": 0.25},
        blocks=[{"name": "cbam", "after": "conv3", "reduction": 4}],
    )
    view = Pipeline([Homography(crop=(0.5, 1.0), rotation=15, perspective=0.1), Flip()], 32)
    build = SimpleNamespace(
        view=view,
        size=9,
        embedding_size=8,
        embedder=lambda: student,
        losses=lambda: {name: known[name] for name in losses},
    )
    strategy = TACCCL(batch=6, per_class=2, **options)
    models = TrainingModules(strategy.modules(build), Accelerator(cpu=True))
    images = (255 * torch.rand(6, 3, 32, 32)).byte()
    rng = torch.Generator().manual_seed(1)
    (phase,) = strategy.phases(Round(0, 0, 1, 0))
    views = [v(images, rng) for v in phase.streams["images"].views]
    batch = {"images": Part(torch.arange(6), torch.tensor([0, 0, 1, 1, 2, 2]), views)}
    return strategy, models, phase, batch


def test_the_matrix_takes_x_to_its_pair_and_so_its_attention():
    strategy, models, _, batch = setting()
    given = strategy.given(models, batch, Clock(0, 0, 0))
    x, pair = batch["images"].views
    points = 0.8 * (2 * torch.rand(6, 20, 2) - 1)
    back = geometry.map_points(geometry.invert_map(x.matrix), points)  # in the image itself
    torch.testing.assert_close(
        geometry.map_points(given["matrix"], points),
        geometry.map_points(pair.matrix, back),
        atol=1e-4,
        rtol=0,
    )
    assert torch.equal(given["valid"], geometry.valid_mask(given["matrix"], 8, 8))
    assert 0.2 < given["valid"].float().mean() < 1
    seen = geometry.warp_images(x.images, given["matrix"])
    inside = geometry.valid_mask(given["matrix"], 32, 32)[:, None].expand_as(seen)
    # The images agree where both show the same place; noise, so blurred by the second warp.
    assert (seen - pair.images)[inside].abs().mean() < 0.6 * (x.images - pair.images)[
        inside
    ].abs().mean()


def test_losses_get_the_two_sides_and_metric_losses_one_or_both():
    strategy, models, phase, batch = setting()
    student = models.plain("student")
    given = strategy.given(models, batch, Clock(0, 0, 0))
    x, pair = batch["images"].views
    output = student(torch.cat([x.images, pair.images]))
    torch.testing.assert_close(given["embeddings"], output.embedding[:6])
    torch.testing.assert_close(given["embeddings_pair"], output.embedding[6:])
    torch.testing.assert_close(given["attention"], output.side["cbam.map"][:6])
    torch.testing.assert_close(given["attention_pair"], output.side["cbam.map"][6:])
    losses = strategy.losses(phase, models, batch, Clock(0, 0, 0))
    expected = AttentionConsistency()(
        *(given[k] for k in ("attention", "attention_pair", "matrix", "valid"))
    )
    torch.testing.assert_close(losses["attention_consistency"], expected)
    distance = (output.embedding[:6] - output.embedding[6:]).norm(dim=1).mean()
    torch.testing.assert_close(losses["feature_similarity"], distance)

    both, models, phase, batch = setting(metric_on="both")
    given = both.given(models, batch, Clock(0, 0, 0))
    assert given["embeddings"].shape == (12, 8)
    assert given["labels"].tolist() == [0, 0, 1, 1, 2, 2] * 2
    assert given["embeddings_pair"].shape == (6, 8)
    losses = both.losses(phase, models, batch, Clock(0, 0, 0))
    torch.testing.assert_close(losses["feature_similarity"], distance)


def matched_part(scale=1.3, size=28):
    """Two pairs of matched images, the right one the left one enlarged, and their attention."""
    points = torch.tensor([[0.1, 0.0], [-0.2, 0.15], [0.0, -0.25]]).expand(2, 3, 2)
    affine = geometry.compose_maps(
        geometry.scaling_matrix(torch.full((2,), scale)),
        geometry.shift_matrix(torch.tensor([0.1, -0.2]), torch.tensor([0.0, 0.2])),
    )
    there = torch.ones(2, 3, dtype=torch.bool)
    both = torch.cat([points, geometry.map_points(affine, points)], 2)
    still = geometry.identity_matrix(2)
    left, right = (View(torch.rand(2, 3, 32, 32), still) for _ in range(2))
    part = Part(
        torch.tensor([0, 4]),
        torch.tensor([0, 2]),
        [left],
        Partners(torch.tensor([7, 8]), [right], affine, both, there),
    )
    maps = []
    for matrix in (still, affine):
        back = geometry.source_points(matrix, size, size)
        maps.append(0.2 + 0.6 * torch.exp(-back.square().sum(3) / (2 * 0.4**2))[:, None])
    return part, maps


@pytest.mark.parametrize("scale", [1.0, 1.3, 0.7])
def test_attention_that_follows_a_matched_object_costs_nothing_at_any_scale(scale):
    strategy, models, *_ = setting()
    part, maps = matched_part(scale)
    sides = [part.views[0], part.partners.views[0]]

    def compare(one, two):
        given = strategy._compare_matched(models, part.partners, sides, one, two)
        return AttentionConsistency()(*given).item()

    assert compare(*maps) < 1e-4
    # The price is for disagreement, not for brightness: dimming both maps saves nothing.
    assert compare(maps[0], 0.5 * maps[1]) > 100 * compare(*maps)


@pytest.mark.parametrize("metric_on", ["first", "both"])
def test_metric_losses_get_both_images_of_a_matched_pair_as_one_label(metric_on):
    strategy, models, _, batch = setting(pairs=2, metric_on=metric_on)
    part, _ = matched_part()
    given = strategy.given(models, {**batch, "pairs": part}, Clock(0, 0, 0))
    own = 12 if metric_on == "both" else 6
    assert given["labels"][own:].tolist() == [0, 2, 0, 2]
    assert given["indices"][own:].tolist() == [0, 4, 7, 8]
    student = models.plain("student")
    student.train()
    sides = [*batch["images"].views, part.views[0], part.partners.views[0]]
    output = student(torch.cat([view.images for view in sides]))
    torch.testing.assert_close(given["embeddings"][own:], output.embedding[-4:])
    assert (given["second_labels"] == -1).all()


def test_a_pair_across_clusters_can_be_positive_with_both():
    strategy, models, phase, batch = setting(("multi_similarity",), pairs=2, pair_labels="union")
    part, _ = matched_part()
    labels = np.array([0, 0, 1, 1, 2, 2, 0, 3, 2])
    found = LabelState(labels, labels, np.zeros(9, bool), None, None, False)
    strategy.begin(phase, models, found, None)
    given = strategy.given(models, {**batch, "pairs": part}, Clock(0, 0, 0))
    assert given["labels"][6:].tolist() == [0, 2, 3, 2]  # each image's own cluster
    assert given["second_labels"].tolist() == [-1] * 6 + [3, 2, 0, 2]  # and its partner's
    with pytest.raises(ComponentError, match=r"loss 'cbml' takes matched images .* for negatives"):
        setting(("multi_similarity", "cbml"), pairs=2, pair_labels="union")
    setting(("cbml",), pairs=2)


def test_pairs_across_clusters_with_the_left_images_label_alone_are_refused():
    finders = [{"name": "kmeans"}, {"name": "matching", "across": True}]
    strategy = {**RECIPE["strategy"], "pairs": 4}
    with pytest.raises(RecipeError, match=r"across needs 'strategy\.pair_labels=union'"):
        recipe_from({**RECIPE, "discovery": finders, "strategy": strategy})
    recipe_from({**RECIPE, "discovery": finders, "strategy": {**strategy, "pair_labels": "union"}})


def test_every_parameter_gets_a_gradient_and_the_watched_term_none():
    strategy, models, phase, batch = setting(
        ("attention_consistency", "feature_similarity", "multi_similarity")
    )
    losses = strategy.losses(phase, models, batch, Clock(0, 0, 0))
    assert set(losses) == {
        "attention_consistency",
        "feature_similarity",
        "multi_similarity",
        "attention_spread",
        "attention_correlation",
    }
    assert not losses["attention_spread"].requires_grad
    assert not losses["attention_correlation"].requires_grad
    sum(losses.values()).backward()
    for path, parameter in models.plain("student").named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().max() > 0 or path == "head.bias", path


def test_a_flat_map_is_reported(caplog):
    strategy, models, phase, batch = setting()
    found = LabelState(np.zeros(9, int), np.zeros(9, int), np.zeros(9, bool), None, None, False)
    losses = strategy.losses(phase, models, batch, Clock(0, 0, 0))
    maps = strategy.given(models, batch, Clock(0, 0, 0))["attention"].flatten(1)
    spread = np.median([float(m.std() / m.mean()) for m in maps.detach()])
    assert losses["attention_spread"].item() == pytest.approx(spread, rel=0.2)
    with caplog.at_level(logging.WARNING):
        strategy.begin(phase, models, found, None)
    assert not caplog.records
    with torch.no_grad():
        models.plain("student").backbone.conv3.block.spatial[1].weight.zero_()
    strategy.losses(phase, models, batch, Clock(0, 0, 0))
    with caplog.at_level(logging.WARNING):
        strategy.begin(phase, models, found, None)
    assert "attention has collapsed" in caplog.text


# ---------------------------------------------------------------------------- whole runs


def rows(folder, kind):
    return read_rows(folder, kind)


def weights(folder):
    return load_newest_modules(folder)


def test_a_run_keeps_its_block_and_writes_every_term(tmp_path):
    result = fewlabels.train(RECIPE, out=tmp_path)
    train = rows(result.folder, "train")
    names = {*(loss["name"] for loss in RECIPE["losses"]), "attention_spread"}
    assert "attention_correlation" in train[0]
    for row in train:
        assert names <= row.keys()
        parts = sum(row[n] for n in names - {"attention_spread", "feature_similarity"})
        assert row["loss"] == pytest.approx(parts + 0.1 * row["feature_similarity"], rel=1e-5)
    model = result.embedder()
    (block,) = model.blocks
    assert block.items() >= {"name": "cbam", "after": "conv2", "reduction": 4}.items()
    assert "cbam.map" in model(torch.rand(1, 3, 16, 16)).side


def test_what_is_refused(tmp_path):
    without = {k: v for k, v in RECIPE.items() if k != "blocks"}
    with pytest.raises(ComponentError, match="needs the attention map 'cbam.map', and there is no"):
        fewlabels.train(without, out=tmp_path)
    with pytest.raises(RecipeError, match="loss 'attention_consistency' needs attention|attention"):
        recipe_from({**RECIPE, "strategy": {"name": "metric", "batch": 20, "per_class": 5}})
    with pytest.raises(RecipeError, match=r"blocks\.after: missing"):
        recipe_from({**RECIPE, "blocks": {"name": "cbam"}})
    with pytest.raises(
        RecipeError, match=r"blocks\.redction: unknown key; did you mean 'reduction'"
    ):
        recipe_from({**RECIPE, "blocks": {"name": "cbam", "after": "conv2", "redction": 4}})
