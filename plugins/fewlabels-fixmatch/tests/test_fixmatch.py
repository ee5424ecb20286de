"""FixMatch: its losses by plain arithmetic, its streams, and a short run of its recipe."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from fewlabels_fixmatch.fixmatch import FixMatch
from torch import nn

import fewlabels
from fewlabels import strategies
from fewlabels.cli.main import main
from fewlabels.contracts import Clock, Output, Part, Round, View, weighs_labels
from fewlabels.contracts.ramp import Ramp
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.recipe.recipe import load_recipe
from fewlabels.training.averages import update_average
from fewlabels.training.modules import TrainingModules

RECIPE = Path(__file__).parents[1] / "digits_40.yaml"


class Net(nn.Module):
    """A linear classifier of 12 pixel values."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 3)

    def forward(self, images):
        return Output(images.flatten(1), logits=self.head(images.flatten(1)))


def building():
    weak = Pipeline([])
    return SimpleNamespace(
        view=weak, view_with=lambda *more: Pipeline(more), size=20, classes=3, classifier=Net
    )


def setting(**options):
    """A strategy with its modules, and one batch of 2 labelled and 6 unlabelled images."""
    torch.manual_seed(0)
    strategy = strategies.get("fixmatch")(labelled=2, mu=3, **options)
    models = TrainingModules(strategy.modules(building()), Accelerator(cpu=True))

    def part(count, views):
        matrix = torch.eye(3).expand(count, 3, 3)
        made = [View(3 * torch.rand(count, 3, 2, 2), matrix) for _ in range(views)]
        return Part(torch.arange(count), torch.arange(count) % 3, made)

    return strategy, models, {"labelled": part(2, 1), "unlabelled": part(6, 2)}


def probabilities(net, images):
    logits = images.flatten(1).numpy() @ net.head.weight.detach().numpy().T
    logits = np.exp(logits + net.head.bias.detach().numpy())
    return logits / logits.sum(1, keepdims=True)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_the_losses_are_those_of_the_paper(threshold):
    strategy, models, batch = setting(threshold=threshold)
    losses = strategy.losses(None, models, batch, Clock(0, 0, 3))
    net, rest = models.plain("student"), batch["unlabelled"].views
    weak, strong = (probabilities(net, view.images) for view in rest)
    sure = weak.max(1) >= threshold
    expected = -np.log(strong[np.arange(6), weak.argmax(1)]) * sure
    assert losses["unlabelled"].item() == pytest.approx(expected.sum() / 6, rel=1e-4)
    assert losses["sure"].item() == pytest.approx(sure.mean())
    if threshold == 0.5:
        assert 0 < sure.mean() < 1
    known = probabilities(net, batch["labelled"].views[0].images)
    assert losses["supervised"].item() == pytest.approx(
        -np.log(known[[0, 1], [0, 1]]).mean(), rel=1e-4
    )


def test_a_label_counts_by_its_weight():
    strategy, models, batch = setting()
    known = probabilities(models.plain("student"), batch["labelled"].views[0].images)
    part = batch["labelled"]._replace(weights=torch.tensor([1.0, 0.1]))
    losses = strategy.losses(None, models, {**batch, "labelled": part}, Clock(0, 0, 3))
    each = -np.log(known[[0, 1], [0, 1]])
    assert losses["supervised"].item() == pytest.approx((each[0] + each[1] / 10) / 2, rel=1e-4)
    assert weighs_labels(FixMatch)


def test_the_weak_view_gives_labels_and_no_gradient():
    strategy, models, batch = setting(threshold=0.0)
    weak, strong = batch["unlabelled"].views
    weak.images.requires_grad_()
    strong.images.requires_grad_()
    strategy.losses(None, models, batch, Clock(0, 0, 3))["unlabelled"].backward()
    assert weak.images.grad.abs().sum() == 0
    assert strong.images.grad.abs().sum() > 0


