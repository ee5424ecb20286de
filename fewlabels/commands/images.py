"""Commands that show images to a saved model: index, search, predict, assembly."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from fewlabels.errors import DataError, FewLabelsError, ModelError, printable
from fewlabels.processes import this_process
from fewlabels.writing import new_file, refuse_existing


def build_index(
    model: str, folder: str | None, out: str, embeddings: str | None, kind: str
) -> None:
    """Index a folder of images, or the embeddings of them that ``embed`` wrote."""
    from fewlabels.embeddings.files import listing, read_embeddings
    from fewlabels.index.files import check_place
    from fewlabels.index.index import Index
    from fewlabels.index.inputs import check_kind
    from fewlabels.models.fingerprint import fingerprint
    from fewlabels.models.saved import load_embedder

    check_kind(kind)
    check_place(Path(out))
    embedder = load_embedder(model)
    if embeddings is not None:
        names, vectors, stamp = read_embeddings(Path(embeddings))
        if stamp.model != fingerprint(embedder):
            raise ModelError(
                f"{embeddings}: its embeddings are of another model than {model} (weights or "
                "preprocessing differ); give that model, or embed again with this one"
            )
        if folder is not None and stamp.files != listing(Path(folder))[1]:
            raise DataError(
                f"{embeddings}: its embeddings are of another folder than {folder}, or images in "
                "it changed since; embed it again, or leave FOLDER out to index them as they are"
            )
        index = Index.from_embeddings(vectors, names, embedder=embedder, kind=kind)  # type: ignore[arg-type]
    elif folder is None:
        raise DataError("nothing to index; name a folder of images, or --from a file of embeddings")
    else:
        listing(Path(folder))  # says what is wrong with it
        index = Index.build(embedder.to(this_process().device), folder, kind=kind)  # type: ignore[arg-type]
    try:
        index.save(out)
    except OSError as error:
        raise FewLabelsError(f"{out} cannot be written: {error}") from error
    print(f"{out}: {len(index)} images")


def search_index(model: str, index: str, image: str, k: int, expand: int, rerank: bool) -> None:
    """Print what an image finds, best first: score, tab, id.

    Ids may be a stranger's: a terminal gets them made harmless, a pipe as they are.
    """
    from fewlabels.index.index import Index
    from fewlabels.models.saved import load_embedder

    if not Path(image).is_file():
        raise DataError(f"{image}: no such file; name one picture to search with")
    loaded = Index.load(index, load_embedder(model).to(this_process().device))
    shortlist = max(k, 100)
    found = loaded.search(image, k, expand=expand, rerank=rerank, shortlist=shortlist)
    for score, name in zip(found.scores[0], found.ids[0], strict=True):
        print(f"{score:.4f}\t{printable(name) if sys.stdout.isatty() else name}")


def predict_labels(model: str, folder: str, out: str, skip_unreadable: bool) -> None:
    """Write a CSV (file, label, probability) of a classifier's first choice for each image.

    A file that is there stays: it may hold labels that a person gave.

    Args:
        skip_unreadable: leave out images that cannot be read, and name them.
    """
    from fewlabels.embeddings.files import listing
    from fewlabels.models.readable import Readable, left_out
    from fewlabels.models.saved import load_classifier

    refuse_existing(out, "labels of yours")
    classifier = load_classifier(model)
    names, _ = listing(Path(folder))
    images = Readable(Path(folder), names, classifier.prepare, skip_unreadable)
    probabilities = classifier.predict(images, device=this_process().device)  # (N, C)
    labels = [classifier.classes[best] for best in probabilities.argmax(1)]
    sure = [f"{p:.6f}" for p in probabilities.max(1)]
    with new_file(out) as draft, draft.open("w", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened, lineterminator="\n")
        table.writerow(["file", "label", "probability"])
        table.writerows(zip(images.read, labels, sure, strict=True))
    print(f"{out}: {len(images.read)} images")
    if images.unreadable:
        print(left_out(images.unreadable), file=sys.stderr)


def draw_assembly(model: str, image: str, at: Sequence[str] | None, out: str) -> None:
    """Write a picture of the assembly weights of positions given as "ROW,COLUMN"."""
    from fewlabels.models.saved import load_model
    from fewlabels.report.assembly import draw_assembly

    refuse_existing(out)
    for place in at or []:
        if not re.fullmatch(r"\d+,\d+", place):
            raise FewLabelsError(f"--at {place}: expected a row and a column, as in 0,3")
    places = [(int(r), int(c)) for r, c in (place.split(",") for place in at)] if at else None
    picture = draw_assembly(load_model(model), image, places)
    try:
        picture.save(out)
    except (OSError, ValueError) as error:
        raise FewLabelsError(f"{out} cannot be written: {error}") from error
    print(out)
