"""Decoding of images given as paths, PIL images, arrays or tensors, and resizing to a square."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import str_to_interp_mode
from torch import Tensor
from torchvision.transforms import functional as F

from fewlabels.data.find_images import find_images, list_suffixes
from fewlabels.data.lazy_images import describe_reason
from fewlabels.data.open_image import as_rgb, check_proportions, open_image
from fewlabels.errors import ModelError

Images = str | Path | Image.Image | Tensor | np.ndarray | Mapping[str, Any] | Iterable[Any]


def resize_to_square(
    image: Image.Image | Tensor, resize_size: int, image_size: int, interpolation: str
) -> Tensor:
    """The shorter side resized to ``resize_size``, and a square of that side around the middle.

    The middle ``image_size`` pixels of the square are what timm's evaluation transform cuts out of
    the whole image, to the pixel; so the square is placed by that cut, whose rounding it shares.

    Returns:
        (3, resize_size, resize_size), uint8 for a PIL image, else of the tensor's type.

    Raises:
        ValueError: a side more than 100 times as long as the other, which would fill the memory.
    """
    check_proportions(*(image.size if isinstance(image, Image.Image) else image.shape[1:]))
    if isinstance(image, Image.Image):
        image = as_rgb(image)
    image = F.resize(image, resize_size, str_to_interp_mode(interpolation), antialias=True)
    pixels = image if isinstance(image, Tensor) else F.pil_to_tensor(image)
    margin = round((resize_size - image_size) / 2)
    top, left = (round((side - image_size) / 2) - margin for side in pixels.shape[1:])
    return pixels[:, top : top + resize_size, left : left + resize_size]


def decode_images(
    images: Images, prepare: Callable[[Image.Image | Tensor], Tensor]
) -> Iterator[Tensor]:
    """Decode images, each a PIL image or a tensor (3, H, W), and yield ``prepare`` of each.

    Raises:
        ModelError: an item cannot be read as an image; the message gives its position.
    """
    items = _iterate_items(images)
    for position in itertools.count():
        item = None
        try:
            item = next(items)
            image = _prepare_item(item, prepare)
        except StopIteration:
            return
        except ModelError:
            raise
        except Exception as error:  # decoders and lazy columns fail in many ways
            named = f" ({name})" if (name := _name_file(item)) else ""
            raise ModelError(
                f"image {position}{named} cannot be read: {describe_reason(error)}"
            ) from error
        yield image


def files_of(folder: Path, say: Callable[[str], None] = warnings.warn) -> list[Path]:
    """The images below a folder, in sorted order; hidden files are none.

    Args:
        say: is told what was passed over that looks like an image; a warning if left out.

    Raises:
        ModelError: there is none.
    """
    files, remarks = find_images(folder)
    if not files:
        looked_for = f"{folder}: no image in this folder; looked for"
        raise ModelError(
            "; ".join([f"{looked_for} {', '.join(sorted(list_suffixes()))}", *remarks])
        )
    for remark in remarks:
        say(f"{folder}: {remark}")
    return files


def _iterate_items(images: Images) -> Iterator[Any]:
    if isinstance(images, (str, Path)):
        path = Path(images)
        if not path.is_dir():
            return iter([path])
        return iter(files_of(path))
    if isinstance(images, (Image.Image, Mapping)):
        return iter([images])
    if isinstance(images, (Tensor, np.ndarray)):
        if images.ndim not in (3, 4):
            raise ModelError(
                f"images of shape {tuple(images.shape)}: expected a tensor (B, 3, H, W) or an "
                "array (H, W, 3)"
            )
        return iter(images if images.ndim == 4 else images[None])
    if isinstance(images, Iterable):
        return iter(images)
    raise ModelError(
        f"expected images, got {type(images).__name__}; give a path, a PIL image, a tensor, an "
        "array or a sequence of these"
    )


def _prepare_item(item: Any, prepare: Callable[[Image.Image | Tensor], Tensor]) -> Tensor:
    if isinstance(item, Tensor):
        return prepare(_check_image(item))
    if isinstance(item, Mapping):  # an undecoded image of the datasets library
        item = io.BytesIO(item["bytes"]) if item.get("bytes") else item["path"]
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8:
            raise TypeError(f"an array must hold uint8, got {item.dtype}")
        item = Image.fromarray(item)
    if not isinstance(item, (str, Path, io.BytesIO, Image.Image)):
        raise TypeError(f"expected a path, PIL image, tensor or array, got {type(item).__name__}")
    with open_image(item) as image:
        return prepare(image)


def _name_file(item: Any) -> object:
    """The file that an image comes from, where it is known."""
    if isinstance(item, Mapping):
        return item.get("path")
    return item if isinstance(item, (str, Path)) else getattr(item, "filename", None)


def _check_image(image: Tensor) -> Tensor:
    if image.ndim != 3 or len(image) != 3:
        raise ValueError(f"expected a tensor (3, H, W), got {tuple(image.shape)}")
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise TypeError(f"a tensor must hold uint8 or floats, got {image.dtype}")
    least, most = image.aminmax()
    # Written so that a NaN is refused too.
    if not (least >= -1e-3 and most <= 1 + 1e-3):
        raise ValueError(
            f"floats must lie in [0, 1], got {least:.3g} to {most:.3g}; the model divides by "
            "mean and std itself"
        )
    return image.float()
