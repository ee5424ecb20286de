"""A batch that is too small for batch norms, as a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fewlabels.contracts import Phase
from fewlabels.errors import FewLabelsError


@contextmanager
def refuse_small_batches(phase: Phase, processes: int) -> Iterator[None]:
    """Tell what torch's batch norms refuse: one value of a channel has no variance.

    It cannot be told before a step: whether a map is one pixel small is the backbone's business.

    Raises:
        FewLabelsError: naming the phase's streams, and the two ways out.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 "):
            raise
        shared = f" in {processes} processes" if processes > 1 else ""
        streams = ", ".join(f"{name}: {each.batch}" for name, each in phase.streams.items())
        raise FewLabelsError(
            f"strategy: a batch norm needs more than one image a step in each process, and phase "
            f"{phase.name!r} has batches of {streams}{shared}; give it a larger batch, or set "
            "model.freeze_batchnorm: statistics"
        ) from error
