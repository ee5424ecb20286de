"""Image data sets of the Hugging Face Hub."""

from __future__ import annotations

from typing import Any, Literal

from fewlabels.contracts import Records
from fewlabels.data.hf_dataset import (
    from_dataset,
    list_own_folders,
    local_copy,
    open_dataset,
)
from fewlabels.errors import DataError
from fewlabels.registry import sources


@sources.register("hub")
class Hub:
    """Reads an image data set of the Hugging Face Hub, or a local copy of one.

    Args:
        id: name of the data set, as ``uoft-cs/cifar10``, or a folder under the data roots.
        config: its configuration, if it has several.
        revision: commit, tag or branch; name a commit if results have to be reproducible.
        splits: splits to read, in this order; empty: all.
        image: column of images; null: the only such column.
        label: column of classes; null: the only such column, or ``label``.

    Source: the library `datasets` of Hugging Face.
    Recipe: `data: {source: hub, id: uoft-cs/cifar10, split: official, labels: 4000}`
    """

    default_split: Literal["official", "zero_shot", "all"] = "official"

    def __init__(
        self,
        *,
        id: str = "",
        config: str | None = None,
        revision: str | None = None,
        splits: list[str] = [],  # noqa: B006 - read only
        image: str | None = None,
        label: str | None = None,
    ) -> None:
        self.id, self.config, self.revision, self.splits = id, config, revision, list(splits)
        self.image, self.label = image, label

    def load(self) -> Records:
        """Records of all rows, with a column ``split``.

        Raises:
            DataError: no such data set, split or column; or no network and no cached copy.
        """
        if not self.id:
            raise DataError("data.id is empty; name a data set of the Hub, as uoft-cs/cifar10")
        copy = local_copy(self.id)
        data = open_dataset(copy, self.config, revision=self.revision)
        wanted: Any = self.splits or list(data)
        for name in wanted:
            if name not in data:
                raise DataError(f"{self.id} has no split {name!r} (it has: {', '.join(data)})")
        parts = {name: data[name] for name in wanted}
        return from_dataset(parts, self.image, self.label, inside=list_own_folders(copy))
