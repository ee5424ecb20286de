import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image
from timm.data import create_transform, resolve_data_config
from torch.nn.functional import normalize

from fewlabels.contracts import write_side
from fewlabels.errors import ModelError
from fewlabels.files import find_path
from fewlabels.models.backbone import make_backbone
from fewlabels.models.embedder import Embedder
from fewlabels.models.saved_folder import EmbedderConfig
from fewlabels.models.size_limits import check_size
from fewlabels.registry import sources

LITE0 = find_path("weights/tf_efficientnet_lite0.safetensors")


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(load_sample_image("china.jpg"))


def small(**chosen):
    torch.manual_seed(0)
    return Embedder(**{"backbone": "convnet3", "embedding_size": 16, **chosen})


# ------------------------------------------------------------------------ pixels


@pytest.mark.parametrize("size", [(427, 640), (427, 641), (640, 427), (300, 301), (20, 61)])
@pytest.mark.parametrize(("image_size", "crop_pct"), [(64, 0.875), (65, 0.9), (33, 1.0)])
def test_pixels_are_those_of_timms_evaluation_transform(photo, size, image_size, crop_pct):
    model = small(image_size=image_size, crop_pct=crop_pct, interpolation="bicubic")
    image = photo.resize(size)
    transform = create_transform(
        (3, image_size, image_size),
        interpolation="bicubic",
        crop_pct=crop_pct,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    pixels = model.preprocess_image(image)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels.float() / 255, transform(image))
    assert model.resize_to_square(image).shape == (3, model.resize_size, model.resize_size)


