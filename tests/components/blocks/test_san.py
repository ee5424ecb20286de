"""SAN against plain loops over the dissertation's sums, and what a training step is told."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from fewlabels import Embedder
from fewlabels.components.blocks import san_weights as weighing
from fewlabels.components.blocks.san import SAN, compute_identity_bias
from fewlabels.contracts import collect_side, collect_terms
from fewlabels.errors import ModelError

EIGHT = [d for d in itertools.product((-1, 0, 1), repeat=2) if d != (0, 0)]
KINDS = list(itertools.product(["conv", "attention"], ["sinkhorn", "softmax"]))


def made(predictor="conv", side=4, channels=6, loud=0.0, **options):
    """A block whose last layer predicts something where ``loud`` is not 0."""
    torch.manual_seed(0)
    block = SAN(channels, side, side, predictor=predictor, hidden=8, **options)
    last = block.predict.layers[-1] if predictor == "conv" else block.predict.query
    with torch.no_grad():
        last.weight.normal_(0, max(loud, 1e-30))
    return block


def log_weights(count, size=2, spread=2.0, iterations=200):
    torch.manual_seed(count)
    logits = spread * torch.randn(size, count, count, dtype=torch.float64)
    return weighing.normalise_by_sinkhorn(logits, iterations)


def permutation(order):
    """(1, N, N): destination v gets source order[v]; all but certain."""
    logits = torch.full((len(order), len(order)), -200.0, dtype=torch.float64)
    logits[order, torch.arange(len(order))] = 0.0
    return logits[None]


@pytest.mark.parametrize("count", [9, 16, 49])
def test_rows_and_columns_sum_to_one(count):
    weights = log_weights(count).exp()
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(2, count).double())
    torch.testing.assert_close(weights.sum(2), torch.ones(2, count).double(), rtol=0, atol=1e-6)
    early = weighing.normalise_by_sinkhorn(5 * torch.randn(2, count, count), 1).exp()
    torch.testing.assert_close(early.sum(1), torch.ones(2, count))  # columns, at any time
    assert (early.sum(2) - 1).abs().max() > 0.1


@pytest.mark.parametrize("iterations", [1, 2, 5, 20])
@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_sinkhorn_by_turns_in_logarithms(iterations, spread):
    torch.manual_seed(0)
    ours = (spread * torch.randn(2, 16, 16)).requires_grad_()
    plain = ours.detach().double().requires_grad_()
    logs = plain
    for _ in range(iterations):
        logs = logs.log_softmax(2).log_softmax(1)
    found = weighing.normalise_by_sinkhorn(ours, iterations)
    torch.testing.assert_close(found.double(), logs, rtol=1e-4, atol=1e-4)
    pull = torch.randn(2, 16, 16)
    (found * pull).sum().backward()
    (logs * pull).sum().backward()
    torch.testing.assert_close(ours.grad.double(), plain.grad, rtol=1e-3, atol=1e-4)


def test_float32_holds_the_largest_logits_that_a_block_may_ask_for():
    logits = 30 * torch.randn(4, 49, 49).sign() + 7 * torch.eye(49)
    weights = weighing.normalise_by_sinkhorn(logits, 20).exp()
    expected = weighing.normalise_by_sinkhorn(logits.double(), 20).exp()
    torch.testing.assert_close(weights.double(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("count", [9, 16, 49])
def test_entropy_by_loops(count):
    logs = log_weights(count, iterations=1)  # rows are far from 1, so normalising them counts
    expected = 0.0
    for w in logs.exp().tolist():
        for lines in (w, list(zip(*w, strict=True))):
            for line in lines:
                expected -= sum(x / sum(line) * math.log2(x / sum(line)) for x in line)
    assert weighing.assembly_entropy(logs).item() == pytest.approx(expected / 2 / count, rel=1e-12)


@pytest.mark.parametrize("count", [9, 16, 49])
def test_correlation_by_loops(count):
    weights = log_weights(count, iterations=1).exp()
    expected = 0.0
    for w in weights:
        for one, two in itertools.permutations(range(count), 2):
            expected += (w[one] @ w[two] + w[:, one] @ w[:, two]).item()
    assert weighing.assembly_correlation(weights).item() == pytest.approx(
        expected / 2 / count, rel=1e-12
    )


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (7, 7), (2, 5)])
def test_coherence_by_loops(shape):
    height, width = shape
    weights = log_weights(height * width).exp()
    maps = torch.randn(2, 5, height, width, dtype=torch.float64)
    places = list(itertools.product(range(height), range(width)))
    expected = 0.0
    for w, f in zip(weights, maps, strict=True):
        for (i, j), (di, dj) in itertools.product(places, EIGHT):
            if (i + di, j + dj) not in places:
                continue
            a, b = f[:, i, j], f[:, i + di, j + dj]
            alpha = max(0.0, (a @ b / a.norm() / b.norm()).item())
            own = w[i * width + j].view(height, width)
            other = w[(i + di) * width + j + dj].view(height, width)
            square = 0.0
            for n, m in places:
                there = (n + di, m + dj) in places
                moved = other[n + di, m + dj] if there else 0.0
                square += float(own[n, m] - moved) ** 2
            expected += alpha * math.sqrt(square)
    measured = weighing.assembly_coherence(weights, maps).item()
    assert measured == pytest.approx(expected / 2 / len(places), rel=1e-10)


def test_nothing_is_taken_apart_where_nothing_moves():
    maps = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    logs = permutation(torch.arange(16))
    assert weighing.assembly_coherence(torch.eye(16).double()[None], maps).item() == 0
    assert weighing.assembly_entropy(logs).item() == pytest.approx(0, abs=1e-12)
    assert weighing.assembly_correlation(logs.exp()).item() == pytest.approx(0, abs=1e-12)
    torch.manual_seed(0)
    shuffled = permutation(torch.randperm(16)).exp()
    assert weighing.assembly_coherence(shuffled, maps).item() > 1
    assert weighing.assembly_correlation(shuffled).item() == pytest.approx(0, abs=1e-12)


def test_correlation_of_doubly_stochastic_weights_is_2_less_twice_their_squares():
    weights = log_weights(16, size=1).exp()
    expected = 2 - 2 * weights.square().sum() / 16
    torch.testing.assert_close(weighing.assembly_correlation(weights), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "terms", [weighing.assembly_entropy, lambda w: weighing.assembly_correlation(w.exp())]
)
def test_gradients_of_the_sums(terms):
    logs = log_weights(9, size=1).requires_grad_()
    assert torch.autograd.gradcheck(terms, logs)


def test_gradients_of_the_coherence_and_of_sinkhorn():
    maps = torch.rand(1, 3, 3, 3, dtype=torch.float64)
    logits = torch.randn(1, 9, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda raw: weighing.assembly_coherence(weighing.normalise_by_sinkhorn(raw, 5).exp(), maps),
        logits,
    )


@pytest.mark.parametrize(("predictor", "normalise"), KINDS)
def test_gradients_of_the_block(predictor, normalise):
    block = made(predictor, 3, loud=0.3, normalise=normalise, iterations=5).double().eval()
    maps = torch.randn(2, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    inputs = [maps, *block.parameters()]
    assert torch.autograd.gradcheck(lambda x, *_: block(x), inputs)


@pytest.mark.parametrize(("predictor", "normalise"), KINDS)
@pytest.mark.parametrize("side", [2, 7, 14])
def test_it_begins_near_the_identity_and_every_weight_learns(predictor, normalise, side):
    torch.manual_seed(0)
    block = SAN(32, side, side, predictor=predictor, normalise=normalise)
    maps = torch.randn(4, 32, side, side).relu()
    with collect_side() as written, collect_terms() as terms:
        out = block(maps)
    assert ((out - maps).norm() / maps.norm()).item() < 0.05
    off = 1 - written["san.weights"].diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(off, torch.full_like(off, 1 / (1 + math.exp(3))), rtol=0.05, atol=0)
    assert set(terms) == set(SAN.terms) == set(SAN.weights)
    assert terms["san.moved"][0] == 0
    (out * torch.randn_like(out)).sum().backward()
    last = block.predict.layers[-1] if predictor == "conv" else block.predict.query
    assert last.weight.grad.abs().max() > 0


@pytest.mark.parametrize("predictor", ["conv", "attention"])
def test_a_permutation_in_gives_that_permutation_out(predictor):
    """Whatever predicts it: logits that say one thing loudly move features to that place."""
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    block = made(predictor, scale=30.0).eval()
    logits = torch.full((1, 16, 16), -1000.0)
    logits[0, order, torch.arange(16)] = 1000.0
    maps = torch.randn(1, 6, 4, 4)
    block.predict.forward = lambda seen: logits
    out = block(maps)
    torch.testing.assert_close(out.flatten(2), maps.flatten(2)[:, :, order])


@pytest.mark.parametrize("predictor", ["conv", "attention"])
def test_sources_are_rows_and_destinations_columns(predictor):
    """Eq. 5.4 by loops, with weights that are no one's transpose."""
    block = made(predictor, loud=2.0, normalise="softmax").eval()
    maps = torch.randn(1, 6, 4, 4)
    with collect_side() as written, torch.no_grad():
        out = block(maps).flatten(2)[0]
    (w,), f = written["san.weights"], maps.flatten(2)[0]
    assert (w - w.T).abs().max() > 0.01
    for v in range(16):
        torch.testing.assert_close(out[:, v], sum(w[u, v] * f[:, u] for u in range(16)))
        assert w[:, v].sum().item() == pytest.approx(1, abs=1e-5)


