"""What a checkpoint keeps beside weights: what is there today is read tomorrow."""

import numpy as np
import pytest

from fewlabels.errors import FewLabelsError
from fewlabels.training.run_folder import is_oracle
from fewlabels.training.state import State

AT = {
    "round": 4, "phase": 0, "epoch": 1, "batch": 2, "step": 92, "steps": {"train": 92},
    "images": {"train": 2880}, "restarted": {"train": 72}, "discoveries": 3, "begun": ["master"],
    "validation": None, "best": 0.25,
}  # fmt: skip


def test_a_checkpoint_of_version_0_1_is_read():
    state = State.of_given(np.array([0, -1, -1]))
    arrays = {"labels": np.array([0, 1, -1]), "earlier": np.array([0, -1, -1])}
    arrays["history.0.student"] = np.ones((3, 2))
    state.load(arrays, {"at": AT, "fresh": True})
    assert state.labels.tolist() == [0, 1, -1]
    assert state.label_state.previous.tolist() == [0, -1, -1]
    assert state.label_state.given.tolist() == [True, False, False]
    assert state.label_state.changed
    assert (state.progress.step, state.progress.steps_since_restart("train")) == (92, 20)
    again = state.save()
    assert again[1] == {"at": AT, "fresh": True}
    assert set(again[0]) == set(arrays)


def test_a_checkpoint_of_another_number_of_images_is_refused():
    arrays, values = State.of_given(np.array([0, -1, -1])).save()
    with pytest.raises(FewLabelsError, match="of 3 training images, and there are 4 now"):
        State.of_given(np.array([0, -1, -1, -1])).load(arrays, values)


def test_an_oracle_run_is_known_by_its_rows_of_today_and_of_version_0_1():
    assert is_oracle({"kind": "run", "oracle": True})
    assert is_oracle({"kind": "end", "ORACLE": "discovered samples got their true labels"})
    assert not is_oracle({"kind": "end", "score": 0.5})