@pytest.mark.parametrize("name", ["convnet3", "mobilenetv3_small_050"])
def test_features_and_embeddings_are_those_of_timm(photo, name):
    model = small(backbone=name, embedding_size=None).eval()
    reference = timm.create_model(name, num_classes=0).eval()
    reference.load_state_dict(model.backbone.state_dict())
    config = resolve_data_config({}, model=reference)
    with torch.no_grad():
        expected = reference(create_transform(**config)(photo)[None])
        output = model(model.preprocess_image(photo)[None].float() / 255)
    torch.testing.assert_close(output.features, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.embedding, normalize(expected), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(model.encode(photo), normalize(expected).numpy(), atol=1e-5)


@pytest.mark.skipif(LITE0 is None, reason="no weights/tf_efficientnet_lite0.safetensors")
def test_local_weights_give_timms_features(photo):
    model = small(backbone="tf_efficientnet_lite0", weights=str(LITE0), embedding_size=0)
    reference = timm.create_model("tf_efficientnet_lite0", checkpoint_path=str(LITE0)).eval()
    transform = create_transform(**resolve_data_config({}, model=reference))
    with torch.no_grad():
        maps = reference.forward_features(transform(photo)[None])
        expected = normalize(reference.forward_head(maps, pre_logits=True))
    np.testing.assert_allclose(model.encode(photo), expected.numpy(), atol=1e-5)


def test_a_turned_photo_is_set_upright(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    model = small()
    assert np.array_equal(model.encode(tmp_path / "turned.png"), model.encode(photo))


# ------------------------------------------------------------------------ forward


def test_forward_gives_the_documented_shapes_and_sides():
    model = small(pooling="catavgmax")
    model.backbone.conv3.register_forward_hook(lambda m, i, out: write_side("map", out.mean(1)))
    output = model(torch.rand(4, 3, 32, 32))
    assert output.features.shape == (4, 256) == (4, model.feature_size)
    assert output.embedding.shape == (4, 16)
    assert output.side["map"].shape == (4, 8, 8)
    torch.testing.assert_close(output.embedding.norm(dim=1), torch.ones(4))


def test_every_parameter_learns_under_autocast():
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.rand(4, 3, 32, 32))
    assert output.embedding.dtype == torch.float32
    output.embedding[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_copy_computes_the_same():
    model = small().eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(copy.deepcopy(model)(x).embedding, model(x).embedding)


def test_building_leaves_running_statistics_untouched():
    fresh = small().backbone.conv1[1]
    assert fresh.training
    assert fresh.num_batches_tracked == 0


def test_a_transformer_takes_another_image_size():
    model = small(backbone="vit_tiny_patch16_224", image_size=64)
    assert model(torch.rand(1, 3, 64, 64)).embedding.shape == (1, 16)


# ------------------------------------------------------------------------ encode


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_way_to_give_images_gives_the_same_rows(photo, tmp_path):
    from datasets import Dataset

    model = small(crop_pct=0.9)
    images = [photo, photo.rotate(90), photo.resize((50, 70))]
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no image")
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    arrays = [np.asarray(image) for image in images]
    tensors = [torch.from_numpy(array.copy()).permute(2, 0, 1) for array in arrays]
    column = Dataset.from_dict({"image": images})["image"]
    expected = model.encode(images)
    assert expected.shape == (3, 16)
    assert expected.dtype == np.float32
    mixed = [Path(paths[0]), arrays[1], tensors[2]]
    for given in (tmp_path, paths, arrays, tensors, column, mixed, iter(images)):
        assert np.array_equal(model.encode(given), expected)
    stacked = torch.stack([tensors[0]] * 2)
    for given, rows in ((paths[1], [1]), (arrays[1], [1]), (images[2], [2]), (stacked, [0, 0])):
        np.testing.assert_allclose(model.encode(given), expected[rows], atol=1e-6)
    floats = model.encode(tensors[0] / 255)
    assert (floats @ expected[0]).item() > 0.999


def test_preprocessed_tensors_are_not_cropped_again(photo):
    model = small(crop_pct=0.9)
    ready = model.preprocess_image(photo)
    expected = model.encode(photo)
    assert np.array_equal(model.encode(ready[None]), expected)
    assert np.array_equal(model.encode(ready[None].float() / 255), expected)


def test_batches_change_nothing_and_modes_come_back():
    model = small()
    model.backbone.conv2.eval()
    images = torch.rand(7, 3, 32, 32)
    one = model.encode(images, batch_size=1)
    np.testing.assert_allclose(model.encode(images, batch_size=3), one, atol=1e-6)
    for none in (0, -1):
        with pytest.raises(ModelError, match=f"batch_size={none}: give at least 1"):
            model.encode(images, batch_size=none)
    assert model.training
    assert model.head.training
    assert not model.backbone.conv2.training
    model(images).embedding.sum().backward()  # nothing stays in a mode that cannot be trained


def test_rows_keep_their_length_when_asked():
    model = small()
    raw = model.encode(torch.rand(3, 3, 32, 32), normalize=False, device="cpu")
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1)


def test_no_images_give_no_rows():
    assert small().encode([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (3, "got int"),
        ("nowhere.png", "nowhere.png"),
        (np.zeros((4, 4, 3)), "uint8"),
        (torch.rand(1, 8, 8), r"\(3, H, W\)"),
        (torch.full((3, 8, 8), 7.0), r"in \[0, 1\]"),
        (torch.full((3, 8, 8), torch.nan), r"in \[0, 1\]"),
    ],
)
def test_a_bad_item_is_named_by_its_position(bad, reason):
    good = Image.new("RGB", (40, 40))
    model = small()
    with pytest.raises(ModelError, match=rf"image 2.*{reason}"):
        model.encode([good, good, bad])
    assert model.training


@pytest.mark.parametrize("bad", [5, torch.rand(3, 3), None])
def test_what_holds_no_images_is_refused(bad):
    with pytest.raises(ModelError, match="expected"):
        small().encode(bad)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no image in this folder"):
        small().encode(tmp_path)


# ------------------------------------------------------------------------ building


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"backbone": "resnet5O"}, "did you mean 'resnet50'"),
        ({"backbone": "resnet18.nonsense"}, "nonsense"),
        ({"pretrained": True}, "no pretrained weights for 'convnet3'"),
        ({"pooling": "middle"}, "pooling 'middle'"),
        ({"backbone_options": {"widht": 2}}, "widht"),
        ({"backbone_options": {"checkpoint_path": "x"}}, "checkpoint_path cannot be set there"),
        ({"crop_pct": 1.5}, "crop_pct 1.5"),
        ({"image_size": 5000}, "image_size 5000: expected 1 to 4096"),
        ({"embedding_size": -1}, "embedding_size -1: expected 0 .no head. to 65536"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"image_size": 2}, "2 pixels"),
        ({"weights": "nowhere.pth"}, "no such file; looked for nowhere.pth"),
    ],
)
def test_a_mistake_is_a_sentence(chosen, sentence):
    with pytest.raises(ModelError, match=sentence):
        small(**chosen)


def test_backbone_options_reach_the_backbone():
    assert small(backbone_options={"width": 0.5}).feature_size == 64


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_fit_exactly_or_are_refused(tmp_path, suffix):
    def save(state):
        file = tmp_path / f"w{suffix}"
        save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
        return str(file)

    state = timm.create_model("convnet3", num_classes=10).state_dict()  # with a classifier
    model = small(weights=save(state))
    assert torch.equal(model.backbone.conv1[0].weight, state["conv1.0.weight"])
    less = {k: v for k, v in state.items() if k != "conv1.0.weight"}
    with pytest.raises(ModelError, match=r"conv1\.0\.weight missing"):
        small(weights=save(less))
    with pytest.raises(ModelError, match="extra not expected"):
        small(weights=save({**state, "extra": torch.zeros(1)}))
    with pytest.raises(ModelError, match=r"conv1\.0\.weight \(1,\) for \(32, 3, 3, 3\)"):
        small(weights=save({**state, "conv1.0.weight": torch.zeros(1)}))


