from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small import DIGITS

import fewlabels
from fewlabels.components.views.flip import Flip
from fewlabels.contracts import Discovered, Phase, Pool, Stream, check_discovered
from fewlabels.errors import ComponentError, FewLabelsError
from fewlabels.recipe.recipe import Spec, recipe_from
from fewlabels.registry import discovery
from fewlabels.runs.build import Builder, build_spec
from fewlabels.runs.task import TASKS
from fewlabels.training.batches import Batches


def test_a_stronger_view_is_the_recipes_and_then_more():
    images = torch.randint(0, 256, (4, 3, 16, 16)).to(torch.uint8)

    def look(views, *more):
        recipe = recipe_from({**DIGITS, "losses": "pml:contrastive_loss", "views": views})
        view = Builder(recipe, TASKS["retrieval"], 4, 2, ("a", "b")).view_with(*more)
        return view(images, torch.Generator().manual_seed(0)).images

    always = {"name": "flip", "probability": 1.0}
    assert torch.equal(look([], Flip(probability=1.0)), images.flip(-1) / 255)
    assert torch.equal(look([always], Flip(probability=1.0)), images / 255)
    assert torch.equal(look([always]), images.flip(-1) / 255)


def test_the_means_of_a_recipe_are_those_of_the_model_and_stay_with_it(tmp_path):
    model = {**DIGITS["model"], "mean": [0.1, 0.2, 0.3], "std": [0.5, 1.0, 2.0]}
    recipe = recipe_from({**DIGITS, "losses": "pml:contrastive_loss", "model": model})
    made = Builder(recipe, TASKS["retrieval"], 4, 2, ("a", "b")).model
    made.save_pretrained(tmp_path)
    for each in (made, fewlabels.Embedder.from_pretrained(tmp_path)):
        assert each.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
        assert each.std.flatten().tolist() == pytest.approx([0.5, 1.0, 2.0])


def test_a_component_that_cannot_be_made_is_named_with_the_line(built_in, monkeypatch):
    monkeypatch.setattr(discovery, "_registered", {})

    @discovery.register("it")
    class It:
        def __init__(self, *, size: int = 1) -> None:
            raise ValueError("size is odd")

    with pytest.raises(ComponentError, match=r"'it' failed with ValueError: size is odd \(.*\.py:"):
        build_spec("discovery", Spec("it", {"size": 3}))


def test_a_stream_of_something_else_is_refused():
    batches = Batches(SimpleNamespace(num_processes=1, process_index=0, device="cpu"), *[None] * 3)
    phase = Phase("train", ("student",), {"images": Stream("unlabeled", 4, ())})
    with pytest.raises(ComponentError, match="is of 'unlabeled'; did you mean 'unlabelled'"):
        batches.check_streams(phase)


@pytest.mark.parametrize(
    ("centres", "sentence"),
    [
        ([[0.0, 0.0]] * 3, "centres are no array of two axes"),
        (np.zeros((3, 5)), "centres have 5 numbers, features 2"),
        (np.zeros((2, 2)), "there are 2 centres of 3 classes"),
        (np.full((3, 2), np.nan), "a centre is not finite"),
        (np.zeros((3, 2)), ""),
        (None, ""),
    ],
)
def test_centres_are_a_part_of_the_contract(centres, sentence):
    one = np.array([1])
    pool = Pool(np.arange(4), np.zeros((4, 2)), np.full(4, -1), np.zeros(4, bool))
    found = Discovered(one, one, np.ones(1), centres)
    assert check_discovered(found, pool, 2, 3) == sentence


def test_a_loaded_recipe_takes_no_overrides():
    recipe = recipe_from({**DIGITS, "losses": "pml:contrastive_loss"})
    with pytest.raises(FewLabelsError, match="give load_recipe the overrides"):
        fewlabels.train(recipe, ["seed=3"])
