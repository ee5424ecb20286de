"""Uploads a run's model, card, recipe, metrics and pictures to the Hub in one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fewlabels.errors import HubError
from fewlabels.evaluation import neighbours_picture as neighbours
from fewlabels.files import new_file, refuse_existing, refuse_unwritable
from fewlabels.hub.download import CARD, WANTED
from fewlabels.hub.upload import check_name, upload_files
from fewlabels.models.load import load_model
from fewlabels.runs.card import Picture, make_card
from fewlabels.runs.finished_run import FinishedRun, check_same, read_run
from fewlabels.training.run_folder import RunFolder

PICTURES = (".png", ".jpg", ".jpeg")


def push_run(
    folder: str | Path,
    repo: str,
    *,
    seeds: Sequence[str | Path] = (),
    private: bool = False,
    dry_run: bool = False,
    license: str | None = None,
    data_license: str | None = None,
    pictures: bool = True,
    card: str | None = None,
    say: Callable[[str], None] = print,
) -> str | None:
    """Upload a run folder; returns the URL of the commit, or None for a dry run.

    It may be repeated after a failure: files that have arrived are not sent again, and unchanged
    files make no commit. The ledger and the checkpoints are not uploaded.

    Args:
        repo: ``org/name``; created if it does not exist.
        seeds: folders of further runs of the recipe, for mean and spread in the card.
        private: create the repository as private; an existing public one is refused.
        dry_run: say what would be sent, without contacting the Hub.
        license: licence of the weights, as the Hub abbreviates it.
        data_license: licence of the images, in words.
        pictures: send ``pictures/``, which show images that you may not be allowed to publish.
        card: a local file to write the card to as well, so that it can be read first.

    Raises:
        HubError: the run must not be pushed, a file of it is a link, or the Hub refuses.
        ModelError: the run's model cannot be loaded.
    """
    check_name(repo)
    if card is not None:
        refuse_unwritable(card)
    folder = Path(folder)
    drawn = _find_pictures(folder) if pictures else []
    sent = {name: _check_own(path, folder) for name, path in _name_files(folder, drawn).items()}
    runs = [read_run(Path(each)) for each in (folder, *seeds)]
    check_same(runs)
    model = load_model(RunFolder(folder).model)
    shown = [_check_picture(path.name) for path in drawn]
    try:
        text = make_card(
            runs, model, repo, pictures=shown, license=license, data_license=data_license
        )
    except (KeyError, TypeError) as error:
        raise HubError(f"{folder}: metrics.jsonl is damaged: a row lacks {error}") from error
    if card is not None:
        _write_card(Path(card), text)
    for note in _name_what_shows(drawn, runs[0], repo):
        say(note)
    files: dict[str, Path | bytes] = {CARD: text.encode(), **sent}
    if dry_run:
        _tell_sizes(files, f"private {repo}" if private else repo, say)
        return None
    address = upload_files(files, repo, private, f"Run {runs[0].recipe.name} of fewlabels")
    say(address)
    return address


def _find_pictures(folder: Path) -> list[Path]:
    found = RunFolder(folder).pictures.glob("*")
    return sorted(path for path in found if path.suffix.lower() in PICTURES)


def _name_files(folder: Path, pictures: Sequence[Path]) -> dict[str, Path]:
    """The files to upload beside the card, by their path in the repository."""
    run = RunFolder(folder)
    files = {name: run.model / name for name in WANTED}
    files |= {path.name: path for path in (run.recipe, run.metrics)}
    return files | {f"pictures/{path.name}": path for path in pictures}


def _check_own(file: Path, folder: Path) -> Path:
    """Check that a file of a folder, if it is there, is its own: a link could send any file.

    Raises:
        HubError: it is a link, lies behind one or outside the folder, or is a pipe or a folder.
    """
    above = [place for place in (*reversed(file.parents), file) if place.is_relative_to(folder)]
    for place in above[1:]:  # the run folder itself may be called by a link
        if place.is_symlink() or not place.resolve().is_relative_to(folder.resolve()):
            raise HubError(
                f"{place} is a link, which could lead to any file of yours, so nothing is sent; "
                "put a copy of what it leads to in its place"
            )
    if file.exists() and not file.is_file():
        raise HubError(f"{file} is no regular file, so nothing is sent; remove it")
    return file


def _name_what_shows(pictures: Sequence[Path], run: FinishedRun, repo: str) -> Iterator[str]:
    """Notes on what will become visible to others: pictures of the data, and local paths."""
    if pictures:
        names = ", ".join(f"pictures/{path.name}" for path in pictures)
        yield (
            f"note: {names}: images of the data are in it; --no-pictures if that may not be shared"
        )
    now, then = run.recipe.resolved, run.start.get("resolved")
    for key, path in dict.fromkeys([*_local_paths(now), *_local_paths(then)]):
        file = "recipe.yaml" if (key, path) in _local_paths(now) else "metrics.jsonl"
        yield f"note: {file} says {key}: {path}, which readers of {repo} will see"


def _tell_sizes(files: Mapping[str, Path | bytes], repo: str, say: Callable[[str], None]) -> None:
    sizes = {k: len(v) if isinstance(v, bytes) else v.stat().st_size for k, v in files.items()}
    for name, size in sizes.items():
        say(f"{_format_size(size):>10}  {name}")
    say(f"{_format_size(sum(sizes.values())):>10}  in one commit to {repo}; nothing was sent")


def _write_card(file: Path, text: str) -> None:
    with suppress(OSError):  # what cannot be read is not to be overwritten either
        if file.is_file() and file.read_bytes() == text.encode():
            return  # of the same push before
    refuse_existing(file, "a card of yours")
    with new_file(file) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def _check_picture(name: str) -> Picture:
    path = f"pictures/{name}"
    if name == neighbours.FILE:
        return Picture(path, neighbours.ALT, neighbours.CAPTION)
    return Picture(path, Path(name).stem)


def _local_paths(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, path) for each absolute or home path in a recipe."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _local_paths(each, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for each in value:
            yield from _local_paths(each, key)
    elif isinstance(value, str) and value.startswith(("/", "~")):
        yield key, value


def _format_size(size: float) -> str:
    """A number of bytes in B, kB, MB or GB (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
