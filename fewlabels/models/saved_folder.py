"""The folder of a saved model: config.json and model.safetensors. Neither file is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Len
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewlabels.errors import ModelError, suggest_nearest
from fewlabels.files import replace_when_whole
from fewlabels.hub.model_files import CONFIG, WEIGHTS, describe_missing_file

FORMAT: Literal[1] = 1
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
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
    mean: Three
    std: ThreePositive
    backbone_options: dict[str, Any]
    blocks: list[PlacedBlock] = []
    plugins: list[Plugin] = []


class EmbedderConfig(ImageConfig):
    """The config of an embedder."""

    kind: Literal["embedder"] = "embedder"
    embedding_size: Annotated[int, Ge(1)] | None
    normalize: bool


class ClassifierConfig(ImageConfig):
    """The config of a classifier; ``classes`` are the names of its logits."""

    kind: Literal["classifier"] = "classifier"
    classes: Annotated[list[str], Len(2)]


Config = TypeVar("Config", bound=ImageConfig)
AnyConfig = TypeVar("AnyConfig", bound=SavedConfig)


def write_model(folder: Path, config: ImageConfig, state: Mapping[str, Tensor]) -> None:
    """Write config.json and model.safetensors, each whole or not at all.

    Raises:
        ModelError: an option of the backbone that JSON cannot hold.
    """
    try:
        text = json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
    except ValueError as error:
        raise ModelError(f"backbone_options cannot be written to {CONFIG}: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    # safetensors refuses tensors that share memory or are not contiguous.
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    save_file(tensors, folder / f"{WEIGHTS}.part", metadata={"format": "pt"})
    (folder / f"{CONFIG}.part").write_text(text, encoding="utf-8")
    for name in (WEIGHTS, CONFIG):
        replace_when_whole(folder / f"{name}.part", folder / name)


def read_model(
    folder: Path, kind: type[Config], what: str | None = None
) -> tuple[Config, dict[str, Tensor]]:
    """Read a model folder: give the checked config and the weights.

    Args:
        what: the folder's name in errors; None: its path.

    Raises:
        ModelError: a missing file, a config of another format or kind, or a damaged file.
    """
    what = str(folder) if what is None else what
    names = sorted(path.name for path in folder.iterdir())
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(describe_missing_file(what, name, names))
    config = read_config(folder / CONFIG, kind, f"{what}/{CONFIG}")
    try:
        return config, load_file(folder / WEIGHTS)
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{what}/{WEIGHTS}: damaged: {error}; copy it again") from error


def read_kind(folder: Path) -> str:
    """The ``kind`` in a folder's config; "" if unreadable, which :func:`read_model` explains."""
    try:
        data = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
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
        text = path.read_text("utf-8")
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
        raise ModelError(f"{file}: this is of the kind {kind!r}; expected {expected!r}")
    try:
        return wanted.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(
            "\n".join(_describe_mistake(file, item, wanted) for item in error.errors())
        ) from error


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
