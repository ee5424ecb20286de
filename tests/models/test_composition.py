"""The master of LMCS against plain arithmetic, on our networks and on timm's."""

import copy

import pytest
import torch
from torch import nn

from fewlabels.errors import ModelError
from fewlabels.models.classifier import Classifier
from fewlabels.models.composition import Composition
from fewlabels.models.cut import list_stages

SMALL = {
    "convnet3": {"width": 0.25},
    "convnet13": {"width": 0.125},
    "wrn28_2": {"width": 0.25},
    "shakeshake26_2x96d": {"width": 0.0625},
}


def classifier(name="convnet3", seed=0):
    torch.manual_seed(seed)
    return Classifier(name, classes=["a", "b", "c"], backbone_options=SMALL.get(name, {}))


def composed(model, layer=-2):
    master = Composition(model, layer)
    master.begin_composition(model, model)
    return master


@pytest.mark.parametrize(
    ("name", "layer", "expected"),
    [
        ("convnet3", None, "conv3"),
        ("convnet3", -2, "conv2"),
        ("convnet13", None, "block3"),
        ("convnet13", "block2", "block2"),
        ("convnet13", "block1.4", "block1.4"),
        ("wrn28_2", None, "stages.2"),
        ("wrn28_2", "stages.0", "stages.0"),
        ("wrn28_2", "stages.1.2", "stages.1.2"),
        ("shakeshake26_2x96d", None, "blocks.11"),
        ("resnet10t", None, "layer4"),
        ("resnet10t", "layer2", "layer2"),
        ("test_vit", None, "blocks.5"),
        ("test_convnext", "stages.1", "stages.1"),
        ("test_efficientnet", None, "blocks.4"),
        ("swin_tiny_patch4_window7_224", "layers.1", "layers.1"),
    ],
)
def test_three_equal_extractors_give_what_each_of_them_gives(name, layer, expected):
    model = classifier(name).eval()
    master = composed(model, layer).eval()
    assert master.layer == expected
    images = torch.rand(2, 3, model.image_size, model.image_size)
    with torch.no_grad():
        ours, theirs = master(images), model(images)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.features, theirs.features, rtol=1e-4, atol=1e-5)


