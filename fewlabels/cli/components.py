"""Commands about the components that a recipe may name: list, show, schema."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fewlabels.cli.models import show_model
from fewlabels.cli.options import add_import_option
from fewlabels.errors import ComponentError
from fewlabels.registry import REGISTRIES, find_registry
from fewlabels.registry.user_code import import_modules


def add_commands(commands: Any) -> None:
    """Declare ``list``, ``show`` and ``schema``."""
    listing = commands.add_parser("list", help="names that a recipe may use, and who offers them")
    listing.add_argument("kind", nargs="?", help="as in losses; all kinds if left out")
    add_import_option(listing)
    listing.set_defaults(run_command=run_list)
    show = commands.add_parser("show", help="what a component or a saved model is")
    show.add_argument("what", help="a kind of component, as loss; or a model's folder or Hub name")
    show.add_argument("name", nargs="?", help="the component's, as multi_similarity")
    add_import_option(show)
    show.set_defaults(run_command=run_show)
    schema = commands.add_parser("schema", help="print the JSON schema of recipes")
    schema.add_argument("--write", action="store_true", help="renew the committed schema.json")
    schema.set_defaults(run_command=run_schema)


def run_list(given: argparse.Namespace) -> None:
    """``fewlabels list``."""
    import_modules(given.imports, Path())
    list_components(given.kind)


def run_show(given: argparse.Namespace) -> None:
    """``fewlabels show``: a component if two words are given, a saved model if one."""
    import_modules(given.imports, Path(given.what).parent)
    if given.name is None:
        show_model(given.what)
    else:
        show_component(given.what, given.name)


def run_schema(given: argparse.Namespace) -> None:
    """``fewlabels schema``."""
    show_schema(given.write)


def list_components(kind: str | None) -> None:
    """Print the names of components with the distributions that offer them.

    Built-in components are not imported. Plugins are, so that broken ones can be marked.
    """
    registries = [find_registry(kind)] if kind else list(REGISTRIES.values())
    for registry in registries:
        print(f"{registry.plural}:")
        offers = registry.list_offers()
        for name, offered in offers.items():
            print(f"  {name:28}" + ", ".join(map(str, offered)))
            if len(offered) > 1:
                print(f"    ! offered more than once; {registry.describe_choice(offered)}")
            for offer in offered:
                if offer.distribution != "fewlabels":
                    try:
                        registry.load_offer(offer)
                    except ComponentError as error:
                        print(f"    ! {error}")
        if registry.plural == "backbones":
            from fewlabels.recipe.timm_names import list_timm_models

            if kind:
                print("\n".join(f"  {name:28}timm" for name in sorted(list_timm_models())))
            else:
                print(f"  and {len(list_timm_models())} of timm's  (fewlabels list backbones)")
        elif registry.plural == "losses":
            print("  pml:NAME                    any loss of pytorch-metric-learning")
        elif not offers:
            print("  none yet")


def show_component(kind: str, name: str) -> None:
    """Print a component's description, source, recipe line, required inputs and options."""
    from fewlabels.recipe.component_schema import describe_schema, get_component_schema

    registry = find_registry(kind)
    schema = get_component_schema(registry.plural, name)
    print(f"{registry.kind} {name}: {schema['description']}")
    if schema.get("x-inputs"):
        print(f"needs: {', '.join(schema['x-inputs'])}")
    for option, value in schema["properties"].items():
        print(f"  {option}: {describe_schema(value)}  (default {value.get('default')!r})")
    for word in ("source", "recipe"):
        if f"x-{word}" in schema:
            print(f"{word}: {schema[f'x-{word}']}")


def show_schema(write: bool) -> None:
    """Print the JSON schema of recipes; with ``write``, write it to the package's schema.json."""
    from fewlabels.recipe.component_schema import SCHEMA_FILE
    from fewlabels.recipe.recipe_schema import format_recipe_schema

    if write:
        SCHEMA_FILE.write_text(format_recipe_schema(), "utf-8")
    else:
        print(format_recipe_schema(), end="")
