"""A block after any module of any backbone: layouts, names, copies, export, and what is refused."""

import copy

import pytest
import torch
from torch import nn

from fewlabels import Classifier, Embedder
from fewlabels.components.blocks.cbam import CBAM
from fewlabels.errors import ComponentError, ModelError
from fewlabels.models.backbone import make_backbone
from fewlabels.models.insert import Followed, Layout, insert_module, layout_after

PLACES = [
    ("convnet5", "conv4", 32, Layout("BCHW", 64, 16, 16)),
    ("wrn28_2", "stages.1", 32, Layout("BCHW", 64, 16, 16)),
    ("googlenet", "inception5a", 64, Layout("BCHW", 832, 2, 2)),
    ("bninception", "inception_4e", 64, Layout("BCHW", 1056, 2, 2)),
    ("resnet18", "layer3", 64, Layout("BCHW", 256, 4, 4)),
    ("resnet18", "maxpool", 64, Layout("BCHW", 64, 16, 16)),
    ("tf_efficientnet_lite0", "blocks.4", 112, Layout("BCHW", 112, 7, 7)),
    ("convnext_atto", "stages.2", 64, Layout("BCHW", 160, 4, 4)),
    ("regnety_002", "s3", 64, Layout("BCHW", 152, 4, 4)),
    ("densenet121", "features.denseblock2", 64, Layout("BCHW", 512, 8, 8)),
    ("mobilenetv3_small_050", "blocks.2", 64, Layout("BCHW", 24, 4, 4)),
    ("swin_tiny_patch4_window7_224", "layers.1", 224, Layout("BHWC", 192, 28, 28)),
    ("vit_tiny_patch16_224", "blocks.5", 224, Layout("BNC", 192, 14, 14, 1)),
    ("deit_tiny_distilled_patch16_224", "blocks.2", 224, Layout("BNC", 192, 14, 14, 2)),
]
IDS = [f"{name}-{after}" for name, after, *_ in PLACES]


class Marks(nn.Module):
    """Adds a number that depends on the position, and remembers the last map."""

    def __init__(self, layout):
        super().__init__()
        self.seen, rows = [], torch.arange(layout.height).view(-1, 1)
        self.register_buffer("marks", (rows * 100.0 + torch.arange(layout.width)))

    def forward(self, maps):
        self.seen.append(maps.detach())
        return maps + self.marks


@pytest.mark.parametrize(("name", "after", "size", "layout"), PLACES, ids=IDS)
def test_a_block_gets_the_map_and_what_it_gives_is_what_follows(name, after, size, layout):
    torch.manual_seed(0)
    plain = make_backbone(name).eval()
    assert layout_after(plain, after, size) == layout
    images = torch.rand(2, 3, size, size)
    own = []
    handle = plain.get_submodule(after).register_forward_hook(lambda m, i, o: own.append(o))
    with torch.no_grad():
        before = plain.forward_features(images)
        handle.remove()
        model = copy.deepcopy(plain)
        insert_module(model, after, Marks, size)
        after_it = model.forward_features(images)
    followed = model.get_submodule(after)
    assert isinstance(followed, Followed)
    (seen,) = followed.block.seen
    assert seen.shape == (2, *layout[1:4])
    (output,) = own
    at = output[:, layout.prefix + layout.width + 1] if layout.kind == "BNC" else None
    at = output[:, 1, 1] if layout.kind == "BHWC" else at
    at = output[:, :, 1, 1] if layout.kind == "BCHW" else at
    assert torch.equal(seen[:, :, 1, 1], at)
    assert after_it.shape == before.shape
    assert not torch.allclose(after_it, before)
    with torch.no_grad():
        followed.block.marks.zero_()
        torch.testing.assert_close(model.forward_features(images), before)


@pytest.mark.parametrize(("name", "after", "size", "layout"), PLACES, ids=IDS)
def test_names_copies_and_gradients(name, after, size, layout):
    torch.manual_seed(0)
    model = Embedder(
        name, embedding_size=8, image_size=size, blocks=[{"name": "cbam", "after": after}]
    )
    own = {n for n in model.state_dict() if f"{after}.block." in n}
    kept = {n.replace(f"{after}.module.", f"{after}.") for n in model.state_dict()} - own
    bare = Embedder(name, embedding_size=8, image_size=size)
    assert kept == set(bare.state_dict())
    twin = copy.deepcopy(model).eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(twin(images).embedding, model.eval()(images).embedding)
        block = twin.backbone.get_submodule(after).block
        block.spatial[1].bias.fill_(-20.0)  # the copy's gate closes; the first one's stays
        assert twin(images).side["cbam.map"].max() < 1e-6
        assert model(images).side["cbam.map"].max() > 0.1
    output = model.train()(images)
    assert output.side["cbam.map"].shape == (2, 1, layout.height, layout.width)
    (output.embedding * torch.arange(8.0)).sum().backward()
    for path in own:
        parameter = dict(model.named_parameters()).get(path)
        assert parameter is None or parameter.grad.abs().max() > 0, path