def test_a_mean_over_positions_sees_nothing_of_a_doubly_stochastic_assembly():
    maps = torch.randn(2, 6, 4, 4)
    with torch.no_grad():
        doubly = made(loud=3.0, normalise="sinkhorn", iterations=200, scale=None).eval()(maps)
        softmax = made(loud=3.0).eval()(maps)
    mean = maps.mean((2, 3))
    assert (doubly - maps).abs().max() > 0.1
    torch.testing.assert_close(doubly.mean((2, 3)), mean, rtol=0, atol=1e-5)
    assert (softmax.mean((2, 3)) - mean).abs().max() > 0.01


def test_gradients_are_finite_at_the_exact_identity():
    logits = (1000 * torch.eye(9)[None]).requires_grad_()
    logs = weighing.normalise_by_sinkhorn(logits, 20)
    assert torch.equal(logs.exp(), torch.eye(9)[None])
    maps = torch.rand(1, 3, 3, 3)
    total = weighing.assembly_entropy(logs) + weighing.assembly_correlation(logs.exp())
    (total + weighing.assembly_coherence(logs.exp(), maps)).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(("predictor", "normalise"), KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision(predictor, normalise, dtype, autocast):
    block = made(predictor, 7, loud=20.0, normalise=normalise, scale=20.0)
    maps = 50 * torch.randn(2, 6, 7, 7)
    expected = block.eval()(maps)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        half = block.train() if autocast else block.to(dtype)
        with collect_terms() as terms, collect_side() as written:
            out = half(maps if autocast else maps.to(dtype))
    assert written["san.weights"].dtype == torch.float32
    assert all(v[0].isfinite() and v[0].dtype == torch.float32 for v in terms.values())
    assert out.isfinite().all()
    if not autocast:
        assert out.dtype == dtype
    assert expected.isfinite().all()


@pytest.mark.parametrize("predictor", ["conv", "attention"])
def test_a_compiled_block_is_the_block(predictor):
    block = made(predictor, loud=1.0).eval()
    maps = torch.randn(2, 6, 4, 4)
    compiled = torch.compile(block, backend="aot_eager")
    torch.testing.assert_close(compiled(maps), block(maps))
    block.train()
    with collect_terms() as terms, collect_side() as written:
        compiled(maps).sum().backward()
    assert set(terms) == set(SAN.terms)
    assert written["san.weights"].shape == (2, 16, 16)


def test_attention_takes_any_size_and_conv_says_that_it_does_not():
    maps = torch.randn(1, 6, 5, 7)
    assert made("attention").eval()(maps).shape == maps.shape
    with pytest.raises(ModelError, match=r"of 4 x 4 positions and got 5 x 7; .*attention"):
        made("conv")(maps)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scale": 2.0}, r"scale 2\.0 is below the identity's bias of 5\.71.*raise it"),
        ({"side": 1}, "one position"),
        ({"predictor": "attention", "hidden": 10}, "multiple of 4"),
    ],
)
def test_what_it_refuses(options, sentence):
    side = options.pop("side", 4)
    with pytest.raises(ValueError, match=sentence):
        SAN(8, side, side, **options)
    assert compute_identity_bias(16) == pytest.approx(math.log(15) + 3)


