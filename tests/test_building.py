import torch
from small import DIGITS

from fewlabels.building import Builder
from fewlabels.data.views import Flip
from fewlabels.recipe import recipe_from


def test_a_stronger_view_is_the_recipes_and_then_more():
    images = torch.randint(0, 256, (4, 3, 16, 16)).to(torch.uint8)

    def look(views, *more):
        recipe = recipe_from({**DIGITS, "losses": "pml:contrastive_loss", "views": views})
        view = Builder(recipe, "retrieval", 4, 2, ("a", "b")).view_with(*more)
        return view(images, torch.Generator().manual_seed(0)).images

    always = {"name": "flip", "probability": 1.0}
    assert torch.equal(look([], Flip(probability=1.0)), images.flip(-1) / 255)
    assert torch.equal(look([always], Flip(probability=1.0)), images / 255)
    assert torch.equal(look([always]), images.flip(-1) / 255)
