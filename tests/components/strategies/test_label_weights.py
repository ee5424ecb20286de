"""What a label of less weight costs: by hand, and in every strategy that learns from labels."""

import math

import pytest
import torch
from test_lmcs import begin
from test_lmcs import setting as lmcs_setting
from test_semi_supervised import NAMES, losses, numbers, setting, softmax, together, view
from torch.nn.functional import cross_entropy, one_hot

from fewlabels.components.strategies.mean_teacher import MeanTeacher
from fewlabels.components.strategies.semi_supervised import mix_labels, weigh_cross_entropy
from fewlabels.contracts import Clock, weighs_labels
from fewlabels.registry import strategies

# Three samples of two classes: the label's probability is 1/2, 1/4 and 1/8.
LOGITS = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.875, 0.125]]).log()
LABELS, WEIGHTS = torch.tensor([0, 0, 1]), torch.tensor([1.0, 0.5, 0.1])


def test_three_samples_by_hand_cost_1_and_1_and_three_tenths_of_log_2():
    expected = (1 * 1 + 0.5 * 2 + 0.1 * 3) * math.log(2) / 3
    assert weigh_cross_entropy(LOGITS, LABELS, WEIGHTS).item() == pytest.approx(expected)
    soft = weigh_cross_entropy(LOGITS, one_hot(LABELS, 2).float(), WEIGHTS)
    assert soft.item() == pytest.approx(expected)


def test_without_weights_the_loss_is_torchs_to_the_last_bit():
    logits, labels = torch.randn(64, 10), torch.arange(64) % 10
    assert torch.equal(weigh_cross_entropy(logits, labels), cross_entropy(logits, labels))


def test_three_mixed_samples_by_hand():
    targets = one_hot(torch.tensor([0, 1, 1]), 2).float()
    weights = torch.tensor([1.0, 0.1, 0.0])
    share = torch.tensor([[0.75], [0.5], [0.5]])
    mixed, weight = mix_labels(targets, weights, share, torch.tensor([1, 0, 2]))
    # .75 * 1 + .25 * .1; .5 * .1 + .5 * 1; and a sample of weight 0 with itself.
    assert weight.tolist() == pytest.approx([0.775, 0.55, 0])
    expected = [[0.75 / 0.775, 0.025 / 0.775], [0.5 / 0.55, 0.05 / 0.55], [0, 0]]
    torch.testing.assert_close(mixed, torch.tensor(expected))
    # Each label costs its share times its own weight: 0 has log 2 and log 4, 1 has log 2 and log 4/3.
    cost = 0.75 * math.log(2) + 0.025 * math.log(2) + 0.5 * math.log(4) + 0.05 * math.log(4 / 3)
    assert weigh_cross_entropy(LOGITS, mixed, weight).item() == pytest.approx(cost / 3)


def test_mixtures_of_whole_weights_are_those_without_weights():
    targets, share = torch.rand(5, 3), torch.rand(5, 1)
    partner = torch.tensor([3, 0, 4, 1, 2])
    plain, none = mix_labels(targets, None, share, partner)
    mixed, weight = mix_labels(targets, torch.ones(5), share, partner)
    assert none is None
    torch.testing.assert_close(mixed, plain)
    torch.testing.assert_close(weight, torch.ones(5))


CLOSED_FORMS = {"fine_tune", "lda", "nearest_mean"}
"""Labels are weighed where their layer is computed; tests/ops/test_linear_rules.py. What
``fine_tune`` trains after it is ``supervised``."""
NAMES = [name for name in NAMES if name not in CLOSED_FORMS]


def weigh(batch, weights):
    return {**batch, "labelled": batch["labelled"]._replace(weights=torch.tensor(weights))}