@pytest.mark.parametrize("name", ["convnet5", "resnet18"])
@pytest.mark.parametrize("kind", [Embedder, Classifier])
def test_a_saved_model_comes_back_with_its_blocks(name, kind, tmp_path):
    torch.manual_seed(0)
    more = {"classes": ["a", "b"]} if kind is Classifier else {"embedding_size": 8}
    after = {"convnet5": ("conv2", "conv4"), "resnet18": ("layer2", "layer3")}[name]
    blocks = [
        {"name": "cbam", "after": after[0], "reduction": 4},
        {"name": "cbam", "after": after[1], "kernel_size": 3},
    ]
    model = kind(name, image_size=32, blocks=blocks, **more).eval()
    model.save_pretrained(tmp_path / "model")
    loaded = kind.from_pretrained(tmp_path / "model")
    assert loaded.blocks == blocks
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(loaded(images)[:3], model(images)[:3], strict=True):
            assert (ours is None and theirs is None) or torch.equal(ours, theirs)


@pytest.mark.parametrize("index", [0, 2, 11, 12])
def test_it_can_be_exported(index):
    name, after, size, _ = PLACES[index]
    torch.manual_seed(0)
    model = make_backbone(name).eval()
    insert_module(model, after, lambda layout: CBAM(layout.channels), size)
    images = torch.rand(1, 3, size, size)
    program = torch.export.export(model, (images,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), model(images))


def test_two_blocks_after_one_module_follow_one_another():
    model = make_backbone("convnet3").eval()
    insert_module(model, "conv2", Marks, 32)
    insert_module(model, "conv2", Marks, 32)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        model.forward_features(images)
    second = model.get_submodule("conv2")
    first = second.module
    difference = second.block.seen[-1] - first.block.seen[-1]
    torch.testing.assert_close(difference, first.block.marks.expand_as(difference))


def test_images_of_another_size_pass_too():
    model = make_backbone("resnet18").eval()
    insert_module(model, "layer3", lambda layout: CBAM(layout.channels), 64)
    assert model.forward_features(torch.rand(1, 3, 96, 128)).shape == (1, 512, 3, 4)
    tokens = Followed(nn.Identity(), nn.Identity(), Layout("BNC", 8, 4, 4, 1))
    some = torch.rand(2, 26, 8)
    assert torch.equal(tokens(some), some)


def test_the_shared_state_of_training_is_kept():
    model = make_backbone("resnet18")
    model.layer1.eval()
    means = {n: b.clone() for n, b in model.named_buffers()}
    insert_module(model, "layer3", lambda layout: CBAM(layout.channels), 64)
    assert model.training
    assert not model.layer1.training
    assert model.layer3.block.training
    for name, buffer in model.named_buffers():
        old = name.replace("layer3.module.", "layer3.")
        assert ".block." in name or torch.equal(buffer, means[old]), name


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"name": "cbam", "after": "layer9"}, "no module 'layer9'; did you mean 'layer"),
        ({"name": "cbam", "after": "fc"}, "passes 'fc' never"),
        ({"name": "cbam", "after": "layer1.0.act1", "x": 1}, "unexpected keyword argument 'x'"),
        ({"name": "cbam", "after": "layer2", "kernel_size": 4}, "kernel_size 4 is even"),
        ({"name": "cbam"}, "expected a name and after"),
    ],
)
def test_what_is_refused(block, said):
    with pytest.raises(ModelError, match=said):
        Embedder("resnet18", image_size=64, blocks=[block])


def test_an_unknown_block_and_a_module_that_is_passed_twice():
    with pytest.raises(ComponentError, match="no block is called 'cbma'"):
        Embedder("resnet18", image_size=64, blocks=[{"name": "cbma", "after": "layer2"}])
    model = make_backbone("convnet3")
    with pytest.raises(ModelError, match="passes 'halve' 2 times"):
        insert_module(model, "halve", lambda layout: CBAM(layout.channels), 32)
