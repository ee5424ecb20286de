"""``fewlabels embed``; ``accelerate launch -m fewlabels embed ...`` shares out the parts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabels.cli.options import (
    add_import_option,
    add_skip_option,
    import_beside_model,
    print_remark,
)
from fewlabels.errors import DataError, ModelError
from fewlabels.files import refuse_unwritable
from fewlabels.training.processes import join_processes, leave_processes

if TYPE_CHECKING:
    import numpy as np

    from fewlabels.models.embedder import Embedder
    from fewlabels.search.embeddings_parts import Parts


def embed_folder(
    model: str | Path,
    folder: str | Path,
    out: str | Path,
    *,
    batch_size: int = 32,
    shard: int = 4096,
    skip_unreadable: bool = False,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Write the embeddings of all images below a folder to a parquet file.

    Its columns: ``file``, a path relative to the folder, and ``embedding``, float32 of fixed size
    and unit length. A part is written beside it after every ``shard`` images. If stopped, the same
    call continues after the finished parts, in any number of processes, and gives the same file.

    Args:
        model: the folder of an embedder.
        skip_unreadable: leave out images that cannot be read.
        say: receives the progress messages of this process.

    Returns:
        The names of the images that were left out.

    Raises:
        DataError: no such folder, parts of another model or folder, or a file cannot be written.
        ModelError: there is no embedder or no image, or an image cannot be read.
    """
    from accelerate.utils import broadcast_object_list

    from fewlabels.models.load import load_embedder

    for option, value in (("batch-size", batch_size), ("shard", shard)):
        if value < 1:
            raise DataError(f"--{option} {value}: give at least 1")
    folder, process = Path(folder), join_processes()
    plan: list[Any] = [None]
    embedder = load_embedder(model) if process.is_main_process else None
    with ExitStack() as held:
        if embedder:
            plan = [_plan_parts(embedder, folder, Path(out), shard, skip_unreadable, held)]
        if process.num_processes > 1:
            broadcast_object_list(plan)
        parts, todo = plan[0]
        # After the main process: what is wrong with the model is said once.
        embedder = (embedder or load_embedder(model)).to(process.device)
        for number in todo[process.process_index :: process.num_processes]:
            names = parts.names_of(number)
            made = _encode_readable(embedder, folder, names, batch_size, skip_unreadable)
            parts.write_part(number, *made)
            among = f" (process {process.process_index})" if process.num_processes > 1 else ""
            say(f"shard {number + 1} of {len(parts)}{among}")
        process.wait_for_everyone()
        if process.is_main_process:
            if parts.read_joined_stamp() is None:
                parts.join_parts()
            parts.remove_parts()
        process.wait_for_everyone()
    whole = parts.read_joined_stamp()
    return whole.unreadable if whole else []


def _plan_parts(
    embedder: Embedder, folder: Path, out: Path, shard: int, skip: bool, held: ExitStack
) -> tuple[Parts, list[int]]:
    """The parts of a file of embeddings, and the numbers of those not written yet.

    Args:
        held: keeps other commands from writing the same file, until it is left.
    """
    from fewlabels.data.readable import SKIP, describe_unreadable
    from fewlabels.models.fingerprint import fingerprint_model
    from fewlabels.search.embeddings_file import Stamp, list_images
    from fewlabels.search.embeddings_parts import Parts

    names, files = list_images(folder, print_remark)
    stamp = Stamp(model=fingerprint_model(embedder), files=files, shard=shard)
    parts = Parts(out, names, stamp)
    joined = parts.read_joined_stamp()
    if not joined:
        refuse_unwritable(out)
        held.enter_context(parts.lock_output())
    found = parts.read_finished_stamps()
    for done in [joined] if joined else found.values():
        if done.unreadable and not skip:
            before = [(folder / name, "it was left out before") for name in done.unreadable]
            raise ModelError(describe_unreadable(before, SKIP))
    return parts, [] if joined else [n for n in range(len(parts)) if n not in found]


def _encode_readable(
    embedder: Embedder, folder: Path, names: list[str], batch_size: int, skip: bool
) -> tuple[list[str], np.ndarray, list[str]]:
    """Names and embeddings (N, D) of the readable images, and the names of the unreadable ones."""
    from fewlabels.data.readable import Readable

    images = Readable(folder, names, embedder.prepare_image, skip)
    vectors = embedder.encode(images, batch_size)
    return images.read, vectors, images.unreadable


def add_commands(commands: Any) -> None:
    """Declare ``embed``."""
    command = commands.add_parser("embed", help="write a folder's embeddings")
    command.add_argument("model", help="the folder of an embedder, as in runs/NAME/model")
    command.add_argument("folder", help="a folder of images")
    command.add_argument("-o", "--out", required=True, help="a parquet file to write")
    command.add_argument("--batch-size", type=int, default=32, help="images at once (32)")
    command.add_argument("--shard", type=int, default=4096, help="images in a part (4096)")
    add_skip_option(command)
    add_import_option(command)
    command.set_defaults(run_command=run_embed)


def run_embed(given: argparse.Namespace) -> None:
    """``fewlabels embed``: embed a folder, and list the images that were left out."""
    import_beside_model(given)
    from fewlabels.data.readable import left_out

    lost = embed_folder(
        given.model,
        given.folder,
        given.out,
        batch_size=given.batch_size,
        shard=given.shard,
        skip_unreadable=given.skip_unreadable,
    )
    if join_processes().is_main_process:
        print(given.out)
        if lost:
            print(left_out(lost), file=sys.stderr)
    leave_processes()
