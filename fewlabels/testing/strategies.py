"""Checks of strategies, by complete runs of a few steps on a few small images."""

from __future__ import annotations

import shutil

import numpy as np

import fewlabels
from fewlabels.contracts import weighs_labels
from fewlabels.runs.train import Result
from fewlabels.testing.runs import ShortRun, in_two_processes, run_of
from fewlabels.testing.subject import Checks, Subject
from fewlabels.training.run_folder import RunFolder
from fewlabels.training.saved_modules import read_modules

CHECKS = Checks()


@CHECKS.add
def every_loss_term_is_finite_and_has_a_name_that_a_recipe_can_weigh(subject: Subject) -> None:
    """Each is a scalar; ``terms`` and the recipe's losses name them all."""
    run = run_of(subject)
    _skip_without_steps(run)
    losses = [spec["name"] for spec in run.recipe.resolved["losses"]]
    known = {*getattr(subject.component, "terms", ()), *losses}
    for name, value in run.seen.terms:
        assert name in known, f"term {name!r} is not in terms, {sorted(known)}"
        assert value.shape == (), f"term {name!r} has the shape {tuple(value.shape)}"
        assert np.isfinite(value.detach().float().item()), f"term {name!r} is {value.item()}"


def _skip_without_steps(run: ShortRun) -> None:
    """Skip where every phase says ``steps=0``; any other strategy must have trained a step."""
    import pytest

    if run.seen.steps == {0}:
        pytest.skip("its phases have no steps: all is done in begin")
    assert run.seen.terms, "no step was trained"


@CHECKS.add
def every_parameter_that_a_phase_trains_is_reached(subject: Subject) -> None:
    """An idle one ends a run in many processes, and is a part of the method that does nothing."""
    seen = run_of(subject).seen
    idle = sorted(seen.trained - seen.reached)
    assert not idle, f"no gradient reaches {', '.join(idle[:5])} of {len(idle)}"


@CHECKS.add
def no_gradient_flows_into_an_average(subject: Subject) -> None:
    """A teacher is the average of a student; a gradient would make it a student."""
    leaks = sorted(run_of(subject).seen.leaks)
    assert not leaks, f"gradients reach {', '.join(leaks[:5])}; compute targets without gradient"


@CHECKS.add
def labels_that_are_hidden_are_never_looked_at(subject: Subject) -> None:
    """Streams of unlabelled images, and of all, hide labels: other ones there change nothing."""
    plain, blind = run_of(subject), run_of(subject, "hidden labels")
    _check_same(
        _read_weights(plain),
        _read_weights(blind),
        "labels of an unlabelled stream change the weights",
    )


@CHECKS.add
def labels_count_by_their_weights_where_it_says_so(subject: Subject) -> None:
    """A label of weight 0 counts for nothing, and what it is changes nothing."""
    import pytest

    if not weighs_labels(subject.component):
        pytest.skip("its class does not say weighs_labels = True")
    _skip_without_steps(run_of(subject))
    plain, light = _read_weights(run_of(subject)), _read_weights(run_of(subject, "weights"))
    other = _read_weights(run_of(subject, "weights and labels"))
    _check_same(light, other, "a label of weight 0 changes the weights; use Part.weights")
    same = all(np.array_equal(plain[name], light[name]) for name in plain)
    assert not same, "weights of labels change nothing; use Part.weights"


@CHECKS.add
def a_stopped_run_goes_on_bit_for_bit(subject: Subject) -> None:
    """Killed at any step and resumed, it ends with the same weights."""
    whole = run_of(subject)
    stopped = whole.folder.with_name(f"{whole.folder.name}-stopped")
    shutil.copytree(whole.folder, stopped)
    pretext = subject.component.task == "pretext"  # type: ignore[attr-defined]
    files = RunFolder(stopped)
    if pretext:
        shutil.rmtree(files.checkpoints)
    rows = files.metrics.read_text("utf-8").splitlines(keepends=True)
    files.metrics.write_text("".join(rows[:-1]), "utf-8")  # it has not come to its end
    places = (files.pretrain if pretext else files).list_checkpoints()
    for place in places[len(places) // 2 :]:
        shutil.rmtree(place)
    fewlabels.train(resume=stopped)
    again = ShortRun(stopped, whole.recipe, whole.seen)
    _check_same(
        _read_weights(whole),
        _read_weights(again),
        "the run that was stopped ends with other weights",
    )


@CHECKS.add
def what_is_saved_can_be_loaded_and_used(subject: Subject) -> None:
    """The run folder's model embeds images, or tells classes apart."""
    run = run_of(subject)
    result = Result(run.folder, [])
    images = sorted(run.data.rglob("*.png"))[:3]
    task = subject.component.task  # type: ignore[attr-defined]
    found = (
        result.embedder().encode(images)
        if task == "retrieval"
        else result.classifier().predict(images)
    )
    assert len(found) == 3, f"of 3 images it gave {len(found)}"
    assert np.isfinite(np.asarray(found)).all(), "what it gives is not finite"


@CHECKS.add
def two_processes_train_as_one(subject: Subject) -> None:
    """The same loss at every step, with the same global batch; batch norms are fixed."""
    two = in_two_processes(subject, CHECKS.expected["two_processes_train_as_one"])
    one = run_of(subject)
    assert two.read_rows("run")[0]["processes"] == 2, "there was one process"
    for part in ("pretrain", ""):
        losses = [[row["loss"] for row in run.read_rows("train", part)] for run in (one, two)]
        np.testing.assert_allclose(
            losses[1], losses[0], rtol=1e-3, atol=1e-4, err_msg="the loss is another one"
        )
    scores = [run.read_rows("end")[0]["score"] for run in (one, two)]
    assert abs(scores[0] - scores[1]) <= 1 / 8, f"the score is another one: {scores}"  # one image


def _read_weights(run: ShortRun) -> dict[str, np.ndarray]:
    found = read_modules(RunFolder(run.folder).list_checkpoints()[-1])
    return {name: tensor.numpy() for name, tensor in found.items()}


def _check_same(one: dict[str, np.ndarray], two: dict[str, np.ndarray], said: str) -> None:
    assert set(one) == set(two), said
    for name in one:
        assert np.array_equal(one[name], two[name], equal_nan=True), f"{said} ({name})"
