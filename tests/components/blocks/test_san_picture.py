"""Pictures of assembly weights, by function and by command."""

import numpy as np
import pytest
import torch
from pictures import texture
from PIL import Image

from fewlabels import Classifier, Embedder
from fewlabels.cli.main import main
from fewlabels.components.blocks.san_picture import (
    DESTINATION,
    PANEL,
    SOURCE,
    compute_assembly_weights,
    draw_assembly,
)
from fewlabels.errors import ModelError

BLOCK = {"name": "san", "after": "conv2", "hidden": 8, "predictor": "conv"}
SMALL = {"image_size": 16, "backbone_options": {"width": 0.25}}


def model(loud=30.0, **options):
    """An embedder whose SAN, 8 x 8 positions, swaps destinations (0, 1) and (3, 5)."""
    torch.manual_seed(0)
    built = Embedder("convnet3", embedding_size=8, **SMALL, blocks=[BLOCK])
    block = built.backbone.conv2.block
    swap = torch.zeros(64, 64)
    one, two = 1, 3 * 8 + 5
    swap[one, one] = swap[two, two] = -loud
    swap[one, two] = swap[two, one] = loud
    block.scale = loud
    block.predict.forward = lambda maps: swap.expand(len(maps), 64, 64)
    return built


def test_weights_are_by_destination():
    weights = compute_assembly_weights(model(), texture(0))
    assert weights.shape == (8, 8, 8, 8)
    np.testing.assert_allclose(weights.sum((2, 3)), 1, atol=1e-5)
    assert np.unravel_index(weights[0, 1].argmax(), (8, 8)) == (3, 5)
    assert np.unravel_index(weights[3, 5].argmax(), (8, 8)) == (0, 1)
    assert np.unravel_index(weights[7, 2].argmax(), (8, 8)) == (7, 2)


def test_the_strongest_source_is_framed_in_its_panel():
    drawn = np.asarray(draw_assembly(model(), texture(0), [(0, 1), (7, 7)]))
    assert drawn.shape[1] == 3 * PANEL + 12
    cell = PANEL // 8
    panel = drawn[:PANEL, PANEL + 6 : 2 * PANEL + 6]
    framed = (panel == SOURCE).all(2)
    rows, columns = np.nonzero(framed)
    assert rows.min() // cell == rows.max() // cell == 3
    assert columns.min() // cell == columns.max() // cell == 5
    rows, columns = np.nonzero((panel == DESTINATION).all(2))
    assert (rows.max() // cell, columns.max() // cell) == (0, 1)
    still = drawn[:PANEL, 2 * PANEL + 12 :]  # moves nothing: both frames are on one position
    rows, columns = np.nonzero((still == SOURCE).all(2))
    assert rows.min() // cell == columns.min() // cell == 7
    source = panel[3 * cell + 8 : 4 * cell - 8, 5 * cell + 8 : 6 * cell - 8].mean()
    away = panel[6 * cell : 7 * cell, :cell].mean()
    assert source > 2 * away  # as bright as its share


def test_without_positions_those_that_move_most_are_drawn():
    asked = np.asarray(draw_assembly(model(), texture(0), [(0, 1), (3, 5), (0, 0), (0, 2)]))
    drawn = np.asarray(draw_assembly(model(), texture(0)))
    assert drawn.shape == asked.shape
    assert (drawn[:, PANEL + 6 : 3 * PANEL + 12] == asked[:, PANEL + 6 : 3 * PANEL + 12]).all()


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(ModelError, match="position 8,0 is outside the map of 8 x 8 positions"):
        draw_assembly(model(), texture(0), [(8, 0)])
    with pytest.raises(ModelError, match="no block san is in it"):
        draw_assembly(Embedder("convnet3", embedding_size=8, **SMALL), texture(0))


def test_the_command_reads_embedders_and_classifiers(tmp_path, capsys):
    texture(1).save(tmp_path / "seen.png")
    Embedder("convnet3", embedding_size=8, **SMALL, blocks=[BLOCK]).save_pretrained(tmp_path / "e")
    Classifier("convnet3", classes=["a", "b"], **SMALL, blocks=[BLOCK]).save_pretrained(
        tmp_path / "c"
    )
    for kind in "ec":
        out = tmp_path / f"{kind}.png"
        command = ["assembly", str(tmp_path / kind), str(tmp_path / "seen.png"), "-o", str(out)]
        assert main([*command, "--at", "0,0", "1,2"]) == 0
        assert Image.open(out).size[0] == 3 * PANEL + 12
    assert main(command) == 2
    assert "is there, and may hold something of yours" in capsys.readouterr().err
    command[-1] = str(tmp_path / "other.png")
    assert main([*command, "--at", "0;0"]) == 2
    assert "--at 0;0: expected a row and a column, as in 0,3" in capsys.readouterr().err
    assert main([*command, "--at", f"{'9' * 5000},1"]) == 2
    assert "expected a row and a column, as in 0,3" in capsys.readouterr().err
    assert main(["assembly", str(tmp_path / "gone"), *command[2:]]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main([*command[:2], str(tmp_path), *command[3:]]) == 2
    assert "no such file; name one picture" in capsys.readouterr().err
    command[-1] = str(tmp_path / "other.foo")
    assert main(command) == 2
    assert "no picture is called so; give it the ending .png" in capsys.readouterr().err
    command[-1] = str(tmp_path / "new" / "folder.png")  # is made, as by other commands
    assert main(command) == 0
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["folder.png"]
