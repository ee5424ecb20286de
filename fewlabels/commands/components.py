"""Commands about what a recipe may name: list, show, schema."""

from __future__ import annotations

from pathlib import Path

from fewlabels.errors import ComponentError
from fewlabels.registry import REGISTRIES, find_registry


def list_components(kind: str | None) -> None:
    """Print names with the distributions that offer them.

    Of what is ours nothing is imported. What others offer is loaded, to mark what does not work.
    """
    registries = [find_registry(kind)] if kind else list(REGISTRIES.values())
    for registry in registries:
        print(f"{registry.plural}:")
        offers = registry.offers()
        for name, offered in offers.items():
            print(f"  {name:28}" + ", ".join(map(str, offered)))
            if len(offered) > 1:
                print(f"    ! offered more than once; {registry.choice(offered)}")
            for offer in offered:
                if offer.distribution != "fewlabels":
                    try:
                        registry.load(offer)
                    except ComponentError as error:
                        print(f"    ! {error}")
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


def show_schema(write: bool) -> None:
    """Print the JSON schema of recipes, or renew the file that the package holds."""
    from fewlabels.json_schema import schema_text

    if write:
        Path(__file__).parents[1].joinpath("schema.json").write_text(schema_text(), "utf-8")
    else:
        print(schema_text(), end="")
