"""What the plan says is what a run then does."""

import pytest
from run_folders import read_rows
from small import DIGITS

import fewlabels
from fewlabels.recipe.recipe import recipe_from
from fewlabels.rehearsal.facts import find_facts
from fewlabels.rehearsal.measure import rehearse_recipe
from fewlabels.rehearsal.plan import plan_run
from fewlabels.runs.check_start import plain_accelerator, start_without_images

TEACHER = {
    "data": {**DIGITS["data"], "labels": 20},
    "model": {**DIGITS["model"], "embedding_size": None},
    "evaluation": {"every": 2},
}
ROUNDS = {"rounds": 2, "generations": 2, "first_epochs": 3, "epochs_per_round": 2}
RUNS = {
    "kmeans": {**DIGITS, "losses": "multi_similarity", "strategy": {"name": "metric", "batch": 80},
               "rounds": {"rounds": 3}, "evaluation": {"steps": 10}},
    "snowball": {**TEACHER, "strategy": {"name": "snowball", "labelled": 10, "batch": 40, "unlabelled": "rest"},
                 "discovery": "confident", "rounds": {**ROUNDS, "restart": "generation"}},
    "lmcs": {**TEACHER, "strategy": {"name": "lmcs", "labelled": 10, "batch": 10},
             "discovery": "confined_entropy", "rounds": {**ROUNDS, "steps_per_epoch": 4, "discover_every": 2}},
    "pretrained": {**TEACHER, "strategy": {"name": "mean_teacher", "labelled": 10, "batch": 10},
                   "pretrain": {"name": "rotation", "epochs": 2}, "rounds": {"steps_per_epoch": 3}},
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_the_plan_is_what_the_run_does(tmp_path, name):
    recipe = recipe_from({**RUNS[name], "train": {"log_every": 1}})
    with plain_accelerator() as accelerator:
        parts, loops = start_without_images(recipe, accelerator, find_facts(recipe).data)
        plan = plan_run(parts, loops, {})
    folder = fewlabels.train(recipe, out=tmp_path).folder
    end = read_rows(folder, "end")[0]
    assert plan.steps == end["steps"] + end["other_steps"]
    steps = [row["phase"] for row in read_rows(folder, "train")]
    for phase in set(steps):
        own = [p.steps for stage, p in plan.phases.items() if stage.partition(",")[0] == phase]
        assert sum(own) == steps.count(phase)
    assert plan.discoveries == len(read_rows(folder, "discovery"))
    rounds = len(
        {(row["round"], row["step"]) for row in read_rows(folder, "evaluation") if "round" in row}
    )
    assert plan.evaluations == rounds


def test_a_discovery_that_uses_up_its_budget_at_once_is_planned_so(tmp_path):
    """It labels nothing the second time, which says nothing of the first."""
    recipe = recipe_from(
        {
            **TEACHER,
            "strategy": {"name": "mean_teacher", "labelled": 10, "batch": 40, "unlabelled": "rest"},
            "discovery": {"name": "confident", "by": "student"},
            "rounds": {"rounds": 3, "growth": "all", "limit": 20},
            "train": {"log_every": 1},
        }
    )
    plan = rehearse_recipe(recipe).plan
    folder = fewlabels.train(recipe, out=tmp_path).folder
    assert plan.labels == [400, 400, 400]
    assert plan.steps == len(read_rows(folder, "train"))
