"""A hash that identifies a model, so that embeddings of different models are never compared."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from fewlabels.models.image_model import ImageModel


def fingerprint_model(model: ImageModel, start: str = "") -> str:
    """SHA-256 of a model's weights and of the settings that change its output, as hex digits.

    The name of the backbone is left out, since a saved model may have a shorter one. This takes
    about a second for 2 GB of weights.

    Args:
        start: how the names of the weights start that count.
    """
    settings: dict[str, Any] = {
        "pooling": model.pooling,
        "options": model.backbone_options,
        "blocks": model.blocks,
        "image_size": model.image_size,
        "crop_pct": model.crop_pct,
        "interpolation": model.interpolation,
        **model.statistics,
    }
    if model.head_kind and not start:
        settings["head"] = [model.head_kind, model.hidden]
    if model.mirror:
        settings["mirror"] = True
    # A plugin's option may be any object; its text will do here.
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith(start):
            continue
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()
