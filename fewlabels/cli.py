"""The command line: run, study, push, check, list, show, assembly, schema."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from fewlabels.errors import ComponentError, FewLabelsError, ModelError, RecipeError, nearest
from fewlabels.registry import REGISTRIES, Registry


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``fewlabels``; 0, or 2 on a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="fewlabels", description=(__doc__ or "").strip())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="run a recipe: RECIPE [key=value ...], or --resume FOLDER")
    compare = commands.add_parser("study", help="run recipes over seeds, and compare them")
    compare.add_argument("recipes", nargs="+", help="YAML files; key=value overrides may follow")
    compare.add_argument("--seeds", default="0-2", help="as in 0-9 or 100-104,7")
    compare.add_argument("--runs", default="runs/studies", help="where the run folders stand")
    compare.add_argument("--out", type=Path, help="write OUT.md and OUT.csv")
    compare.add_argument(
        "--validation", action="store_true", help="the error on data.validation, not on the test"
    )
    share = commands.add_parser("push", help="send a run's model and its card to the Hub")
    share.add_argument("run", help="a run folder that has come to its end")
    share.add_argument("--repo", required=True, help="org/name; made where it is not there")
    share.add_argument(
        "--seeds", nargs="+", default=[], metavar="RUN", help="more seeds, for the card's spread"
    )
    share.add_argument("--private", action="store_true", help="a private repository")
    share.add_argument("--dry-run", action="store_true", help="say what would be sent")
    share.add_argument("--license", help="of the weights, as in apache-2.0")
    share.add_argument("--data-license", help="of the images, in words")
    check = commands.add_parser("check", help="check recipes without running them")
    check.add_argument("recipes", nargs="+", help="YAML files; key=value overrides may follow")
    listing = commands.add_parser("list", help="names that a recipe may use, and who offers them")
    listing.add_argument("kind", nargs="?", help="as in losses; all kinds if left out")
    show = commands.add_parser("show", help="what a component is and which options it has")
    show.add_argument("kind", help="as in loss")
    show.add_argument("name", help="as in multi_similarity")
    assembly = commands.add_parser("assembly", help="picture where SAN moves an image's features")
    assembly.add_argument("model", help="a model folder, as in runs/NAME/model")
    assembly.add_argument("image", help="a picture")
    assembly.add_argument(
        "--at", nargs="+", metavar="ROW,COLUMN", help="destinations; the four that move most"
    )
    assembly.add_argument("-o", "--out", default="assembly.png", help="assembly.png if left out")
    schema = commands.add_parser("schema", help="print the JSON schema of recipes")
    schema.add_argument("--write", action="store_true", help="renew the committed schema.json")
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["run"]:  # its own parser lets options and overrides stand in any order
        from fewlabels import run

        return run.main(words[1:])
    given, more = parser.parse_known_args(words)
    if any(word.startswith("-") for word in more) or (more and not hasattr(given, "recipes")):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more:  # recipes and overrides that stand behind an option
        given.recipes += more
    try:
        if given.command == "check":
            return check_recipes(given.recipes)
        if given.command == "study":
            run_study(given.recipes, given.seeds, given.runs, given.out, given.validation)
        elif given.command == "push":
            from fewlabels.hub.push import push

            options = ("seeds", "private", "dry_run", "license", "data_license")
            push(given.run, given.repo, **{name: getattr(given, name) for name in options})
        elif given.command == "list":
            list_components(given.kind)
        elif given.command == "show":
            show_component(given.kind, given.name)
        elif given.command == "assembly":
            draw_assembly(given.model, given.image, given.at, given.out)
        else:
            from fewlabels.json_schema import schema_text

            if given.write:
                Path(__file__).with_name("schema.json").write_text(schema_text(), "utf-8")
            else:
                print(schema_text(), end="")
    except FewLabelsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def check_recipes(arguments: Sequence[str]) -> int:
    """Check each recipe; every mistake of every one is printed."""
    from fewlabels.recipe import load_recipe

    overrides = [a for a in arguments if "=" in a]
    mistakes = []
    paths = [a for a in arguments if "=" not in a]
    if not paths:
        raise RecipeError(["no recipe given; name a YAML file before key=value"])
    for path in paths:
        try:
            recipe = load_recipe(path, overrides)
            if recipe.blocks:  # their places are known to the backbone alone
                from fewlabels.building import check_blocks

                check_blocks(recipe)
        except RecipeError as error:
            mistakes += error.mistakes
        except ModelError as error:
            mistakes.append(f"{path}: {error}")
        else:
            print(f"{path}: good (recipe {recipe.hash})")
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    return 2 if mistakes else 0


def run_study(
    words: Sequence[str], seeds: str, runs: str, out: Path | None, validation: bool
) -> None:
    """Run a study and print its table; write it where ``out`` says."""
    from fewlabels.study import markdown, seeds_of, study, write

    paths, overrides = [w for w in words if "=" not in w], [w for w in words if "=" in w]
    if not paths:
        raise RecipeError(["no recipe given; name YAML files before key=value"])
    if out is not None and out.suffix in (".md", ".csv"):
        out = out.with_suffix("")
    if out is not None and not out.name:
        raise FewLabelsError(f"--out {out}: name a file, as in tables/mine; two are written")
    rows = study(paths, seeds_of(seeds), overrides, runs, validation=validation)
    if out is not None:
        write(rows, out)
    print(markdown(rows), end="")


def draw_assembly(model: str, image: str, at: Sequence[str] | None, out: str) -> None:
    """Write a picture of the assembly weights of positions given as "ROW,COLUMN"."""
    from fewlabels.models.saved import load_model
    from fewlabels.report.assembly import draw_assembly

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


def find_registry(kind: str) -> Registry:
    """The registry that a word means, in singular or plural."""
    for registry in REGISTRIES.values():
        if kind in (registry.kind, registry.plural):
            return registry
    known = sorted(REGISTRIES)
    raise ComponentError(
        f"no kind of component is called {kind!r}{nearest(kind, known)} (all: {', '.join(known)})"
    )


def list_components(kind: str | None) -> None:
    """Print names with the distributions that offer them; nothing is imported."""
    registries = [find_registry(kind)] if kind else list(REGISTRIES.values())
    for registry in registries:
        print(f"{registry.plural}:")
        offers = registry.offers()
        for name, offered in offers.items():
            print(
                f"  {name:28}" + ", ".join(f"{o.distribution} {o.version}".strip() for o in offered)
            )
        if registry.plural == "backbones":
            from fewlabels.timm_names import timm_names

            if kind:
                print("\n".join(f"  {name:28}timm" for name in sorted(timm_names())))
            else:
                print(f"  and {len(timm_names())} of timm's  (fewlabels list backbones)")
        elif registry.plural == "losses":
            print("  pml:NAME                    any loss of pytorch-metric-learning")
        elif not offers:
            print("  none yet")


def show_component(kind: str, name: str) -> None:
    """Print a component's purpose and options."""
    from fewlabels.schema import describe, schema_of

    registry = find_registry(kind)
    schema = schema_of(registry.plural, name)
    print(f"{registry.kind} {name}: {schema['description']}")
    if schema.get("x-inputs"):
        print(f"needs: {', '.join(schema['x-inputs'])}")
    for option, value in schema["properties"].items():
        print(f"  {option}: {describe(value)}  (default {value.get('default')!r})")


if __name__ == "__main__":
    sys.exit(main())
