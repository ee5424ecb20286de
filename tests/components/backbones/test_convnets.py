import pytest
import timm
import torch

from fewlabels.components.backbones.convnets import convnet3
from fewlabels.registry import backbones
from fewlabels.registry.signature import list_options


def test_timm_makes_it_by_name_and_so_does_our_registry():
    model = timm.create_model("convnet3", num_classes=0)
    assert backbones.get("convnet3") is convnet3
    assert list(list_options(convnet3)) == ["width", "drop_rate"]
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert model.pretrained_cfg["crop_pct"] == 1.0
    assert model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("size", [(24, 24), (32, 40), (33, 21)])
def test_forward_is_features_then_head(size):
    model = timm.create_model("convnet3", num_classes=7).eval()
    x = torch.randn(2, 3, *size)
    maps = model.forward_features(x)
    pooled = model.forward_head(maps, pre_logits=True)
    assert maps.shape == (2, model.num_features, size[0] // 4, size[1] // 4)
    assert pooled.shape == (2, model.head_hidden_size) == (2, 128)
    torch.testing.assert_close(model(x), model.get_classifier()(pooled))
    torch.testing.assert_close(pooled, maps.mean((2, 3)))


@pytest.mark.parametrize(("pool", "width"), [("max", 128), ("avgmax", 128), ("catavgmax", 256)])
def test_pooling_is_chosen_by_timms_names(pool, width):
    model = timm.create_model("convnet3", num_classes=5, global_pool=pool)
    x = torch.randn(2, 3, 16, 16)
    assert model(x).shape == (2, 5)
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, width)


def test_a_new_classifier_replaces_the_old():
    model = timm.create_model("convnet3", num_classes=5, in_chans=1)
    model.reset_classifier(3, "max")
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 128)


def test_width_scales_the_channels():
    assert timm.create_model("convnet3", num_classes=0, width=0.25).num_features == 32


def test_five_convolutions_halve_twice_and_have_two_heads_if_asked():
    model = timm.create_model("convnet5", num_classes=10, heads=2)
    assert model.forward_features(torch.randn(2, 3, 24, 24)).shape == (2, 64, 6, 6)
    assert [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)] == [
        32, 32, 64, 64, 64,
    ]  # fmt: skip
    assert model.fc2 is not None


def test_dropout_is_of_the_pooled_vector():
    model = timm.create_model("convnet3", num_classes=0, drop_rate=0.9)
    model.train()
    assert (model(torch.randn(4, 3, 16, 16)) == 0).float().mean() > 0.7