class Intruder:
    def __reduce__(self):
        return (Path("intruded").touch, ())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_code_in_a_weights_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("w.pth").write_bytes(pickle.dumps(Intruder()))
    torch.save({"x": Intruder()}, "v.pth")
    for file in ("w.pth", "v.pth"):
        with pytest.raises(ModelError, match="plain tensors"):
            small(weights=file)
    assert not Path("intruded").exists()


# ------------------------------------------------------------------------ saving


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"embedding_size": None, "pooling": "max", "normalize": False},
        {"image_size": 40, "crop_pct": 0.8, "interpolation": "bilinear", "mean": (0.1, 0.2, 0.3)},
        {"backbone_options": {"width": 0.5}, "std": [0.3, 0.2, 0.1]},
    ],
)
def test_a_saved_embedder_encodes_the_same_bits(photo, tmp_path, chosen):
    model = small(**chosen)
    model(torch.rand(8, 3, 32, 32))  # running statistics move
    model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = Embedder.from_pretrained(tmp_path)
    assert not loaded.training
    assert np.array_equal(
        loaded.encode([photo], normalize=False), model.encode([photo], normalize=False)
    )
    x = torch.rand(2, 3, loaded.image_size, loaded.image_size)
    assert torch.equal(loaded(x).embedding, model.eval()(x).embedding)


SAN = {"name": "san", "after": "conv2"}


@pytest.fixture
def saved(tmp_path):
    small().save_pretrained(tmp_path)
    return tmp_path


def edit(saved, **changes):
    file = saved / "config.json"
    data = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in data.items() if v != "drop"}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2, "new": 1}, "format 2 is newer than this fewlabels reads"),
        ({"format": "1"}, "format: Input should be 1"),
        ({"kind": "classifier"}, "of the kind 'classifier'; expected 'embedder'"),
        ({"colour": 1}, "colour: unknown key"),
        ({"image_sizes": 32}, "did you mean 'image_size'"),
        ({"image_size": "32"}, "image_size: .*valid integer"),
        ({"mean": "drop"}, "mean: missing"),
        ({"std": [0.5, 0.5, 0]}, "std.2: "),
        ({"backbone": "hf-hub:somebody/something"}, "backbone: "),
        ({"format": "drop"}, "no format number"),
        ({"backbone": "convent3"}, "did you mean 'convnet3'"),
        ({"backbone_options": {"checkpoint_path": "x"}}, "cannot be set there"),
        ({"embedding_size": 8}, "head.weight .16, 128. for .8, 128."),
        ({"embedding_size": None}, "head.bias, head.weight not expected"),
        ({"embedding_size": 10**12}, "describes a model of 129[0-9,]+ numbers"),
        ({"image_size": 10**9}, "image_size 1000000000: expected 1 to 4096"),
        ({"crop_pct": 1e-9}, "crop_pct 1e-09: expected a share"),
        (
            {"backbone_options": {"width": 10**9}},
            "config.json: backbone_options.width: 1000000000: expected at most 16384",
        ),
        ({"backbone_options": {"width": 400.0}}, "describes a model of [0-9,]+ numbers, and the"),
        (
            {"blocks": [{"name": "san", "after": "conv2", "hidden": 10**6}]},
            "blocks.hidden: 1000000",
        ),
        ({"blocks": [{"name": "san", "after": "conv2", "hidden": 9000}]}, "describes a model of"),
        (  # behind a block that may stand nowhere but there
            {"blocks": [SAN, {"name": "san", "after": "conv1", "hidden": 16384}]},
            "describes a model of",
        ),
        (
            {"blocks": [{"name": "cbam", "after": "conv2"}] * 65},
            "blocks: 65 of them: expected at most 64",
        ),
        ({"embedding_size": 65_536}, "describes a model of"),
        (
            {"backbone": "resnet18", "backbone_options": {"layers": [16_384] * 4}},
            "describes a far deeper model than the 20 tensors of weights beside it",
        ),
        ({"backbone_options": {"width": 1e9}}, "width: 1000000000.0: expected at most 16384"),
        (
            {"backbone": "mobilenetv3_large_100", "backbone_options": {"depth_multiplier": 2e4}},
            "depth_multiplier: 20000.0: expected at most 100",
        ),
        (
            {"image_size": 2000, "blocks": [{**SAN, "predictor": "attention", "scale": 50}]},
            "asks for [0-9,]+ numbers in one tensor to see an image of 2000 pixels",
        ),
    ],
)
def test_a_config_that_is_not_ours_is_a_sentence(saved, changes, sentence):
    edit(saved, **changes)
    with pytest.raises(ModelError, match=sentence):
        Embedder.from_pretrained(saved)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("maxvit_tiny_tf_512", 512, {}),  # operations by the thousand for each table of positions
        ("vit_small_patch16_224", 2048, {"depth": 1}),  # attention that is never held whole
    ],
)
def test_a_model_for_large_images_is_not_too_large(name, size, options):
    more = {"image_size": size, "backbone_options": options, "normalize": True}
    pixels = {"crop_pct": 0.9, "interpolation": "bicubic", "mean": (0, 0, 0), "std": (1, 1, 1)}
    config = EmbedderConfig(backbone=name, pooling=None, embedding_size=None, **more, **pixels)
    with torch.device("meta"):
        state = make_backbone(name, image_size=size, options=options).state_dict()
    check_size(config, state)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": [1, 1]}, "cannot see images of 32 pixels: AttributeError: "),
        ({"block": "x"}, "cannot be made: AttributeError: "),
        ({"output_stride": 3}, "cannot be made: AssertionError: "),
    ],
)
def test_options_that_a_backbone_cannot_have_are_a_sentence(options, sentence):
    with pytest.raises(ModelError, match=sentence):
        Embedder("test_resnet", image_size=32, backbone_options=options)
    blocks = [{"name": "cbam", "after": "layer1"}]
    with pytest.raises(ModelError, match=sentence):
        Embedder("test_resnet", image_size=32, backbone_options=options, blocks=blocks)


