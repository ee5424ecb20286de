"""From which probability on a classifier's answers are as precise as a person wishes."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from fewlabels.errors import ModelError
from fewlabels.models.classifier import Classifier
from fewlabels.models.precision_curve import PrecisionCurve, count_needed, measure_precision

WISHES = (0.5, 0.8, 0.9, 0.95, 0.99)


def draw_answers(seed, images=80):
    """Probabilities, many of them equal, and classes that are likelier the surer they are."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(4, 0.3), images).round(2).astype(np.float32)
    wrong = rng.random(images) > probabilities.max(1) ** 0.3
    best = probabilities.argmax(1)
    return probabilities, np.where(wrong, (best + 1) % 4, best)


def lower_end(right, answered):
    interval = binomtest(right, answered, alternative="greater").proportion_ci(0.9, "exact")
    return interval.low


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_is_the_lowest_of_all_that_bear_the_wish_out(seed):
    probabilities, truth = draw_answers(seed)
    curve = measure_precision(probabilities, truth)
    sure, right = probabilities.max(1), probabilities.argmax(1) == truth
    for wish in WISHES:
        good = [
            each
            for each in np.unique(sure)
            if lower_end(int(right[sure >= each].sum()), int((sure >= each).sum())) >= wish
        ]
        if not good:
            with pytest.raises(ModelError, match="is not borne out by 80 held-out images"):
                curve.find_point(wish)
            continue
        point = curve.find_point(wish)
        assert point.threshold == min(good)
        assert point.answered == (sure >= point.threshold).sum()
        assert point.right == right[sure >= point.threshold].sum()
    assert PrecisionCurve.model_validate_json(curve.model_dump_json()) == curve


def test_on_other_digits_a_wish_is_missed_seldom_and_would_be_often_by_the_plain_share():
    images, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(truth))
    model = LogisticRegression(max_iter=200).fit(images[order[:60]] / 16, truth[order[:60]])
    probabilities = model.predict_proba(images[order[60:]] / 16)
    sure, right = probabilities.max(1), probabilities.argmax(1) == truth[order[60:]]
    missed, plain = [], []
    for _ in range(200):
        held = rng.permutation(len(right))[:300]
        others = np.setdiff1d(np.arange(len(right)), held)
        curve = measure_precision(probabilities[held], truth[order[60:]][held])
        shares = {t: right[held][sure[held] >= t].mean() for t in np.sort(sure[held])}
        by_share = next(threshold for threshold, share in shares.items() if share >= 0.95)
        for threshold, fell in ((curve.find_point(0.95).threshold, missed), (by_share, plain)):
            fell.append(right[others][sure[others] >= threshold].mean() < 0.95)
    assert np.mean(missed) <= 0.12
    assert np.mean(plain) >= 0.3


def test_what_can_be_reached_is_said_and_can_be():
    probabilities, truth = draw_answers(0)
    curve = measure_precision(probabilities, truth)
    with pytest.raises(ModelError, match=r"0\.9999 takes 23025, all answered rightly") as caught:
        curve.find_point(0.9999)
    can = float(str(caught.value).split("; ")[1].split(" can be")[0])
    assert curve.find_point(can) == curve.points[-1]


def test_so_many_images_are_needed_as_it_says():
    for wish in WISHES:
        count = count_needed(wish)
        assert lower_end(count, count) >= wish - 1e-9
        assert lower_end(count - 1, count - 1) < wish if count > 1 else True


def test_where_nothing_is_right_no_threshold_is():
    probabilities, _ = draw_answers(0)
    curve = measure_precision(probabilities, (probabilities.argmax(1) + 1) % 4)
    with pytest.raises(ModelError, match="none of them is answered rightly: train longer"):
        curve.find_point(0.1)
    assert curve.describe_wishes((0.9,)) == ["0.9 is not borne out by 80 held-out images"]


@pytest.mark.parametrize("wish", [0, 1, 95, -0.1, float("nan")])
def test_what_is_no_share_is_refused(wish):
    curve = measure_precision(*draw_answers(0))
    with pytest.raises(ModelError, match="expected a share of answers above 0 and below 1"):
        curve.find_point(wish)


def make_classifier(curve=None):
    torch.manual_seed(0)
    options = {"image_size": 16, "backbone_options": {"width": 0.25}}
    return Classifier("convnet3", classes=["a", "b", "c", "d"], precision_curve=curve, **options)


def test_a_saved_classifier_keeps_its_curve_and_one_without_says_nothing_of_it(tmp_path):
    curve = measure_precision(*draw_answers(0))
    make_classifier(curve).save_pretrained(tmp_path / "with")
    again = Classifier.from_pretrained(tmp_path / "with")
    assert again.precision_curve == curve
    assert again.find_threshold(0.8) == curve.find_point(0.8).threshold
    make_classifier().save_pretrained(tmp_path / "without")
    whole, bare = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("with", "without")
    )
    assert set(whole) - set(bare) == {"precision_curve"}


def test_names_are_none_below_the_threshold_and_no_image_at_it_is():
    probabilities = np.array([[0.7, 0.3, 0, 0], [0.2, 0.6, 0.2, 0]], np.float32)
    model, threshold = make_classifier(), float(np.float32(0.7))
    assert model.name_classes(probabilities) == ["a", "b"]
    assert model.name_classes(probabilities, threshold) == ["a", None]
    assert model.name_classes(probabilities[:0], threshold) == []


@pytest.mark.parametrize(
    ("curve", "sentence"),
    [
        ({"images": 5, "points": [{"threshold": 0.5, "answered": 6, "right": 2}]}, "more answers"),
        ({"images": 5, "points": [{"threshold": 0.5, "answered": 3, "right": 4}]}, "more right"),
        ({"images": 5, "points": [{"threshold": 1.5, "answered": 3, "right": 3}]}, "threshold"),
        ({"images": 5, "points": [{"threshold": 0.5, "answered": 3, "right": 3}] * 2}, "rise"),
        ({"images": 0, "points": []}, "images"),
        ({"images": 5}, "points: missing"),
        ([], "precision_curve"),
    ],
)
def test_a_curve_that_cannot_be_is_a_sentence(tmp_path, curve, sentence):
    make_classifier().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "precision_curve": curve}))
    with pytest.raises(ModelError, match=rf"config\.json: precision_curve.*{sentence}|{sentence}"):
        Classifier.from_pretrained(tmp_path)