@pytest.mark.parametrize("name", sorted({*NAMES} - {"mixmatch", "mixup", "ict"}))
def test_the_cross_entropy_is_the_mean_over_the_batch_of_w_times_each(name):
    strategy, models, batch = setting(name)
    images = [view(batch, "labelled")]
    if name not in ("supervised", "vat"):
        images += [v.images for v in batch["unlabelled"].views]
    if name in ("mean_teacher", "snowball"):
        images = images[:2]
    (known, *_), _ = together(models.plain("student"), *images)
    labels, weights = batch["labelled"].labels, [1.0, 0.5, 0.1, 0.0]
    each = [-w * math.log(softmax(known)[i, labels[i]]) for i, w in enumerate(weights)]
    found = losses(strategy, models, weigh(batch, weights))["supervised"]
    assert numbers(found) == pytest.approx(sum(each) / 4, rel=1e-5)


MIXED = [("mixmatch", {"batch": 4}), ("snowball", {"batch": 4, "base": "mixmatch"})]


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in NAMES if name != "mixmatch"), *MIXED]
)
def test_a_label_of_weight_a_tenth_pulls_a_tenth_as_much(name, options):
    """The gradient is linear in the weights; at 1 it is that of today, at 0 a label is nothing."""

    def pull(weights, labels=None):
        strategy, models, batch = setting(name, **options)
        batch = batch if weights is None else weigh(batch, weights)
        if labels is not None:
            batch["labelled"] = batch["labelled"]._replace(labels=torch.tensor(labels))
        sum(losses(strategy, models, batch).values()).backward()
        grads = [p.grad for p in models.plain("student").parameters() if p.grad is not None]
        return torch.cat([grad.flatten() for grad in grads])

    nothing = pull([0.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(pull([0.0] * 4, [2, 2, 2, 2]), nothing)
    torch.testing.assert_close(pull([1.0] * 4), pull(None), rtol=1e-4, atol=1e-7)
    whole = [pull([float(i == n) for i in range(4)]) - nothing for n in range(4)]
    assert all(one.abs().max() > 1e-3 for one in whole)
    some = pull([1.0, 0.5, 0.1, 0.0]) - nothing
    torch.testing.assert_close(
        some, whole[0] + 0.5 * whole[1] + 0.1 * whole[2], rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("number", [0, 1])
def test_both_phases_of_lmcs_weigh(number):
    def found(weights, labels=(0, 1, 2, 0)):
        strategy, models, *phases, batch = lmcs_setting(guess_by="master")
        begin(strategy, models, phases[1])
        begin(strategy, models, phases[number])
        part = batch["labelled"]._replace(
            labels=torch.tensor(labels), weights=torch.tensor(weights)
        )
        torch.manual_seed(3)
        given = strategy.losses(phases[number], models, {**batch, "labelled": part}, Clock(0, 0, 0))
        return {name: value.item() for name, value in given.items()}

    light = found([1.0, 0.1, 0.0, 0.0])
    assert light == pytest.approx(found([1.0, 0.1, 0.0, 0.0], (0, 1, 1, 2)))
    assert light != pytest.approx(found([1.0, 0.1, 0.0, 0.0], (0, 2, 2, 0)))
    name = "supervised" if number == 0 else "master_supervised"
    parts = [found([float(i == n) for i in range(4)])[name] for n in range(2)]
    nothing = found([0.0] * 4)[name]
    expected = nothing + (parts[0] - nothing) + 0.1 * (parts[1] - nothing)
    assert light[name] == pytest.approx(expected, rel=1e-4)


def test_what_a_class_says_goes_for_the_losses_beside_it_and_not_for_those_of_a_subclass():
    class Own(MeanTeacher):
        def losses(self, phase, models, batch, clock):
            return {}

    class Says(Own):
        weighs_labels = True

    class Takes(MeanTeacher):
        pass

    assert [weighs_labels(each) for each in (Own, Says, Takes)] == [None, True, True]
    assert weighs_labels(lambda: None) is None


@pytest.mark.parametrize("name", strategies.names())
def test_every_strategy_of_this_package_says_whether_it_weighs(name):
    found = strategies.get(name)
    says = {"classification": True, "retrieval": False, "pretext": None}
    assert weighs_labels(found) is says[found.task]
