"""Exports a model to one ONNX file, which other programs run without torch."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fewlabels.errors import FewLabelsError, ModelError
from fewlabels.files import new_file
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder
from fewlabels.models.fingerprint import fingerprint_model

OLDEST = "2.9"
"""Oldest release of torch whose exporter can export SAN; that of 2.6 crashes."""
TOLERANCE = 1e-4
BATCHES = (1, 2, 7)
LARGEST = 2**31
"""Size limit in bytes of protobuf, the format of an ONNX file."""


class InferenceModel(nn.Module):
    """Wraps a model to give only what ``encode`` or ``predict`` gives."""

    def __init__(self, model: Embedder | Classifier) -> None:
        super().__init__()
        self.model = model
        self.name = "probabilities" if isinstance(model, Classifier) else "embeddings"

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (B, C), or L2-normalised embeddings (B, D), of images (B, 3, S, S)."""
        output = self.model(images)
        logits: Tensor | None = output.logits
        return normalize(output.embedding) if logits is None else logits.softmax(1)


def export_onnx(model: Embedder | Classifier, file: Path) -> float:
    """Write a model to an ONNX file with a dynamic batch, and compare it with onnxruntime.

    The input ``images`` is float32 (batch, 3, S, S), RGB in [0, 1]: the file normalises by mean and
    standard deviation, but does not resize. The output is ``embeddings``, L2-normalised, or
    ``probabilities``. The file's metadata hold what else a program must know.

    Args:
        model: in evaluation mode, on the CPU.
        file: is written whole or not at all.

    Returns:
        The largest absolute difference on random images, in batches of several sizes.

    Raises:
        FewLabelsError: the extra ``onnx`` is not installed, torch is too old for it, or the file
            cannot be written.
        ModelError: a model that cannot be exported, or whose file gives other outputs.
    """
    _check_exporter()
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    if size >= LARGEST:
        raise ModelError(
            f"one ONNX file holds less than 2 GiB, and the weights have {size:,} bytes"
        )
    answer = InferenceModel(model).eval()
    program = _export_program(answer, model)
    program.model.metadata_props.update(describe_model(model))
    with new_file(file) as draft:
        program.save(draft, external_data=False)
        difference = _measure_difference(answer, draft, model.image_size)
        if not difference <= TOLERANCE:  # written so that a NaN is refused too
            raise ModelError(
                f"in onnxruntime the export is {difference:.1e} away from the model, more than "
                f"{TOLERANCE:.0e}; it is not written"
            )
    return difference


def _check_exporter() -> None:
    try:
        import onnx  # noqa: F401 - torch needs it
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise FewLabelsError(
            f"an export needs onnx, onnxscript and onnxruntime ({error}); "
            "pip install 'fewlabels[onnx]'"
        ) from error
    if torch.__version__ < OLDEST:
        raise FewLabelsError(
            f"an export needs torch {OLDEST} or newer, and this is {torch.__version__}; "
            "pip install 'fewlabels[onnx]'"
        )


def _export_program(answer: InferenceModel, model: Embedder | Classifier) -> Any:
    """Export a model with torch's exporter."""
    try:
        return torch.onnx.export(
            answer,
            (torch.zeros(2, 3, model.image_size, model.image_size),),
            input_names=["images"],
            output_names=[answer.name],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    except Exception as error:  # a backbone can be beyond the exporter in any way
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ModelError(f"backbone {model.name!r} cannot be exported: {reason}") from error


def _measure_difference(answer: InferenceModel, file: Path, side: int) -> float:
    """The largest absolute difference between a model and its file in onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    rng, differences = torch.Generator().manual_seed(0), []
    for batch in BATCHES:
        images = torch.rand(batch, 3, side, side, generator=rng)
        with torch.no_grad():
            expected = answer(images).numpy()
        if not np.isfinite(expected).all():
            raise ModelError(
                "the model makes numbers of images that are not finite; export one whose training "
                "did not diverge"
            )
        (found,) = session.run(None, {"images": images.numpy()})
        differences.append(np.abs(found - expected).max())
    return float(np.max(differences))  # NaN where one is; max() may lose it


def describe_model(model: Embedder | Classifier) -> dict[str, str]:
    """What a program must know to use the file, as text."""
    found = {
        "fewlabels": version("fewlabels"),
        "kind": model.config.model_fields["kind"].default,
        "backbone": model.name,
        "fingerprint": fingerprint_model(model),
        "pixels": "RGB in [0, 1]; mean and standard deviation are inside",
        "resize": str(model.resize_size),
        "interpolation": model.interpolation,
        "centre_crop": str(model.image_size),
    }
    if isinstance(model, Classifier):
        curve = model.precision_curve
        noted = {} if curve is None else {"precision_curve": curve.model_dump_json()}
        return {**found, "classes": json.dumps(model.classes), **noted}
    return {**found, "embedding_size": str(model.embedding_size)}