def test_terms_are_told_in_training_alone():
    block, maps = made(), torch.randn(2, 6, 4, 4)
    for quiet in (lambda: block.eval()(maps), lambda: torch.no_grad()(block.train())(maps)):
        with collect_terms() as terms:
            quiet()
        assert terms == {}


def test_by_default_a_source_may_feed_many_destinations_and_the_terms_say_what_that_costs():
    """Eq. 5.5 normalises rows and Eq. 5.6 punishes such a source, so neither holds by itself."""
    torch.manual_seed(0)
    block = SAN(6, 4, 4, hidden=8)
    logits = torch.zeros(1, 16, 16)
    logits[:, 3] = 100.0  # every destination asks for source 3
    own = torch.zeros(1, 16, 16)
    found = {}
    for name, asked in (("greedy", logits), ("own", own)):
        block.predict.forward = lambda seen, asked=asked: asked
        with collect_side() as side, collect_terms() as terms:
            block(torch.randn(1, 6, 4, 4))
        found[name] = side["san.weights"][0], {key: v[0].item() for key, v in terms.items()}
    weights, greedy = found["greedy"]
    torch.testing.assert_close(weights.sum(0), torch.ones(16))
    assert weights[3].sum() > 15  # of 16 destinations; doubly stochastic weights give at most 1
    assert greedy["san.residual"] > 14
    assert greedy["san.correlation"] > 10 > 1 > found["own"][1]["san.correlation"]


