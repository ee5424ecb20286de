"""Commands that apply a saved model to images: index, search, demo, assembly."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewlabels.cli.options import (
    add_import_option,
    add_skip_option,
    import_beside_model,
    print_remark,
)
from fewlabels.errors import DataError, FewLabelsError, ModelError, make_printable
from fewlabels.files import new_file, refuse_existing
from fewlabels.training.processes import join_processes


def add_commands(commands: Any) -> None:
    """Declare ``index``, ``search``, ``demo`` and ``assembly``."""
    index = commands.add_parser("index", help="make a folder of images ready to be searched")
    index.add_argument("model", help="the folder of an embedder, as in runs/NAME/model")
    index.add_argument("folder", nargs="?", help="a folder of images")
    index.add_argument("-o", "--out", required=True, help="a folder to write, as photos.index")
    index.add_argument("--from", dest="embeddings", help="embeddings that `embed` wrote")
    index.add_argument("--kind", default="auto", help="auto, flat or ivf_pq; auto if left out")
    add_skip_option(index)
    search = commands.add_parser("search", help="find the images that are nearest to an image")
    search.add_argument("model", help="the embedder that the index was made with")
    search.add_argument("index", help="a folder that `index` wrote")
    search.add_argument("image", help="a picture")
    search.add_argument("-k", type=int, default=10, help="how many to find (10)")
    search.add_argument("--expand", type=int, default=0, metavar="N", help="search again near N")
    search.add_argument("--rerank", action="store_true", help="order by shared neighbours")
    demo = commands.add_parser("demo", help="a page on which a dropped image finds those near it")
    demo.add_argument("model", help="the embedder that the index was made with")
    demo.add_argument("index", help="a folder that `index` wrote")
    demo.add_argument("--images", metavar="FOLDER", help="the folder that was indexed, to show")
    demo.add_argument("--port", type=int, help="the first that is free from 7860 on if left out")
    assembly = commands.add_parser("assembly", help="picture where SAN moves an image's features")
    assembly.add_argument("model", help="a model folder, as in runs/NAME/model")
    assembly.add_argument("image", help="a picture")
    assembly.add_argument(
        "--at", nargs="+", metavar="ROW,COLUMN", help="destinations; the four that move most"
    )
    assembly.add_argument("-o", "--out", default="assembly.png", help="assembly.png if left out")
    for command, run in (
        (index, run_index),
        (search, run_search),
        (demo, run_demo),
        (assembly, run_assembly),
    ):
        add_import_option(command)
        command.set_defaults(run_command=run)


def run_index(given: argparse.Namespace) -> None:
    """``fewlabels index``."""
    import_beside_model(given)
    build_index(
        given.model, given.folder, given.out, given.embeddings, given.kind, given.skip_unreadable
    )


def run_search(given: argparse.Namespace) -> None:
    """``fewlabels search``."""
    import_beside_model(given)
    search_index(given.model, given.index, given.image, given.k, given.expand, given.rerank)


def run_demo(given: argparse.Namespace) -> None:
    """``fewlabels demo``."""
    import_beside_model(given)
    from fewlabels.cli.demo_page import serve_page

    serve_page(given.model, given.index, given.images, given.port)


def run_assembly(given: argparse.Namespace) -> None:
    """``fewlabels assembly``."""
    import_beside_model(given)
    draw_assembly(given.model, given.image, given.at, given.out)


def build_index(
    model: str,
    folder: str | None,
    out: str,
    embeddings: str | None,
    kind: str,
    skip_unreadable: bool = False,
) -> None:
    """Index a folder of images, or the embeddings of them that ``embed`` wrote.

    Args:
        skip_unreadable: leave out images that cannot be read, and name them.
    """
    from fewlabels.data.readable import Readable, left_out
    from fewlabels.models.fingerprint import fingerprint_model
    from fewlabels.models.load import load_embedder
    from fewlabels.search.embeddings_file import list_images, read_embeddings
    from fewlabels.search.index import Index
    from fewlabels.search.index_folder import check_place
    from fewlabels.search.inputs import check_kind

    check_kind(kind)
    check_place(Path(out))
    embedder, lost = load_embedder(model), []
    if embeddings is not None:
        names, vectors, stamp = read_embeddings(Path(embeddings))
        if stamp.model != fingerprint_model(embedder):
            raise ModelError(
                f"{embeddings}: its embeddings are of another model than {model} (weights or "
                "preprocessing differ); give that model, or embed again with this one"
            )
        if folder is not None and stamp.files != list_images(Path(folder), print_remark)[1]:
            raise DataError(
                f"{embeddings}: its embeddings are of another folder than {folder}, or images in "
                "it changed since; embed it again, or leave FOLDER out to index them as they are"
            )
        index = Index.from_embeddings(vectors, names, embedder=embedder, kind=kind)  # type: ignore[arg-type]
    elif folder is None:
        raise DataError("nothing to index; name a folder of images, or --from a file of embeddings")
    else:
        names, _ = list_images(Path(folder), print_remark)
        images = Readable(Path(folder), names, embedder.prepare_image, skip_unreadable)
        vectors = embedder.to(join_processes().device).encode(images)
        index = Index.from_embeddings(vectors, images.read, embedder=embedder, kind=kind)  # type: ignore[arg-type]
        lost = images.unreadable
    try:
        index.save(out)
    except OSError as error:
        raise FewLabelsError(f"{out} cannot be written: {error}") from error
    print(f"{out}: {len(index)} images")
    if lost:
        print(left_out(lost), file=sys.stderr)


def search_index(model: str, index: str, image: str, k: int, expand: int, rerank: bool) -> None:
    """Print the images found for an image, best first: score, tab, id.

    An index may come from somebody else, so control characters in ids are replaced if the output
    is a terminal; a pipe gets the ids unchanged.
    """
    from fewlabels.models.load import load_embedder
    from fewlabels.search.index import Index

    if not Path(image).is_file():
        raise DataError(f"{image}: no such file; name one picture to search with")
    loaded = Index.load(index, load_embedder(model).to(join_processes().device))
    shortlist = max(k, 100)
    found = loaded.search(image, k, expand=expand, rerank=rerank, shortlist=shortlist)
    for score, name in zip(found.scores[0], found.ids[0], strict=True):
        print(f"{score:.4f}\t{make_printable(name) if sys.stdout.isatty() else name}")


def draw_assembly(model: str, image: str, at: Sequence[str] | None, out: str) -> None:
    """Write a picture of SAN's assembly weights at the positions ``at``, each "ROW,COLUMN"."""
    from PIL import Image

    from fewlabels.components.blocks.san_picture import draw_assembly
    from fewlabels.models.load import load_model

    refuse_existing(out)
    if Image.registered_extensions().get(Path(out).suffix.lower()) not in Image.SAVE:
        raise FewLabelsError(f"{out}: no picture is called so; give it the ending .png")
    if not Path(image).is_file():
        raise DataError(f"{image}: no such file; name one picture")
    for place in at or []:
        if not re.fullmatch(r"\d{1,6},\d{1,6}", place, re.ASCII):
            raise FewLabelsError(f"--at {place}: expected a row and a column, as in 0,3")
    places = [(int(r), int(c)) for r, c in (place.split(",") for place in at)] if at else None
    picture = draw_assembly(load_model(model), image, places)
    with new_file(out) as draft:
        picture.save(draft)
    print(out)
