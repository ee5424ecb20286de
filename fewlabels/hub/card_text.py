"""Parts of every model card: metadata, example code, and escaping of text from outside."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any, Literal

Kind = Literal["embedder", "classifier"]
PIPELINE: dict[str, str] = {
    "embedder": "image-feature-extraction",
    "classifier": "image-classification",
}
LONGEST = 200


def escape_markdown(text: object) -> str:
    """Escape text so that Markdown shows it literally: it makes no HTML, link or picture.

    The result is one line, cut after ``LONGEST`` characters.
    """
    line = " ".join(str(text).split())
    line = "".join(c for c in line if c.isprintable())
    line = line if len(line) <= LONGEST else line[:LONGEST] + "…"
    marked = r"[\\`*_{}\[\]<>#!|~&\"'$:@]|(?<=www)\."
    line = re.sub(marked, lambda found: f"&#{ord(found[0])};", line, flags=re.IGNORECASE)
    # A renderer looks for addresses and for people behind the entity too; a comment parts the text.
    return line.replace("&#64;", "&#64;<!-- -->")


def fence_code(text: str, language: str = "") -> str:
    """Make a fenced code block whose fence is longer than any run of backticks in ``text``."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def describe_usage(repo: str, kind: Kind) -> str:
    """A Python code block of five lines that loads a model and uses it."""
    if kind == "classifier":
        last = [
            'probabilities = model.predict(["a.jpg", "b.jpg"])  # (2, classes)',
            "print([model.classes[k] for k in probabilities.argmax(1)])",
        ]
    else:
        last = [
            'vectors = model.encode(["a.jpg", "b.jpg"])  # (2, D), L2-normalised',
            "print(vectors @ vectors.T)  # cosine similarities",
        ]
    name = kind.capitalize()
    lines = [f"from fewlabels import {name}", "", f'model = {name}.from_pretrained("{repo}")']
    return fence_code("\n".join([*lines, *last]), "python")


def format_metadata(kind: Kind, **more: Any) -> str:
    """The YAML header of a card, written by the Hub's own client; ``more`` are further keys."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="fewlabels", pipeline_tag=PIPELINE[kind], tags=["fewlabels", kind], **more
    )
    return f"---\n{data.to_yaml()}\n---\n"


def short_card(repo: str, kind: Kind) -> str:
    """The card of a model that is uploaded without its run folder.

    Args:
        repo: ``org/name``, already checked by the caller.
    """
    return (
        f"{format_metadata(kind)}\n# {escape_markdown(repo.partition('/')[2])}\n\n"
        f"An image {kind} made with fewlabels {version('fewlabels')}. How it was trained and how "
        "well it does is not recorded here: `fewlabels push RUN_FOLDER` writes a full card.\n\n"
        f"{describe_usage(repo, kind)}\n\n"
        "The weights are safetensors; loading them runs no code of this repository.\n"
    )