def test_the_default_threshold_is_low_in_a_short_run_and_the_paper_s_in_a_long_one():
    def share_that_is_sure(step, **options):
        strategy, models, batch = setting(**options)
        for parameter in models.plain("student").parameters():
            nn.init.zeros_(parameter)
        models.plain("student").head.bias.data[1] = 2.0  # a probability of .787
        return strategy.losses(None, models, batch, Clock(0, 0, step))["sure"].item()

    assert share_that_is_sure(600) == 1
    assert share_that_is_sure(20_000) == 0
    assert share_that_is_sure(600, threshold=0.95) == 0  # a number holds at every step


def test_the_average_of_a_short_run_has_left_the_beginning_behind():
    average = strategies.get("fixmatch")().averages["teacher"]
    model, kept = nn.Linear(1, 1), nn.Linear(1, 1)
    for step in range(300):  # the weight is 0 for 200 steps, then 1
        nn.init.constant_(model.weight, float(step >= 200))
        update_average(kept, model, average.decay(step), step, average.buffers)
    assert kept.weight.item() > 0.95
    assert average.decay(20_000) == 0.999  # that of the paper, in a long run


@pytest.mark.parametrize(
    "ema", [Ramp(end=0.9), Ramp(end=0.999, start=0.9, steps=200, shape="step")]
)
def test_a_decay_that_a_person_sets_is_taken_as_it_is(ema):
    decay = strategies.get("fixmatch")(ema=ema).averages["teacher"].decay
    assert [decay(step) for step in (0, 100, 300)] == [0.9, 0.9, ema.end]


@pytest.mark.parametrize(
    "ramp", [Ramp(end=95), Ramp(start=-1, end=0.9), Ramp(end=0.9, shape="reach")]
)
def test_a_threshold_that_rises_to_no_probability_is_refused(ramp):
    with pytest.raises(fewlabels.errors.DataError, match="a probability is between 0 and 1"):
        strategies.get("fixmatch")(threshold=ramp)


def test_an_unlabelled_image_is_seen_weakly_and_strongly_and_mu_times_as_often():
    strategy, _, _ = setting()
    (phase,) = strategy.phases(Round(0, 0, 1, 0))
    labelled, rest = phase.streams["labelled"], phase.streams["unlabelled"]
    assert (labelled.batch, rest.batch, rest.of) == (2, 6, "all")
    assert len(labelled.views) == 1
    images = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    weak, strong = (
        view(images.to(torch.uint8), torch.Generator().manual_seed(0)).images for view in rest.views
    )
    assert torch.equal(weak, images / 255)
    assert ((strong == 0.5).all(1).sum((1, 2)) >= 4).all()  # every image has its square cut out


def test_the_recipe_runs_and_says_how_many_images_took_part(tmp_path):
    small = ["rounds.steps_per_epoch=11", "strategy.threshold=0.2", "train.log_every=10"]
    run = fewlabels.train(RECIPE, small, out=tmp_path)
    rows = map(json.loads, (run.folder / "metrics.jsonl").read_text("utf-8").splitlines())
    first, last = (row for row in rows if row["kind"] == "train")
    assert 0 <= first["sure"] <= 1
    assert last["loss"] == pytest.approx(last["supervised"] + last["unlabelled"], rel=1e-4)
    assert run.classifier().predict(np.zeros((8, 8, 3), np.uint8)).shape == (1, 10)


def test_operations_are_checked_with_the_recipe():
    with pytest.raises(fewlabels.errors.RecipeError) as caught:
        load_recipe(RECIPE, ["strategy.operations=[rotte]", "strategy.threshold=1.5"])
    operations, threshold = sorted(caught.value.mistakes)
    assert "strategy.operations" in operations
    assert "did you mean 'rotate'" in operations
    assert "strategy.threshold" in threshold


def test_the_view_stands_in_a_recipe_of_any_strategy_too():
    given = ["strategy={name: supervised}", "views=[{name: randaugment, cutout: 0.2}]"]
    recipe = load_recipe(RECIPE, given)
    assert recipe.views[0].options == {
        "operations": None, "count": 2, "magnitude": 1.0, "cutout": 0.2,
    }  # fmt: skip


def test_it_is_listed_with_its_distribution(capsys):
    assert main(["list", "strategy"]) == 0
    assert ["fixmatch", "fewlabels-fixmatch"] in [
        line.split()[:2] for line in capsys.readouterr().out.splitlines()
    ]
    assert strategies.get("fixmatch") is FixMatch
