"""Position pooling is the average at first, and a depthwise convolution of the whole map after."""

import pytest
import torch
from torch import nn

from fewlabels import Embedder
from fewlabels.components.blocks.position_pooling import PositionPooling
from fewlabels.errors import ModelError


def test_an_average_behind_it_is_a_convolution_of_the_maps_size():
    torch.manual_seed(0)
    maps, block = torch.randn(2, 5, 3, 4), PositionPooling(5, 3, 4)
    plain = nn.Conv2d(5, 5, (3, 4), groups=5, bias=False)
    nn.init.constant_(plain.weight, 1 / 12)
    torch.testing.assert_close(block(maps), maps)
    torch.testing.assert_close(plain(maps).flatten(1), maps.mean((2, 3)))
    with torch.no_grad():
        plain.weight.normal_()
        block.weight.copy_(plain.weight[:, 0])
    torch.testing.assert_close(block(maps).mean((2, 3)), plain(maps).flatten(1))


def test_another_size_is_refused_in_words():
    with pytest.raises(ModelError, match="made for maps of 3 x 4 positions and got 4 x 4"):
        PositionPooling(5, 3, 4)(torch.randn(1, 5, 4, 4))


def test_behind_the_last_stage_the_embedding_heeds_positions_and_before_it_did_not():
    """The same features at other positions: an average cannot tell, this pooling can."""
    torch.manual_seed(0)
    place = {"name": "position_pooling", "after": "layer4"}
    options = {"image_size": 64, "embedding_size": 8}
    model = Embedder("resnet18", blocks=[{"name": "san", "after": "layer3"}, place], **options)
    model.eval()
    maps = torch.randn(1, 512, 2, 2)
    pool, block = model.backbone.forward_head, model.backbone.layer4.block

    def features(moved):
        return pool(block(moved), pre_logits=True)

    torch.testing.assert_close(features(maps.flip(3)), features(maps))
    block.weight.data.uniform_(0, 0.5)
    assert (features(maps.flip(3)) - features(maps)).abs().max() > 0.1
