"""Files of tensors: who may read them, and what is said when the disk or a file fails."""

import os
import resource
import signal
import stat
import struct

import pytest
import torch
from children import run_in_child
from safetensors.torch import save_file

from fewlabels import Embedder
from fewlabels.cli.main import main
from fewlabels.errors import FewLabelsError, ModelError
from fewlabels.models.tensor_file import read_tensors, write_tensors

SMALL = {"image_size": 16, "embedding_size": 4, "backbone_options": {"width": 0.25}}


@pytest.fixture
def umask():
    """Sets the process's umask; the old one comes back."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_others_may_read_a_saved_model_as_far_as_umask_says(tmp_path, umask, mask, mode):
    umask(mask)
    Embedder("convnet3", **SMALL).save_pretrained(tmp_path / "model")
    write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)})
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in files} == dict.fromkeys(
        ("config.json", "model.safetensors", "a.safetensors"), mode
    )


def test_tensors_that_share_memory_or_are_turned_come_back_as_they_are(tmp_path):
    whole = torch.arange(6.0).view(2, 3)
    given = {"whole": whole, "turned": whole.T, "part": whole[1], "none": torch.zeros(0)}
    write_tensors(tmp_path / "a.safetensors", given)
    found = read_tensors(tmp_path / "a.safetensors")
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name]) for name in given)


def test_a_file_that_grows_too_large_is_an_error_of_the_system_with_the_file_s_name(tmp_path):
    file = tmp_path / "a.safetensors"

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        write_tensors(file, {"a": torch.zeros(10_000)})

    assert run_in_child(write) == f"OSError: [Errno 27] File too large: '{file}'"


def test_a_model_that_cannot_be_written_is_a_sentence_and_leaves_nothing(tmp_path):
    model, place = Embedder("convnet3", **SMALL), tmp_path / "model"

    def save():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        model.save_pretrained(place)

    said = run_in_child(save)
    assert said.startswith("fewlabels.errors.FewLabelsError: ")
    assert f"{place / 'model.safetensors'} cannot be written" in said
    assert "File too large" in said
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_one_may_not_read_is_not_called_missing(tmp_path, name, capsys):
    Embedder("convnet3", **SMALL).save_pretrained(tmp_path)
    (tmp_path / name).chmod(0)
    if os.access(tmp_path / name, os.R_OK):  # root reads everything

        def show():
            os.chmod(tmp_path, 0o755)
            os.chdir(tmp_path)
            os.setuid(65534)
            Embedder.from_pretrained(".")

        said = run_in_child(show)
    else:
        assert main(["show", str(tmp_path)]) == 2
        said = capsys.readouterr().err
    assert f"{name}: cannot be read (Permission denied); copy it again" in said


def test_a_missing_file_is_called_so(tmp_path):
    Embedder("convnet3", **SMALL).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors; a model is config\.json and"):
        Embedder.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read .Is a directory"):
        Embedder.from_pretrained(tmp_path)


def test_a_header_of_many_megabytes_is_not_read(tmp_path):
    """A million tensors without a number each took half a minute and a gigabyte."""
    file = tmp_path / "a.safetensors"
    file.write_bytes(struct.pack("<Q", 88_500_001))
    os.truncate(file, 88_500_009)
    with pytest.raises(ValueError, match="a header of 88,500,001 bytes"):
        read_tensors(file)


def test_more_than_the_memory_holds_is_said_before_it_is_mapped(tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(1000)}, file)
    monkeypatch.setattr("fewlabels.models.tensor_file.measure_memory", lambda: 1000)
    with pytest.raises(FewLabelsError, match="more than the 0 GiB of memory here; choose a small"):
        read_tensors(file)
