"""The folder of a saved model: config.json and model.safetensors. Neither file is trusted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from annotated_types import Ge, Gt, Le, Len
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from torch import Tensor

from fewlabels.contracts.outputs import LARGEST_EMBEDDING
from fewlabels.errors import LONGEST_MISTAKE, FewLabelsError, ModelError, shorten, suggest_nearest
from fewlabels.files import new_file, read_bounded
from fewlabels.hub.model_files import CONFIG, WEIGHTS, describe_missing_file
from fewlabels.models.precision_curve import PrecisionCurve
from fewlabels.models.tensor_file import read_tensors, write_tensors

FORMAT: Literal[1] = 1
LARGEST_CONFIG = 4_000_000
"""Bytes allowed in a config.json, which holds the names of all classes."""
MOST_MISTAKES = 10
"""Told of one config.json, which may have a million."""
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
Three = tuple[float, float, float]
ThreePositive = tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)], Annotated[float, Gt(0)]]


class PlacedBlock(BaseModel):
    """A block: its name, the module that it follows, and its options."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[\w.:-]+$")]
    after: str


class Plugin(BaseModel):
    """The plugin that offers a component; text for people, from which nothing is imported.

    ``distribution`` is None for a component that a program registered itself.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["backbone", "block"]
    name: Annotated[str, Field(pattern=r"^[\w.:-]+$")]
    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] | None
    version: Annotated[str, Field(pattern=r"^[\w.+!-]*$")] = ""


class SavedConfig(BaseModel):
    """The config.json of any folder that this package writes."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal[1] = FORMAT
    kind: str


class ImageConfig(SavedConfig):
    """Everything needed to make a model, except its weights."""

    # A bare name: with a colon it would mean a place that timm downloads or reads from.
    backbone: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    pooling: str | None
    image_size: Annotated[int, Ge(1)]
    crop_pct: Annotated[float, Gt(0), Le(1)]
    interpolation: Interpolation
    mean: Three
    std: ThreePositive
    backbone_options: dict[str, Any]
    blocks: Annotated[list[PlacedBlock], FailFast()] = []
    head: Literal["linear", "cosine", "root", "mlp"] | None = None
    hidden: Annotated[int, Ge(1), Le(LARGEST_EMBEDDING)] = 512
    mirror: bool = False
    plugins: Annotated[list[Plugin], FailFast()] = []


class EmbedderConfig(ImageConfig):
    """The config of an embedder."""

    kind: Literal["embedder"] = "embedder"
    embedding_size: Annotated[int, Ge(1)] | None
    normalize: bool


class ClassifierConfig(ImageConfig):
    """The config of a classifier; ``classes`` are the names of its logits.

    ``precision_curve`` stands in it where labelled images were held out in training.
    """

    kind: Literal["classifier"] = "classifier"
    classes: Annotated[list[str], Len(2), FailFast()]
    precision_curve: PrecisionCurve | None = None


Config = TypeVar("Config", bound=ImageConfig)
AnyConfig = TypeVar("AnyConfig", bound=SavedConfig)
T = TypeVar("T")


def check_interpolation(name: str) -> None:
    """Refuse an interpolation that no config can hold.

    Raises:
        ModelError: it is unknown.
    """
    known = get_args(Interpolation)
    if name not in known:
        raise ModelError(f"interpolation {name!r}: expected one of {', '.join(known)}")


def write_model(folder: Path, config: ImageConfig, state: Mapping[str, Tensor]) -> None:
    """Write config.json and model.safetensors, each whole or not at all.

    Raises:
        ModelError: an option of the backbone that JSON cannot hold.
        FewLabelsError: the folder cannot be written.
    """
    try:
        told = config.model_dump(mode="json", exclude=_list_unsaid(config))
        text = json.dumps(told, indent=2) + "\n"
    except ValueError as error:
        raise ModelError(f"backbone_options cannot be written to {CONFIG}: {error}") from error
    with new_file(folder / CONFIG) as config_draft, new_file(folder / WEIGHTS) as weights_draft:
        write_tensors(weights_draft, state, metadata={"format": "pt"})
        config_draft.write_text(text, encoding="utf-8")


