"""A recipe says how it is run; accelerate's variables must not silently say otherwise."""

import pytest

from fewlabels.errors import FewLabelsError
from fewlabels.recipe.recipe import recipe_from
from fewlabels.runs.assemble import make_accelerator
from fewlabels.training import launch_environment
from fewlabels.training.launch_environment import start_accelerate
from fewlabels.training.processes import join_processes


def recipe(**train):
    return recipe_from({"data": {"source": "digits"}, "losses": "multi_similarity", "train": train})


@pytest.fixture
def variables(monkeypatch):
    """Sets variables; the others of accelerate are unset."""
    for name in launch_environment._list_set():
        monkeypatch.delenv(name)

    def put(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"ACCELERATE_{name}", value)

    return put


@pytest.mark.parametrize(
    ("name", "value", "train", "sentence"),
    [
        ("GRADIENT_ACCUMULATION_STEPS", "4", {}, "the recipe says train.accumulate: 1; change"),
        ("GRADIENT_ACCUMULATION_STEPS", "1", {"accumulate": 4}, "train.accumulate: 4; change"),
        ("MIXED_PRECISION", "bf16", {}, "the recipe says train.precision: no; change the recipe"),
        ("MIXED_PRECISION", "fp8", {"precision": "bf16"}, "train.precision: bf16; change"),
        ("DYNAMO_BACKEND", "INDUCTOR", {}, "is INDUCTOR, which no recipe asks for"),
        ("USE_DEEPSPEED", "true", {}, "is true, which no recipe asks for"),
        ("USE_FSDP", "1", {}, "is 1, which no recipe asks for"),
        ("USE_MEGATRON_LM", "true", {}, "which no recipe asks for"),
        ("USE_PARALLELISM_CONFIG", "true", {}, "which no recipe asks for"),
    ],
)
def test_a_variable_that_says_otherwise_is_refused(variables, name, value, train, sentence):
    variables(**{name: value})
    with pytest.raises(FewLabelsError) as caught:
        make_accelerator(recipe(**train))
    assert str(caught.value).startswith(f"ACCELERATE_{name} is {value}, ")
    assert sentence in str(caught.value)


def test_what_accelerate_launch_sets_by_itself_is_no_clash(variables):
    variables(
        USE_CPU="True",
        MIXED_PRECISION="no",
        DYNAMO_BACKEND="NO",
        DYNAMO_MODE="default",
        USE_FSDP="false",
    )
    given = make_accelerator(recipe(precision="bf16", accumulate=2))
    assert (given.mixed_precision, given.gradient_accumulation_steps) == ("bf16", 2)
    variables(MIXED_PRECISION="bf16", GRADIENT_ACCUMULATION_STEPS="2")
    make_accelerator(recipe(precision="bf16", accumulate=2))


@pytest.mark.parametrize(("name", "value"), [("USE_CPU", "banana"), ("USE_FSDP", "true")])
def test_commands_without_a_recipe_refuse_what_they_cannot_do(variables, name, value):
    variables(**{name: value})
    with pytest.raises(FewLabelsError, match=f"ACCELERATE_{name}.*{value}"):
        join_processes()


def test_what_accelerate_cannot_do_here_is_a_sentence(variables):
    class Started:
        device = "cuda:99"

    variables(TORCH_DEVICE="cuda:99")
    sentence = "accelerate cannot start: .*; set here: ACCELERATE_TORCH_DEVICE=cuda:99"
    with pytest.raises(FewLabelsError, match=f"(?s){sentence}"):
        start_accelerate(Started)
