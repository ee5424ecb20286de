"""What tests read of a run folder, through RunFolder."""

import shutil

from safetensors.torch import load_file

from fewlabels.training.run_folder import RunFolder


def read_rows(folder, kind=None):
    """Rows of the metrics, of one kind or of all."""
    rows = RunFolder(folder).read_metrics()
    return [row for row in rows if kind in (None, row["kind"])]


def newest_checkpoint(folder):
    return RunFolder(folder).list_checkpoints()[-1]


def load_newest_modules(folder):
    return load_file(newest_checkpoint(folder) / "modules.safetensors")


def forget_end(folder):
    """As if a run had been stopped before it wrote its last row."""
    file = RunFolder(folder).metrics
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def remove_checkpoints_after(folder, step):
    """As if a run had been stopped before it wrote those."""
    for place in RunFolder(folder).list_checkpoints():
        if int(place.name[5:]) > step:
            shutil.rmtree(place)
