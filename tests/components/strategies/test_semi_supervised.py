"""Each strategy's losses against plain arithmetic on a small batch."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from fewlabels.components.strategies.mixmatch import interleave_batches, mix_pairs, sharpen
from fewlabels.contracts import Clock, Output, Part, Round, View
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import DataError, FewLabelsError
from fewlabels.registry import strategies
from fewlabels.training.modules import TrainingModules

CLASSES, NAMES = (
    3,
    [
        n
        for n in strategies.names()
        if n not in ("metric", "tac_ccl", "lmcs", "rotation")  # they have files of their own
    ],
)


class Net(nn.Module):
    """A small classifier with a batch norm; two heads if asked."""

    classes = ("a", "b", "c")

    def __init__(self, heads=1):
        super().__init__()
        self.norm = nn.BatchNorm1d(12)
        self.body, self.head = nn.Linear(12, 5), nn.Linear(5, CLASSES)
        self.heads = heads
        self.head2 = nn.Linear(5, CLASSES) if heads == 2 else None

    def forward(self, images):
        features = torch.tanh(self.body(self.norm(images.flatten(1))))
        second = None if self.head2 is None else self.head2(features)
        return Output(features, logits=self.head(features), logits2=second)


def building(heads=1):
    return SimpleNamespace(view=None, size=20, classes=CLASSES, classifier=lambda: Net(heads))


def setting(name, heads=1, labelled=4, batch=6, **options):
    """A strategy with its modules in train mode, and one batch."""
    torch.manual_seed(0)
    strategy = strategies.get(name)(labelled=labelled, batch=batch, **options)
    models = TrainingModules(strategy.modules(building(heads)), Accelerator(cpu=True))
    for module in models.modules.values():
        module.train()
        if name != "temporal_ensembling" and module is not models.modules["student"]:
            with torch.no_grad():  # averages that differ from the student
                for p in module.parameters():
                    p.add_(0.1 * torch.randn_like(p))
    strategy.phases(Round(0, 0, 1, 0))
    torch.manual_seed(1)

    def part(count, views, first):
        matrix = torch.eye(3).expand(count, 3, 3)
        made = [View(torch.rand(count, 3, 2, 2), matrix) for _ in range(views)]
        return Part(torch.arange(first, first + count), torch.arange(count) % CLASSES, made)

    counts = strategy.views
    return strategy, models, {
        "labelled": part(labelled, counts[0], 0), "unlabelled": part(batch, counts[1], 10),
    }  # fmt: skip


def losses(strategy, models, batch, seed=5, step=3):
    torch.manual_seed(seed)
    return strategy.losses(None, models, batch, Clock(0, 0, step))


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def numbers(tensor):
    return tensor.detach().numpy().astype(np.float64)


def entropy_under(logits, labels):
    return np.mean([-np.log(softmax(logits)[i, y]) for i, y in enumerate(labels)])


def squared(a, b):
    total = 0.0
    for row in range(a.shape[0]):
        for column in range(a.shape[1]):
            total += (a[row, column] - b[row, column]) ** 2
    return total / a.size


def together(net, *images):
    """Logits of batches that one train-mode forward has seen together."""
    whole = copy.deepcopy(net).train()(torch.cat(images))
    sizes = [len(i) for i in images]
    return [numbers(part) for part in whole.logits.split(sizes)], whole


def view(batch, name, number=0):
    return batch[name].views[number].images


def test_supervised():
    strategy, models, batch = setting("supervised")
    (logits,), _ = together(models.plain("student"), view(batch, "labelled"))
    expected = entropy_under(logits, batch["labelled"].labels)
    assert float(losses(strategy, models, batch)["supervised"]) == pytest.approx(expected, rel=1e-5)
    (phase,) = strategy.phases(Round(0, 0, 2, 0))
    assert list(phase.streams) == ["labelled"]
    assert phase.epoch_of.of == "all"


def test_pi_model():
    strategy, models, batch = setting("pi_model")
    (known, one, two), _ = together(
        models.plain("student"), view(batch, "labelled"), view(batch, "unlabelled"),
        view(batch, "unlabelled", 1),
    )  # fmt: skip
    found = losses(strategy, models, batch)
    assert float(found["supervised"]) == pytest.approx(
        entropy_under(known, batch["labelled"].labels), rel=1e-5
    )
    assert float(found["consistency"]) == pytest.approx(
        squared(softmax(one), softmax(two)), rel=1e-4
    )


def test_only_one_view_of_the_pi_model_gets_a_gradient_if_so_asked():
    grads = {}
    for gradient in ("both", "one"):
        strategy, models, batch = setting("pi_model", gradient=gradient)
        losses(strategy, models, batch)["consistency"].backward()
        grads[gradient] = models.plain("student").head.weight.grad
    strategy, models, batch = setting("pi_model")
    whole = models.plain("student")(
        torch.cat(
            [view(batch, "labelled"), view(batch, "unlabelled"), view(batch, "unlabelled", 1)]
        )
    )
    one, two = whole.logits[4:10].softmax(1), whole.logits[10:].softmax(1)
    (one.detach() - two).square().mean().backward()
    torch.testing.assert_close(grads["one"], models.plain("student").head.weight.grad)
    assert not torch.allclose(grads["one"], grads["both"], rtol=0.1)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_pseudo_label(threshold):
    strategy, models, batch = setting("pseudo_label", threshold=threshold)
    (_, logits), _ = together(
        models.plain("student"), view(batch, "labelled"), view(batch, "unlabelled")
    )
    expected = [-np.log(row.max()) if row.max() >= threshold else 0.0 for row in softmax(logits)]
    assert float(losses(strategy, models, batch)["pseudo"]) == pytest.approx(
        np.mean(expected), rel=1e-4
    )
    if threshold:
        assert 0 < sum(e > 0 for e in expected) < len(expected)


@pytest.mark.parametrize("heads", [1, 2])
def test_mean_teacher(heads):
    strategy, models, batch = setting("mean_teacher", heads)
    images = (view(batch, "labelled"), view(batch, "unlabelled"))
    _, student = together(models.plain("student"), *images)
    _, teacher = together(
        models.plain("teacher"), view(batch, "labelled", 1), view(batch, "unlabelled", 1)
    )
    answer = numbers(student.logits if heads == 1 else student.logits2)
    found = losses(strategy, models, batch)
    expected = squared(softmax(answer), softmax(numbers(teacher.logits)))
    assert float(found["consistency"]) == pytest.approx(expected, rel=1e-4)
    known = numbers(student.logits)[:4]
    assert float(found["supervised"]) == pytest.approx(
        entropy_under(known, batch["labelled"].labels), rel=1e-5
    )
    if heads == 2:
        assert float(found["logit_distance"]) == pytest.approx(
            squared(numbers(student.logits), numbers(student.logits2)), rel=1e-4
        )


def test_snowball_has_no_master_before_the_first_discovery():
    strategy, models, batch = setting("snowball")
    assert strategy.seen_through("master", 0) == "teacher"
    assert "master" not in losses(strategy, models, batch)


def test_snowball_adds_the_distance_to_the_master_where_labels_are():
    strategy, models, batch = setting("snowball")
    (phase,) = strategy.phases(Round(1, 0, 1, 1))
    assert list(phase.averages) == ["teacher", "master"]  # in the order in which they move
    assert phase.averages["master"].of == "teacher"
    assert phase.averages["master"].starts == "first_discovery"
    with torch.no_grad():
        models.plain("master").head.bias.add_(1.0 * torch.arange(3))
    models.plain("master").eval()
    _, student = together(
        models.plain("student"), view(batch, "labelled"), view(batch, "unlabelled")
    )
    target = numbers(models.plain("master")(view(batch, "labelled", 1)).logits)
    found = losses(strategy, models, batch)
    expected = squared(softmax(numbers(student.logits)[:4]), softmax(target))
    assert float(found["master"]) == pytest.approx(expected, rel=1e-4)


def test_snowball_has_the_defaults_of_its_base():
    for base in ("mean_teacher", "mixmatch"):
        own = strategies.get(base)()
        ours = strategies.get("snowball")(base=base)
        for strategy in (own, ours):
            strategy.modules(building())
        (mine,), (theirs,) = (s.phases(Round(0, 0, 1, 0)) for s in (ours, own))
        assert {n: (s.of, s.batch, len(s.views)) for n, s in mine.streams.items()} == {
            n: (s.of, s.batch, len(s.views)) for n, s in theirs.streams.items()
        }
        assert mine.averages["teacher"] == theirs.averages["teacher"]
        assert {**ours.weights, "master": None} == {**own.weights, "master": None}
        assert (ours.weights["master"].end, ours.weights["master"].shape) == (100, "sigmoid")


@pytest.mark.parametrize(
    ("name", "of"),
    [("mean_teacher", "all"), ("pi_model", "all"), ("temporal_ensembling", "all"), ("ict", "all"),
     ("vat", "all"), ("mixmatch", "unlabelled"), ("pseudo_label", "unlabelled"),
     ("mixup", "unlabelled")],
)  # fmt: skip
def test_labelled_images_are_in_the_unlabelled_stream_as_in_each_paper(name, of):
    strategy = strategies.get(name)()
    strategy.modules(building())
    (phase,) = strategy.phases(Round(0, 0, 1, 0))
    assert phase.streams["unlabelled"].of == of


def test_weights_ramp_as_in_the_papers():
    unlabelled = strategies.get("mixmatch").weights["unlabelled"]
    assert [unlabelled(s) for s in (0, 8192, 16_384, 1_000_000)] == [0, 37.5, 75, 75]
    consistency = strategies.get("mean_teacher").weights["consistency"]
    assert consistency(0) == pytest.approx(100 * np.exp(-5))
    assert consistency(20_000) == pytest.approx(100 * np.exp(-5 / 4))
    assert consistency(40_000) == 100


def test_a_second_head_that_would_never_learn_is_refused():
    for name in ("supervised", "ict", "mixmatch"):
        with pytest.raises(FewLabelsError, match="a second head learns with mean_teacher alone"):
            setting(name, heads=2, batch=4)
    setting("snowball", heads=2)


def test_snowball_on_mixmatch_compares_the_unmixed_labelled_images():
    strategy, models, batch = setting("snowball", labelled=6, batch=6, base="mixmatch")
    assert strategy.weights["unlabelled"].end == 75
    net = models.plain("student")
    alone = losses(*setting("mixmatch", labelled=6, batch=6))
    assert {n: float(v) for n, v in losses(strategy, models, batch).items()} == {
        n: float(v) for n, v in alone.items()
    }
    strategy, models, batch = setting("snowball", labelled=6, batch=6, base="mixmatch")
    net = models.plain("student")
    (phase,) = strategy.phases(Round(1, 0, 1, 1))
    assert list(phase.averages) == ["teacher", "master"]
    models.plain("master").eval()
    (student,), _ = together(net, view(batch, "labelled"))
    target = numbers(models.plain("master")(view(batch, "labelled")).logits)
    found = losses(strategy, models, batch)
    assert float(found["master"]) == pytest.approx(
        squared(softmax(student), softmax(target)), rel=1e-4
    )
    assert {n: float(found[n]) for n in alone} == {n: float(v) for n, v in alone.items()}


def test_temporal_ensembling():
    strategy, models, batch = setting("temporal_ensembling", alpha=0.6)
    images = (view(batch, "labelled"), view(batch, "unlabelled"))
    average, seen = np.zeros((6, CLASSES)), 0
    for _ in range(3):
        (_, logits), _ = together(models.plain("student"), *images)
        predicted = softmax(logits)
        expected = squared(predicted, average / (1 - 0.6**seen)) if seen else 0.0
        found = losses(strategy, models, batch)
        assert float(found["consistency"]) == pytest.approx(expected, rel=1e-4, abs=1e-9)
        average, seen = 0.6 * average + 0.4 * predicted, seen + 1
        with torch.no_grad():
            models.plain("student").head.weight.add_(0.3)
            models.plain("student").head.bias.add_(torch.tensor([0.5, 0.0, -0.5]))
    twice = batch["unlabelled"]._replace(indices=torch.tensor([0, 0, 1, 2, 3, 4]))
    losses(strategy, models, {**batch, "unlabelled": twice})
    assert models.plain("ensemble").counts[:5].tolist() == [1, 1, 1, 1, 1]


def test_ict_as_its_authors_have_it_draws_one_share_a_batch_and_mixes_labelled_images_too():
    strategy, models, batch = setting("ict", alpha=0.7)
    torch.manual_seed(5)
    mixed, weights = [], []
    for images in (view(batch, "unlabelled"), view(batch, "labelled")):
        share = float(torch.distributions.Beta(0.7, 0.7).sample((1, 1, 1, 1)))
        partner = torch.randperm(len(images))
        mixed.append(share * images + (1 - share) * images[partner])
        weights.append((share, partner.numpy()))
    (known, answer), _ = together(models.plain("student"), mixed[1], mixed[0])
    (teacher,), _ = together(models.plain("teacher"), view(batch, "unlabelled"))
    (share, partner), (own, other) = weights
    target = share * softmax(teacher) + (1 - share) * softmax(teacher)[partner]
    labels = batch["labelled"].labels.numpy()
    expected = own * entropy_under(known, labels) + (1 - own) * entropy_under(known, labels[other])
    found = losses(strategy, models, batch)
    assert float(found["consistency"]) == pytest.approx(squared(softmax(answer), target), rel=1e-4)
    assert float(found["supervised"]) == pytest.approx(expected, rel=1e-4)


def test_ict_as_in_the_code_of_mixmatch():
    strategy, models, batch = setting("ict", alpha=0.7, mix_labelled=False, share="image")
    images = view(batch, "unlabelled")
    torch.manual_seed(5)
    share = torch.distributions.Beta(0.7, 0.7).sample((6, 1, 1, 1))
    partner = torch.randperm(6)
    mixed = share * images + (1 - share) * images[partner]
    (known, answer), _ = together(models.plain("student"), view(batch, "labelled"), mixed)
    (teacher,), _ = together(models.plain("teacher"), images)
    target, lam = softmax(teacher), numbers(share[:, 0, 0])
    target = lam * target + (1 - lam) * target[partner.numpy()]
    found = losses(strategy, models, batch)
    assert float(found["consistency"]) == pytest.approx(squared(softmax(answer), target), rel=1e-4)
    assert float(found["supervised"]) == pytest.approx(
        entropy_under(known, batch["labelled"].labels), rel=1e-4
    )


def test_mixmatch():
    strategy, models, batch = setting("mixmatch", labelled=6, batch=6)
    net = models.plain("student")
    still = [copy.deepcopy(net).train() for _ in range(2)]
    guessed = (
        sum(softmax(numbers(n(view(batch, "unlabelled", i)).logits)) for i, n in enumerate(still))
        / 2
    )
    (one, two), _ = together(net, view(batch, "unlabelled"), view(batch, "unlabelled", 1))
    assert not np.allclose(guessed, (softmax(one) + softmax(two)) / 2)  # norms see a view each
    guessed = guessed**2 / (guessed**2).sum(1, keepdims=True)
    given = np.eye(CLASSES)[batch["labelled"].labels.numpy()]
    images = torch.cat(
        [view(batch, "labelled"), view(batch, "unlabelled"), view(batch, "unlabelled", 1)]
    )
    targets = np.concatenate([given, guessed, guessed])
    torch.manual_seed(5)
    lam = torch.distributions.Beta(0.75, 0.75).sample((18, 1, 1, 1)).clamp(min=0)
    lam, partner = torch.maximum(lam, 1 - lam), torch.randperm(18)
    images = lam * images + (1 - lam) * images[partner]
    weight = numbers(lam[:, 0, 0])
    targets = weight * targets + (1 - weight) * targets[partner.numpy()]
    # interleaved: batch 0 holds thirds of all; a row's companions decide its batch statistics
    thirds = [[0, 1], [2, 3], [4, 5]]
    rows = [
        thirds[0] + [6 + i for i in thirds[1]] + [12 + i for i in thirds[2]],
        [6 + i for i in thirds[0]] + thirds[1] + [6 + i for i in thirds[2]],
        [12 + i for i in thirds[0]] + [12 + i for i in thirds[1]] + thirds[2],
    ]
    logits = np.empty((18, CLASSES))
    for own in rows:
        logits[own] = together(net, images[own])[0][0]
    expected = copy.deepcopy(net).train()
    expected(images[rows[0]])
    found = losses(strategy, models, batch)
    assert float(found["supervised"]) == pytest.approx(
        np.mean(
            [-(t * np.log(p)).sum() for t, p in zip(targets[:6], softmax(logits[:6]), strict=True)]
        ),
        rel=1e-4,
    )
    assert float(found["unlabelled"]) == pytest.approx(
        squared(softmax(logits[6:]), targets[6:]), rel=1e-4
    )
    torch.testing.assert_close(net.norm.running_mean, expected.norm.running_mean)
    torch.testing.assert_close(net.norm.running_var, expected.norm.running_var)
    with pytest.raises(DataError, match="set both to the same number"):
        strategies.get("mixmatch")(labelled=3, batch=6)


def test_mixtures_keep_to_themselves_and_interleaving_undoes_itself():
    torch.manual_seed(0)
    images, targets = torch.rand(50, 3, 2, 2), torch.eye(50)
    mixed, shares, _ = mix_pairs(images, targets, 0.75)
    own = shares.diagonal()
    assert (own >= 0.5 - 1e-6).all()
    torch.testing.assert_close(mixed, torch.einsum("nm,mchw->nchw", shares, images))
    assert own.unique().numel() > 40  # a draw for each image, not one for the batch
    batches = [torch.arange(7.0) + 10 * i for i in range(3)]
    once = interleave_batches(batches)
    assert not torch.equal(once[0], batches[0])
    assert all(torch.equal(a, b) for a, b in zip(interleave_batches(once), batches, strict=True))
    torch.testing.assert_close(
        sharpen(torch.tensor([[0.5, 0.3, 0.2]]), 0.5), torch.tensor([[0.25, 0.09, 0.04]]) / 0.38
    )


def test_mixup():
    strategy, models, batch = setting("mixup", alpha=0.5)
    net = models.plain("student")
    (guess,), _ = together(net, view(batch, "unlabelled"))
    torch.manual_seed(5)
    mixtures = []
    for images, target in [
        (view(batch, "labelled"), np.eye(CLASSES)[batch["labelled"].labels.numpy()]),
        (view(batch, "unlabelled"), softmax(guess)),
    ]:
        lam = torch.distributions.Beta(0.5, 0.5).sample((len(images), 1, 1, 1))
        lam, partner = torch.maximum(lam, 1 - lam), torch.randperm(len(images))
        w = numbers(lam[:, 0, 0])
        mixtures.append(
            (
                lam * images + (1 - lam) * images[partner],
                w * target + (1 - w) * target[partner.numpy()],
            )
        )
    answers, _ = together(net, *(images for images, _ in mixtures))
    expected = [
        np.mean([-(t * np.log(p)).sum() for t, p in zip(target, softmax(a), strict=True)])
        for a, (_, target) in zip(answers, mixtures, strict=True)
    ]
    found = losses(strategy, models, batch)
    assert [float(found["supervised"]), float(found["unlabelled"])] == pytest.approx(
        expected, rel=1e-4
    )


def test_vat():
    strategy, models, batch = setting("vat", epsilon=0.8, iterations=2)
    net = copy.deepcopy(models.plain("student"))
    images = view(batch, "unlabelled")
    statistics = copy.deepcopy(net).train()
    statistics(view(batch, "labelled"))
    found = losses(strategy, models, batch)
    torch.testing.assert_close(
        models.plain("student").norm.running_mean, statistics.norm.running_mean
    )
    torch.manual_seed(5)
    attack = strategy.find_perturbation(net, images, net(images).logits.detach())
    lengths = attack.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((6,), 0.8))
    # Each has statistics of its own: what is attacked does not move the answer to what is not.
    ((attacked,), _), ((clean,), _) = together(net, images + attack), together(net, images)
    p, q = softmax(numbers(net(images).logits)), softmax(attacked)
    expected = np.mean([(a * np.log(a / b)).sum() for a, b in zip(p, q, strict=True)])
    assert float(found["adversarial"]) == pytest.approx(expected, rel=1e-3)
    entropy = np.mean([-(r * np.log(r)).sum() for r in softmax(clean)])
    assert float(found["entropy"]) == pytest.approx(entropy, rel=1e-4)
    torch.manual_seed(1)  # no other direction of that length changes predictions more, on average
    moved = [
        torch.nn.functional.normalize(torch.randn(6, 12)).view_as(images) * 0.8 for _ in range(20)
    ]
    others = []
    for random in moved:
        (far,), _ = together(net, images + random)
        others.append(
            np.mean([(a * np.log(a / b)).sum() for a, b in zip(p, softmax(far), strict=True)])
        )
    assert expected > np.mean(others)
    assert {name: ramp(0) for name, ramp in strategy.weights.items()} == {
        "adversarial": 0.3, "entropy": 0.06,
    }  # fmt: skip
    assert strategies.get("vat")().epsilon == 6 / 2  # 6 where pixels are in [-1, 1]


AVERAGED = ("mixup", "pi_model", "pseudo_label", "vat")  # as MixMatch's code scores them


@pytest.mark.parametrize("name", [*AVERAGED, "mixmatch", "lmcs"])
def test_the_default_average_of_a_short_run_does_not_reach_back_to_its_beginning(name):
    decay = strategies.get(name)().averages["teacher"].decay
    assert 1 / (1 - decay(600)) == pytest.approx(61)  # steps, where .999 would take in all 600


@pytest.mark.parametrize("name", [*AVERAGED, "supervised", "temporal_ensembling"])
def test_baselines_deploy_the_average_that_their_source_scored(name):
    default = 0.999 if name in AVERAGED else None
    for options, decay in [
        ({}, default),
        ({"average": Ramp(end=0.9)}, 0.9),
        ({"average": None}, None),
    ]:
        strategy, models, batch = setting(name, **options)
        (phase,) = strategy.phases(Round(0, 0, 1, 0))
        averages = {n: (a.of, a.decay(20_000), a.buffers) for n, a in phase.averages.items()}
        assert averages == ({} if decay is None else {"teacher": ("student", decay, "copy")})
        assert strategy.deploys == ("student" if decay is None else "teacher")
        assert ("teacher" in models.modules) == (decay is not None)
        if decay is not None:
            sum(losses(strategy, models, batch).values()).backward()
            assert all(p.grad is None for p in models.plain("teacher").parameters())