def test_a_backbone_that_divides_by_an_option_of_zero_is_a_sentence():
    with pytest.raises(ModelError, match="cannot be made: ZeroDivisionError: "):
        Embedder("test_vit", image_size=32, backbone_options={"patch_size": 0})


def test_an_interpolation_is_refused_before_there_is_an_image():
    with pytest.raises(ModelError, match="interpolation 'x': expected one of nearest, bilinear"):
        small(interpolation="x")


def test_an_image_that_would_fill_the_memory_is_a_sentence():
    with pytest.raises(ModelError, match="an image of 1 x 900 pixels is too narrow; crop it"):
        small().encode(Image.new("RGB", (1, 900)))


def test_weights_that_do_not_fit_are_a_sentence(saved):
    file = saved / "model.safetensors"
    state = load_file(file)
    save_file({**state, "more": torch.zeros(1)}, file)
    with pytest.raises(ModelError, match="more not expected"):
        Embedder.from_pretrained(saved)
    del state["head.bias"]
    save_file(state, file)
    with pytest.raises(ModelError, match=r"head\.bias missing"):
        Embedder.from_pretrained(saved)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        Embedder.from_pretrained(saved)


def test_broken_json_is_a_sentence(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        Embedder.from_pretrained(saved)


def test_pickled_weights_are_never_read(saved, monkeypatch):
    monkeypatch.chdir(saved)
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Intruder()))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is pickled"):
        Embedder.from_pretrained(saved)
    assert not Path("intruded").exists()


@pytest.mark.parametrize("name", ["missing", "runs/x/model", Path("somebody/embedder")])
def test_a_name_that_is_no_folder_is_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no such folder"):
        Embedder.from_pretrained(name)


def test_an_empty_folder_is_a_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        Embedder.from_pretrained(tmp_path)


def test_loading_downloads_nothing(saved, monkeypatch):
    calls = []
    create = timm.create_model

    def spy(*args, **kwargs):
        calls.append(kwargs)
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", spy)
    Embedder.from_pretrained(saved)
    assert {call["pretrained"] for call in calls} == {False}


def test_a_failed_save_leaves_the_old_model(saved, monkeypatch):
    before = Embedder.from_pretrained(saved).state_dict()
    monkeypatch.setattr("fewlabels.models.tensor_file.save_file", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        small(embedding_size=8).save_pretrained(saved)
    after = Embedder.from_pretrained(saved).state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_an_option_that_json_cannot_hold_is_refused(tmp_path):
    model = small()
    model.backbone_options = {"act_layer": torch.nn.ReLU}
    with pytest.raises(ModelError, match=r"cannot be written to config\.json"):
        model.save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_seen_as_in_training(tmp_path, mode):
    """White, and not the colour that is hidden there."""
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[5:9, 5:9] = 200, 30, 30, 255
    (tmp_path / "photos").mkdir()
    image = Image.fromarray(pixels).convert(mode)
    more = {"transparency": image.getpixel((0, 0))} if mode == "P" else {}
    image.save(tmp_path / "photos" / "a.png", **more)
    (trained_on,) = sources.get("folder")(path=str(tmp_path / "photos")).load().images
    model = Embedder("convnet3", embedding_size=8, image_size=16)
    found = model.encode(tmp_path / "photos" / "a.png")
    np.testing.assert_allclose(found, model.encode(trained_on), atol=1e-6)
    assert trained_on.getpixel((0, 0)) == (255, 255, 255)