def read_model(
    folder: Path, kind: type[Config], what: str | None = None
) -> tuple[Config, dict[str, Tensor]]:
    """Read a model folder: give the checked config and the weights.

    Args:
        what: the folder's name in errors; None: its path.

    Raises:
        ModelError: a missing file, one that may not be read, a config of another format or kind, or
            a damaged file.
    """
    what = str(folder) if what is None else what
    names = sorted(_read(os.listdir, folder, what))
    for name in (CONFIG, WEIGHTS):
        if name not in names:
            raise ModelError(describe_missing_file(what, name, names))
    config = read_config(folder / CONFIG, kind, f"{what}/{CONFIG}")
    try:
        return config, _read(read_tensors, folder / WEIGHTS, f"{what}/{WEIGHTS}")
    except ValueError as error:
        raise ModelError(f"{what}/{WEIGHTS}: damaged: {error}; copy it again") from error


def read_kind(folder: Path) -> str:
    """The ``kind`` in a folder's config; "" if unreadable, which :func:`read_model` explains."""
    try:
        data = json.loads(_read_text(folder / CONFIG))
    except (FewLabelsError, OSError, ValueError, RecursionError):
        return ""
    return str(data.get("kind", "")) if isinstance(data, dict) else ""


def read_config(path: Path, wanted: type[AnyConfig], file: str | None = None) -> AnyConfig:
    """Read and check a config.json.

    Args:
        file: the file's name in errors; None: its path.

    Raises:
        ModelError: it is not JSON, lacks a key, or is of another kind or format.
    """
    file = str(path) if file is None else file
    try:
        text = _read(_read_text, path, file)
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ModelError(f"{file}: expected a JSON object, got {type(data).__name__}")
    version, kind = data.get("format"), data.get("kind")
    if "format" not in data:
        raise ModelError(
            f"{file}: no format number, so fewlabels did not write this; give a folder that "
            "save_pretrained or fewlabels push wrote"
        )
    newest = wanted.model_fields["format"].default
    if type(version) is int and version > newest:
        raise ModelError(
            f"{file}: format {version} is newer than this fewlabels reads ({newest}); "
            "pip install --upgrade fewlabels"
        )
    expected = wanted.model_fields["kind"].default
    if kind != expected:
        raise ModelError(
            f"{file}: this is of the kind {shorten(repr(kind))}; expected {expected!r}"
        )
    try:
        return wanted.model_validate_json(text)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)[:MOST_MISTAKES]
        more = error.error_count() - len(mistakes)
        said = [
            shorten(_describe_mistake(file, item, wanted), LONGEST_MISTAKE) for item in mistakes
        ]
        said += [f"{file}: {more:,} more mistakes"] if more else []
        raise ModelError("\n".join(said)) from error


def _list_unsaid(config: ImageConfig) -> set[str]:
    """Keys that no file has where they say nothing, so that earlier versions read it."""
    unsaid = {key for key in ("precision_curve", "head") if getattr(config, key, None) is None}
    return unsaid | {"hidden", "mirror"} if "head" in unsaid else unsaid


def _read_text(path: Path) -> str:
    return read_bounded(path, LARGEST_CONFIG).decode("utf-8")


def _read(read: Callable[[Path], T], path: Path, what: str) -> T:
    """What ``read`` makes of a path, which is called ``what`` in the sentence of an error."""
    try:
        return read(path)
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(
            f"{what}: cannot be read ({reason}); copy it again, to where you may read it"
        ) from error
    except FewLabelsError as error:  # no regular file, or too large
        raise ModelError(str(error)) from error


def _describe_mistake(file: str, item: Any, wanted: type[SavedConfig]) -> str:
    key = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"{file}: {key}: unknown key{suggest_nearest(key, wanted.model_fields)}"
    if item["type"] == "missing":
        return f"{file}: {key}: missing"
    names = ("backbone", "name", "distribution")
    if item["type"] == "string_pattern_mismatch" and key.endswith(names):
        return (
            f"{file}: {key}: {item['input']!r} is no registered name, and nothing "
            "else is loaded; names are letters, digits, dots, dashes and underscores"
        )
    return f"{file}: {key}: {item['msg']}, got {item['input']!r}"
