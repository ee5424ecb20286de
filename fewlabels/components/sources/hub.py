"""Any image data set of the Hugging Face Hub."""

from __future__ import annotations

from typing import Any, Literal

from fewlabels.contracts import Records
from fewlabels.data.hf_dataset import from_dataset, local_copy, open_dataset
from fewlabels.errors import DataError
from fewlabels.registry import sources


@sources.register("hub")
class Hub:
    """Any image data set of the Hugging Face Hub, or a local copy of one.

    Args:
        id: its name, as in ``uoft-cs/cifar10``; or a folder.
        config: its configuration, where it has several.
        revision: a commit, tag or branch; name a commit for figures that are to last.
        splits: the splits to read, one after the other; empty: all.
        image: the column of images; null: the only one.
        label: the column of classes; null: the only one, or ``label``.
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
        """The rows of the splits, with the column ``split``.

        Raises:
            DataError: no such data set or column, or no network and no copy in the cache.
        """
        if not self.id:
            raise DataError("data.id is empty; name a data set of the Hub, as uoft-cs/cifar10")
        data = open_dataset(local_copy(self.id), self.config, revision=self.revision)
        wanted: Any = self.splits or list(data)
        for name in wanted:
            if name not in data:
                raise DataError(f"{self.id} has no split {name!r} (it has: {', '.join(data)})")
        return from_dataset({name: data[name] for name in wanted}, self.image, self.label)
