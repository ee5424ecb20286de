"""What a classifier run notes of its held-out images, by which ``predict`` may answer none."""

import csv

import numpy as np
import pytest

import fewlabels
from fewlabels.components.sources.digits import Digits
from fewlabels.models.load import load_model
from fewlabels.models.precision_curve import measure_precision
from fewlabels.runs.card import make_card
from fewlabels.runs.finished_run import read_run

BASE = {
    "data": {"source": "digits", "split": "official", "labels": 50, "validation": 100},
    "model": {"backbone": "convnet3", "image_size": 24, "backbone_options": {"width": 0.25}},
    "optimizer": {"name": "adam", "lr": 1e-2},
    "rounds": {"rounds": 2, "steps_per_epoch": 30},
}


def train(place, strategy, *overrides):
    return fewlabels.train({**BASE, "strategy": strategy}, overrides, out=place)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run in which nothing is special."""
    return train(tmp_path_factory.mktemp("runs"), "supervised", "name=run")


def measure_again(run):
    """The curve by the saved model, on the images that labelled.csv says were held out."""
    with (run.folder / "labelled.csv").open(newline="") as file:
        held = [int(row["row"]) for row in csv.DictReader(file) if row["part"] == "validation"]
    digits = Digits().load()
    assert len(held) == 100
    assert max(held) < 1200  # no test image
    found = run.classifier().predict([digits.images[row] for row in held])
    return measure_precision(found, digits.truth[np.array(held)])


def check_noted(run):
    noted, again = run.classifier().precision_curve, measure_again(run)
    assert noted.images == again.images == 100
    assert len(noted.points) == len(again.points) > 1
    for ours, theirs in zip(noted.points, again.points, strict=True):
        assert (ours.answered, ours.right) == (theirs.answered, theirs.right)
        assert ours.threshold == pytest.approx(theirs.threshold, abs=1e-5)


def test_answers_to_the_held_out_images_are_noted(plain):
    check_noted(plain)


@pytest.mark.parametrize(
    ("strategy", "overrides"),
    [
        ("mean_teacher", []),  # deploys an average
        ("supervised", ["train.precision=bf16", "train.channels_last=true", "rounds.rounds=1"]),
    ],
)
def test_they_are_the_deployed_model_s_and_in_the_precision_of_predict(
    tmp_path, strategy, overrides
):
    check_noted(train(tmp_path, strategy, "name=run", *overrides))


def test_they_are_of_the_best_weights_where_these_are_deployed(tmp_path):
    swaying = ["seed=1", "optimizer.lr=0.02", "schedule.name=constant", "rounds.rounds=1"]
    every = ["rounds.steps_per_epoch=48", "evaluation.steps=4", "evaluation.report=best"]
    run = train(tmp_path, "supervised", "name=run", *swaying, *every)
    errors = [row["validation_error"] for row in run.scores if row["model"] != "frozen_lda"]
    assert min(errors) < errors[-1]  # the last weights are not the best
    check_noted(run)
    everything = run.classifier().precision_curve.points[0]
    assert everything.answered == 100
    assert everything.right / 100 == pytest.approx(1 - min(errors))


def test_a_card_says_precision_and_coverage_of_the_held_out_images(plain):
    text = make_card([read_run(plain.folder)], load_model(plain.folder / "model"), "lab/model")
    curve = plain.classifier().precision_curve
    point = curve.find_point(0.9)
    (line,) = curve.describe_wishes((0.9,))
    assert line == (
        f"0.9 from probability {point.threshold:.4f} on: of 100 held-out images {point.answered} "
        f"are answered ({point.answered}.0%) and {point.right} of these rightly "
        f"({100 * point.right / point.answered:.1f}%)"
    )
    for told in curve.describe_wishes():
        assert f"- Precision {told}\n" in text
    assert "of images of no class they say nothing" in text


def test_without_held_out_images_nothing_is_noted(tmp_path):
    run = train(tmp_path, "supervised", "name=run", "data.validation=0", "rounds.rounds=1")
    assert run.classifier().precision_curve is None
    assert "precision_curve" not in (run.folder / "model" / "config.json").read_text()
    text = make_card([read_run(run.folder)], load_model(run.folder / "model"), "lab/model")
    assert "How often a sure answer is right is not known: no labelled image was held out" in text
