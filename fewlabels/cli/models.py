"""Commands about a saved model: evaluate, export, push; and the output of ``show`` for a model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewlabels.cli.options import add_import_option, import_beside_model
from fewlabels.errors import ComponentError, first_few, make_printable
from fewlabels.files import new_file, refuse_existing
from fewlabels.registry import REGISTRIES
from fewlabels.registry.user_code import import_modules


def add_commands(commands: Any) -> None:
    """Declare ``evaluate``, ``export`` and ``push``."""
    evaluate = commands.add_parser("evaluate", help="score a saved model on labelled images")
    evaluate.add_argument("model", help="a model's folder, as in runs/NAME/model, or org/name")
    evaluate.add_argument(
        "overrides", nargs="*", help="key=value of a recipe, as in data.split=all"
    )
    evaluate.add_argument(
        "--data", help="a source's name, a folder of images, or a recipe; the run's own if left out"
    )
    evaluate.add_argument("-o", "--out", help="a JSON file to write")
    add_import_option(evaluate)
    evaluate.set_defaults(run_command=run_evaluate)
    export = commands.add_parser("export", help="write a saved model as an ONNX file")
    export.add_argument("model", help="a model's folder, as in runs/NAME/model, or org/name")
    export.add_argument("--onnx", required=True, metavar="OUT", help="as in model.onnx")
    add_import_option(export)
    export.set_defaults(run_command=run_export)
    push = commands.add_parser("push", help="send a run's model and its card to the Hub")
    push.add_argument("run", help="a run folder that has come to its end")
    push.add_argument("--repo", required=True, help="org/name; made where it is not there")
    push.add_argument(
        "--seeds", nargs="+", default=[], metavar="RUN", help="more seeds, for the card's spread"
    )
    push.add_argument("--private", action="store_true", help="a private repository")
    push.add_argument("--dry-run", action="store_true", help="say what would be sent")
    push.add_argument("--license", help="of the weights, as in apache-2.0")
    push.add_argument("--data-license", help="of the images, in words")
    push.add_argument(
        "--no-pictures", dest="pictures", action="store_false", help="leave out the run's pictures"
    )
    push.add_argument("--card", metavar="FILE", help="write the card there too, to be read")
    add_import_option(push)
    push.set_defaults(run_command=run_push)


def run_evaluate(given: argparse.Namespace) -> None:
    """``fewlabels evaluate``."""
    import_beside_model(given)
    evaluate_model(given.model, given.data, given.overrides, given.out)


def run_export(given: argparse.Namespace) -> None:
    """``fewlabels export``."""
    import_beside_model(given)
    export_model(given.model, given.onnx)


def run_push(given: argparse.Namespace) -> None:
    """``fewlabels push``."""
    import_modules(given.imports, Path(given.run))
    from fewlabels.runs.push import push_run

    options = ("seeds", "private", "dry_run", "license", "data_license", "pictures", "card")
    push_run(given.run, given.repo, **{name: getattr(given, name) for name in options})


def evaluate_model(model: str, data: str | None, overrides: Sequence[str], out: str | None) -> None:
    """Print a model's scores; write them to the JSON file ``out`` too, if given."""
    if out is not None:
        refuse_existing(out)
    from fewlabels.runs.evaluate import evaluate_model, format_scores

    found = evaluate_model(model, data, overrides)
    print(format_scores(found))
    if out is not None:
        with new_file(out) as draft:
            draft.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(out)


def export_model(model: str, out: str) -> None:
    """Export a model to an ONNX file, and print how to use it and how far its outputs differ."""
    refuse_existing(out)
    from fewlabels.models.load import load_model
    from fewlabels.models.onnx_export import export_onnx

    loaded = load_model(model)
    difference = export_onnx(loaded, Path(out))
    side = loaded.image_size
    print(
        f"{out}: images (batch, 3, {side}, {side}), float32 RGB in [0, 1], not normalised; before, "
        f"resize the shorter side to {loaded.resize_size} ({loaded.interpolation}) and cut out the "
        f"centre; onnxruntime is within {difference:.0e} of the model"
    )


def show_model(place: str) -> None:
    """Print a model's architecture and preprocessing, and the plugins needed to load it."""
    if not Path(place).is_dir():
        _refuse_component(place)
    from fewlabels.hub.download import download_model
    from fewlabels.models import saved_folder as folders
    from fewlabels.models.classifier import Classifier
    from fewlabels.models.embedder import Embedder
    from fewlabels.models.fingerprint import fingerprint_model
    from fewlabels.models.finite import list_not_finite

    fetched = download_model(place)
    kind = Classifier if folders.read_kind(fetched.folder) == "classifier" else Embedder
    config, state = folders.read_model(fetched.folder, kind.config, fetched.what)
    side, blocks = config.image_size, [(b.name, b.after, b.model_extra) for b in config.blocks]
    print(f"{place}: {config.kind}, format {config.format}")
    _print_line("backbone", f"{config.backbone} {config.backbone_options or ''}")
    _print_line("blocks", *[f"{name} after {after} {given or ''}" for name, after, given in blocks])
    _print_line(
        "plugins", *[f"{p.kind} {p.name} of {p.distribution} {p.version}" for p in config.plugins]
    )
    _print_line(
        "image size",
        f"{side} x {side}: {config.crop_pct:.1%} of the shorter side, from the centre, "
        f"{config.interpolation}",
    )
    _print_line("normalisation", f"mean {config.mean}, standard deviation {config.std}")
    model = kind.from_saved(config, state, fetched.what)  # a missing plugin is told only now
    if isinstance(model, Classifier):
        _print_line("classes", f"{len(model.classes)}: {first_few(model.classes, 8)}")
        for told in model.precision_curve.describe_wishes() if model.precision_curve else ():
            _print_line("precision", told)
    else:
        _print_line("embedding size", model.embedding_size)
    _print_line("parameters", f"{sum(p.numel() for p in model.parameters()):,}")
    if bad := list_not_finite(model):
        _print_line("not finite", f"{first_few(bad, 3)}: the training diverged")
    _print_line("fingerprint", fingerprint_model(model))


def _print_line(what: str, *facts: object) -> None:
    """Print one line; control characters are replaced, since names may come from the Hub."""
    line = f"  {what:16}{'; '.join(str(fact).strip() for fact in facts) or 'none'}"
    print(make_printable(line))


def _refuse_component(word: str) -> None:
    """Explain how to show a component, if that is what ``word`` names instead of a model.

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