def test_spread_and_likeness_by_loops():
    torch.manual_seed(0)
    logs = torch.randn(3, 9, 9, dtype=torch.float64).log_softmax(1)
    sources, off = 0.0, []
    for w in logs.exp().tolist():
        for v in range(9):
            sources += math.exp(-sum(w[u][v] * math.log(w[u][v]) for u in range(9))) / 27
        off.append([w[u][v] for u in range(9) for v in range(9) if u != v])
    assert weighing.count_sources(logs).item() == pytest.approx(sources, rel=1e-10)
    pairs = np.corrcoef(off)[np.triu_indices(3, 1)]
    likeness = weighing.image_correlation(logs.exp())
    assert likeness.item() == pytest.approx(pairs.mean(), rel=1e-10)
    same = logs[:1].expand(3, 9, 9)
    assert weighing.image_correlation(same.exp()).item() == pytest.approx(1)
    assert weighing.image_correlation(same[:1].exp()).item() == 0
    spread = weighing.count_sources(torch.zeros(1, 9, 9))
    assert spread.item() == pytest.approx(9)


def test_at_the_start_a_destination_has_little_more_than_one_source_and_images_differ_by_nothing():
    block = SAN(6, 7, 7, hidden=8)
    with collect_terms() as terms:
        block(torch.randn(4, 6, 7, 7))
    share = 1 / (1 + math.exp(3))
    entropy = -(1 - share) * math.log(1 - share) - share * math.log(share / 48)
    assert terms["san.spread"][0].item() == pytest.approx(math.exp(entropy), rel=1e-4)
    assert terms["san.likeness"][0].item() == 0


def test_a_sleeping_block_is_said_to_be_no_evidence():
    values = dict.fromkeys(SAN.terms, 0.5)
    assert SAN.remark(values) is None
    assert "SAN inactive: 50.0 % of the weight leaves its position, and 0.4 %" in SAN.remark(
        {**values, "san.moved": 0.004}
    )
    assert "SAN inactive" in SAN.remark({**values, "san.off_diagonal": 0.001})


@pytest.mark.parametrize(
    ("name", "size", "allowed", "refused"),
    [
        ("tf_efficientnet_lite0", 112, ["blocks.4"], ["blocks.6"]),
        ("googlenet", 64, ["inception4e", "inception5a"], ["inception5b"]),
        ("resnet18", 64, ["layer3", "layer4.0"], ["layer4"]),
        ("vit_tiny_patch16_224", 32, [], ["blocks.5"]),
    ],
)
def test_a_place_where_it_would_do_nothing_is_refused(name, size, allowed, refused):
    more = {"backbone_options": {"img_size": 32}} if name.startswith("vit") else {}

    def build(after, **options):
        block = {"name": "san", "after": after, "hidden": 8, **options}
        return Embedder(name, image_size=size, embedding_size=8, blocks=[block], **more)

    for after in allowed:
        build(after, normalise="sinkhorn")
    for after in refused:
        with pytest.raises(ModelError, match=f"'san' after '{after}': average pooling undoes it"):
            build(after, normalise="sinkhorn")
        build(after)


def test_the_probe_moves_no_random_number_and_no_weight():
    torch.manual_seed(1)
    bare = Embedder("resnet18", image_size=64, embedding_size=8)
    torch.manual_seed(1)
    model = Embedder(
        "resnet18",
        image_size=64,
        embedding_size=8,
        blocks=[{"name": "san", "after": "layer3", "normalise": "sinkhorn"}],
    )
    own = model.backbone.state_dict()
    for path, value in bare.backbone.state_dict().items():
        assert torch.equal(own[path.replace("layer3.", "layer3.module.")], value), path


@pytest.mark.parametrize("predictor", ["conv", "attention"])
def test_a_model_with_it_is_copied_saved_and_exported(predictor, tmp_path):
    torch.manual_seed(0)
    block = {"name": "san", "after": "layer3", "hidden": 8, "predictor": predictor}
    model = Embedder("resnet18", image_size=64, embedding_size=8, blocks=[block])
    for parameter in model.backbone.layer3.block.predict.parameters():
        parameter.data.normal_(0, 0.5)
    model.eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images).embedding
        model.save_pretrained(tmp_path)
        for same in (copy.deepcopy(model), Embedder.from_pretrained(tmp_path)):
            torch.testing.assert_close(same(images).embedding, expected)
            assert same(images).side["san.weights"].shape == (2, 16, 16)
        program = torch.export.export(model, (images,))
        torch.testing.assert_close(program.module()(images).embedding, expected)
