"""One image a step and a batch norm: a sentence instead of torch's error."""

import pytest
import torch
from small import DIGITS
from torch import nn

import fewlabels
from fewlabels.contracts import Phase, Stream
from fewlabels.errors import FewLabelsError
from fewlabels.training.small_batches import refuse_small_batches

PHASE = Phase("embed", ("student",), {"images": Stream("all", 2, ())}, epochs=1)


@pytest.mark.parametrize(
    ("norm", "batch"),
    [
        (nn.BatchNorm1d(3), torch.rand(1, 3)),
        (nn.BatchNorm2d(3), torch.rand(1, 3, 1, 1)),
        (nn.InstanceNorm2d(3), torch.rand(1, 3, 1, 1)),
    ],
)
def test_what_norms_cannot_train_on_is_told_with_two_ways_out(norm, batch):
    said = "batches of images: 2 in 2 processes; give it a larger batch, or .* statistics"
    with pytest.raises(FewLabelsError, match=said), refuse_small_batches(PHASE, 2):
        norm(batch)


def test_other_mistakes_stay_what_they_are():
    with pytest.raises(ValueError, match="^of a plugin$"), refuse_small_batches(PHASE, 1):
        raise ValueError("of a plugin")


def test_a_run_with_one_image_a_step_says_what_to_change(tmp_path):
    recipe = DIGITS | {
        "model": {"backbone": "resnet18", "image_size": 32, "embedding_size": 8},
        "strategy": {"name": "metric", "batch": 1, "per_class": 1},
        "losses": "multi_similarity",
        "evaluation": {"before": False},
        "rounds": {"steps_per_epoch": 1},
    }
    with pytest.raises(FewLabelsError, match="phase 'embed' has batches of images: 1; give it a"):
        fewlabels.train(recipe, out=tmp_path)
