"""GoogLeNet against torchvision's, BN-Inception against its published weights read plainly."""

import pytest
import timm
import torch
from torch.nn import functional as F
from torchvision.models import googlenet as torchvisions

from fewlabels import Classifier, Embedder
from fewlabels.components.backbones import bninception, googlenet
from fewlabels.errors import ModelError
from fewlabels.models.backbone import load_weights, make_backbone
from fewlabels.models.modes import set_training


def unlike_the_first(state):
    """Random numbers for everything, variances above 0."""
    rng = torch.Generator().manual_seed(0)
    made = {}
    for name, value in state.items():
        if value.ndim == 0:
            made[name] = value
        elif "running_var" in name or (value.ndim == 1 and name.endswith("weight")):
            made[name] = 0.5 + torch.rand(value.shape, generator=rng)
        else:
            scale = value[0].numel() ** -0.5 if value.ndim == 4 else 0.1
            made[name] = torch.randn(value.shape, generator=rng) * scale
    return made


@pytest.fixture(scope="module")
def theirs():
    model = torchvisions(weights=None, aux_logits=True, init_weights=False, transform_input=True)
    model.load_state_dict(unlike_the_first(model.state_dict()))
    return model.eval()


def test_torchvisions_weights_give_torchvisions_maps(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "googlenet.pth")
    ours = make_backbone("googlenet").eval()
    load_weights(ours, str(tmp_path / "googlenet.pth"))
    names = set(theirs.state_dict())
    assert {n for n in names if not n.startswith(("aux", "fc"))} == set(ours.state_dict())
    images = torch.rand(2, 3, 227, 227, generator=torch.Generator().manual_seed(1))
    seen = {}
    places = ("conv3", "inception3b", "inception4e", "inception5a", "inception5b")
    for whose, model in (("theirs", theirs), ("ours", ours)):
        for place in places:
            model.get_submodule(place).register_forward_hook(
                lambda m, i, o, key=(whose, place): seen.__setitem__(key, o)
            )
    imagenet = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in imagenet)
    cfg = ours.pretrained_cfg
    own_mean, own_std = (torch.tensor(cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        theirs((images - mean) / std)
        last = ours.forward_features((images - own_mean) / own_std)
    for place in places:
        torch.testing.assert_close(
            seen["ours", place], seen["theirs", place], rtol=1e-4, atol=1e-5, msg=place
        )
    assert last.shape == (2, 1024, 7, 7)


def test_their_sizes_and_that_what_they_say_of_their_stages_is_true():
    for name, count in (("googlenet", 5_599_904), ("bninception", 10_270_240)):
        model = make_backbone(name).eval()
        assert sum(p.numel() for p in model.parameters()) == count
        for stage in model.feature_info:
            seen = []
            handle = model.get_submodule(stage["module"]).register_forward_hook(
                lambda m, i, o, seen=seen: seen.append(o)
            )
            model.forward_features(torch.rand(1, 3, 64, 64))
            handle.remove()
            side = 64 // stage["reduction"]
            assert seen[0].shape == (1, stage["num_chs"], side, side), (name, stage)


def published():
    """BN-Inception's state dict in the names of the file that is in common use."""
    state = {}
    for name, value in bninception.BNInception().state_dict().items():
        name = name.replace("fc.", "last_linear.").replace(".conv.", ".").replace(".bn.", "_bn.")
        if not name.endswith("num_batches_tracked"):  # that file is older than these
            head, _, rest = name.partition(".")
            unit = head.startswith("inception_") and "_" not in head.removeprefix("inception_")
            state[f"{head}_{rest}" if unit else name] = value
    return unlike_the_first(state)


def read_plainly(state, image):
    """The last map for BGR from 0 to 255 less the mean, layer by layer."""

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        x = F.conv2d(x, weight, state[f"{name}.bias"], stride, weight.shape[2] // 2)
        kept = [state[f"{name}_bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *kept).relu()

    def pool(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    x = pool(conv(image, "conv1_7x7_s2", 2))
    x = pool(conv(conv(x, "conv2_3x3_reduce"), "conv2_3x3"))
    for unit in ["3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]:
        name, halves = f"inception_{unit}", unit in ("3c", "4e")
        stride = 2 if halves else 1
        three = conv(conv(x, f"{name}_3x3_reduce"), f"{name}_3x3", stride)
        double = conv(conv(x, f"{name}_double_3x3_reduce"), f"{name}_double_3x3_1")
        parts = [three, conv(double, f"{name}_double_3x3_2", stride)]
        if halves:
            parts.append(pool(x))
        else:
            around = F.max_pool2d if unit == "5b" else F.avg_pool2d
            parts = [conv(x, f"{name}_1x1"), *parts]
            parts.append(conv(around(x, 3, 1, 1), f"{name}_pool_proj"))
        x = torch.cat(parts, 1)
    return x


def test_published_bninception_weights_see_rgb_as_they_saw_bgr(tmp_path):
    state = published()
    torch.save(state, tmp_path / "bn_inception.pth")
    model = make_backbone("bninception").eval()
    load_weights(model, str(tmp_path / "bn_inception.pth"))
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    mean, std = (
        torch.tensor(model.pretrained_cfg[k]).view(1, 3, 1, 1).float() for k in ("mean", "std")
    )
    bgr = 255 * image.flip(1) - torch.tensor([104.0, 117.0, 128.0]).view(1, 3, 1, 1)
    with torch.no_grad():
        ours, plain = model.forward_features((image - mean) / std), read_plainly(state, bgr)
    assert plain.std() > 0.01
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-3 * float(plain.std()))


@pytest.mark.parametrize("name", ["googlenet", "bninception"])
def test_own_weights_load_as_they_are_and_others_are_refused(name, tmp_path):
    model = make_backbone(name)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    other = make_backbone(name)
    load_weights(other, str(tmp_path / "own.pth"))
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    cut = {k: v for k, v in model.state_dict().items() if "5b" not in k}
    torch.save(cut, tmp_path / "cut.pth")
    with pytest.raises(ModelError, match="missing"):
        load_weights(other, str(tmp_path / "cut.pth"))


def test_timm_knows_where_their_weights_are_and_under_which_licence():
    for module, name in ((googlenet, "googlenet"), (bninception, "bninception")):
        assert module.default_cfgs
        assert timm.is_model(name)
        cfg = timm.get_pretrained_cfg(name)
        assert cfg.url.startswith("http")
        assert cfg.license == "bsd-3-clause"
        assert len(cfg.mean) == len(cfg.std) == 3


def test_an_embedder_has_no_dropout_before_its_head_and_a_classifier_has():
    torch.manual_seed(0)
    images = torch.rand(1, 3, 64, 64).expand(4, 3, 64, 64)

    def spread(model):
        set_training(model, freeze_statistics=True)
        features = model(images).features
        return (features.std(0).max() / features.max()).item()  # random weights make them tiny

    assert spread(Embedder("googlenet", image_size=64)) < 1e-3
    told = Embedder("googlenet", image_size=64, backbone_options={"drop_rate": 0.2})
    assert spread(told) > 0.1
    assert spread(Classifier("googlenet", image_size=64, classes=("a", "b"))) > 0.1
