"""Commands about a saved model itself: evaluate, export, show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fewlabels.errors import ComponentError, printable, some
from fewlabels.registry import REGISTRIES
from fewlabels.writing import new_file, refuse_existing


def evaluate_model(model: str, data: str | None, overrides: Sequence[str], out: str | None) -> None:
    """Print a model's scores, and write them to a JSON file where ``out`` says."""
    if out is not None:
        refuse_existing(out)
    from fewlabels.evaluate import evaluate_model, table

    found = evaluate_model(model, data, overrides)
    print(table(found))
    if out is not None:
        with new_file(out) as draft:
            draft.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(out)


def export_model(model: str, out: str) -> None:
    """Write a model as an ONNX file that answers as it does, and say how to use it."""
    refuse_existing(out)
    from fewlabels.models.export import export_onnx
    from fewlabels.models.saved import load_model

    loaded = load_model(model)
    with new_file(out) as draft:
        difference = export_onnx(loaded, draft)
    side = loaded.image_size
    print(
        f"{out}: images (batch, 3, {side}, {side}), float32 RGB in [0, 1], not normalised; before, "
        f"resize the shorter side to {loaded.resize_size} ({loaded.interpolation}) and cut out the "
        f"centre; onnxruntime is within {difference:.0e} of the model"
    )


def show_model(place: str) -> None:
    """Print what a model is made of, what it wants to see, and what it needs to be loaded."""
    if not Path(place).is_dir():
        _refuse_component(place)
    from fewlabels.models import folder as folders
    from fewlabels.models.classifier import Classifier
    from fewlabels.models.embedder import Embedder
    from fewlabels.models.fetch import fetch
    from fewlabels.models.fingerprint import fingerprint

    fetched = fetch(place)
    kind = Classifier if folders.kind(fetched.folder) == "classifier" else Embedder
    config, _ = folders.read(fetched.folder, kind.config, fetched.what)
    side, blocks = config.image_size, [(b.name, b.after, b.model_extra) for b in config.blocks]
    print(f"{place}: {config.kind}, format {config.format}")
    _say("backbone", f"{config.backbone} {config.backbone_options or ''}")
    _say("blocks", *[f"{name} after {after} {given or ''}" for name, after, given in blocks])
    _say("plugins", *[f"{p.kind} {p.name} of {p.distribution} {p.version}" for p in config.plugins])
    _say(
        "image size",
        f"{side} x {side}: {config.crop_pct:.1%} of the shorter side, from the centre, "
        f"{config.interpolation}",
    )
    _say("normalisation", f"mean {config.mean}, standard deviation {config.std}")
    model = kind.from_folder(*fetched)  # with a plugin missing, what stands above is told first
    if isinstance(model, Classifier):
        _say("classes", f"{len(model.classes)}: {some(model.classes, 8)}")
    else:
        _say("embedding size", model.embedding_size)
    _say("parameters", f"{sum(p.numel() for p in model.parameters()):,}")
    _say("fingerprint", fingerprint(model))


def _say(what: str, *facts: object) -> None:
    """One line; names may come from the Hub, and must not move the cursor."""
    line = f"  {what:16}{'; '.join(str(fact).strip() for fact in facts) or 'none'}"
    print(printable(line))


def _refuse_component(word: str) -> None:
    """Tell who means a component how to show one.

    Raises:
        ComponentError: ``word`` is a kind of component, or the name of one.
    """
    for registry in REGISTRIES.values():
        if word in (registry.kind, registry.plural):
            raise ComponentError(
                f"show {word}: which one? Its name comes behind, as in fewlabels show "
                f"{registry.kind} {next(iter(registry.names()), 'NAME')} "
                f"(fewlabels list {registry.plural})"
            )
        if word in registry.names():
            raise ComponentError(
                f"{word} is no model but a {registry.kind}; fewlabels show {registry.kind} {word}"
            )