def test_the_sum_of_converted_maps_is_what_the_decision_network_sees():
    current, previous, average = (classifier(seed=seed).eval() for seed in range(3))
    master = Composition(current, "conv2")
    master.begin_composition(previous, average)
    master.begin_composition(current, average)
    master.eval()
    for converter in master.converters:
        nn.init.normal_(converter.weight)
        nn.init.normal_(converter.bias)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        fused = 0
        for model, converter in zip((current, previous, average), master.converters, strict=True):
            net = model.backbone
            maps = net.conv2(net.halve(net.conv1((images - model.mean) / model.std)))
            fused = fused + torch.einsum("oc,bchw->bohw", converter.weight, maps)
            fused = fused + converter.bias[:, None, None]
        net = average.backbone
        features = net.conv3(net.halve(fused)).mean((2, 3))
        torch.testing.assert_close(master(images).features, features, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(master(images).logits, net.fc(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "layer", "after"),
    [
        ("convnet3", "conv2", {"backbone.conv3", "backbone.fc"}),
        ("convnet3", None, {"backbone.fc"}),
        ("wrn28_2", None, {"backbone.norm", "backbone.fc"}),
        ("wrn28_2", "stages.1", {"backbone.stages", "backbone.norm", "backbone.fc"}),
        ("convnet13", "block2", {"backbone.block3", "backbone.fc"}),
    ],
)
def test_only_converters_and_decision_network_move(name, layer, after):
    student, average = classifier(name), classifier(name, seed=1)
    master = composed(student, layer).train()
    master.begin_composition(student, average)
    before = copy.deepcopy(master.state_dict())
    learning = [p for p in master.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    master(torch.rand(4, 3, 32, 32)).logits.square().sum().backward()
    assert all(p.grad is not None for p in learning)
    optimizer.step()
    moved = {k for k, v in master.state_dict().items() if not torch.equal(v, before[k])}
    moved = {k for k in moved if "running" not in k and "num_batches" not in k}
    assert {k.split(".")[0] for k in moved} == {"converters", "decision"}
    decision = {".".join(k.split(".")[1:3]) for k in moved if k.startswith("decision.")}
    assert decision == after
    assert len({k.split(".")[1] for k in moved if k.startswith("converters.")}) == 3
    if layer == "stages.1":  # of a stage that is cut through, the last part alone
        assert all(".stages.2." in k for k in moved if ".stages." in k)


def test_layers_before_the_cut_neither_drop_out_nor_add_noise():
    model = classifier("convnet13")  # adds noise to its images, and drops out after each block
    master = composed(model, "block2").train()
    seen = []
    for network in (master.decision, master.current, master.previous):
        network.backbone.block2.register_forward_hook(lambda m, i, out: seen.append(out.detach()))
    images = torch.rand(2, 3, 32, 32)
    one, two = master(images).logits, master(images).logits
    assert len(seen) == 6
    for maps in seen[1:]:
        torch.testing.assert_close(maps, seen[0])
    assert not torch.allclose(one, two)  # dropout behind the cut
    assert master.decision.training
    assert not master.current.training


def test_running_statistics_are_taken_anew_from_the_batches_of_a_composition():
    student = classifier("convnet13").train()
    student(5 * torch.rand(8, 3, 32, 32))  # statistics of other images
    master = composed(student, "block2")
    batches = torch.rand(3, 8, 3, 32, 32)
    inputs = (batches - student.mean) / student.std
    assert torch.equal(master.current.backbone.block1[1].running_mean,
                       student.backbone.block1[1].running_mean)  # fmt: skip
    for _ in range(2):  # of each composition, not of all
        master.begin_composition(student, student)
        master.train()
        for batch in batches:
            master(batch)
        for network in (master.current, master.previous, master.decision):
            first = student.backbone.block1[0]
            with torch.no_grad():
                means = [first(batch).mean((0, 2, 3)) for batch in inputs]
            norm = network.backbone.block1[1]
            torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
            assert norm.num_batches_tracked == 3
        assert master.decision.backbone.block3[1].num_batches_tracked == 3
    before = copy.deepcopy(master.state_dict())
    master.eval()(batches[0])
    assert all(torch.equal(v, before[k]) for k, v in master.state_dict().items())


def test_evaluation_looks_through_the_average_of_the_decision_network():
    master = composed(classifier())
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = master.eval()(images).logits
        master.decision.backbone.fc.bias.add_(1)
        torch.testing.assert_close(master.eval()(images).logits, before)
        master.average.backbone.fc.bias.add_(1)
        torch.testing.assert_close(master.eval()(images).logits, before + 1)


def test_a_composition_begins_with_the_last_two_students():
    one, two, average = (classifier(seed=seed) for seed in range(3))
    master = Composition(one)
    assert not master.composed
    master.begin_composition(one, average)
    assert master.composed
    assert same(master.previous, one)
    assert same(master.current, one)
    with torch.no_grad():
        master.converters[0].weight.fill_(7)
    master.begin_composition(two, average)
    assert same(master.previous, one)
    assert same(master.current, two)
    assert same(master.decision, average)
    assert same(master.average, average)
    torch.testing.assert_close(master.converters[0].weight, torch.eye(16) / 3)


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_copy_and_a_reloaded_master_are_the_master():
    master = composed(classifier()).eval()
    images = torch.rand(2, 3, 32, 32)
    other = Composition(classifier(seed=5)).eval()
    other.load_state_dict(master.state_dict())
    for twin in (copy.deepcopy(master), other):
        torch.testing.assert_close(twin(images).logits, master(images).logits)


@pytest.mark.parametrize(
    ("name", "layer", "sentence"),
    [
        ("convnet3", "conv9", "has no module 'conv9'; did you mean"),
        ("resnet10t", "layer1.0.conv1", "does not cut backbone 'resnet10t' in two"),
        ("convnet13", "between", "does not cut backbone 'convnet13' in two"),
        ("convnet3", "fc", "gives no feature map"),
        ("convnet13", "global_pool.flatten", "gives no feature map"),
    ],
)
def test_a_layer_that_cannot_be_the_composition_layer_is_a_sentence(name, layer, sentence):
    with pytest.raises(ModelError) as error:
        Composition(classifier(name), layer)
    assert sentence in str(error.value)


def test_a_backbone_that_does_not_say_its_stages_wants_a_name():
    with pytest.raises(ModelError, match="name one of its modules"):
        list_stages(nn.Sequential(nn.Linear(1, 1)))
