"""Subject, the component under test, and Checks, the checks of one kind by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from fewlabels.contracts import missing_members
from fewlabels.recipe.component_schema import build_options_model, derive_component_schema
from fewlabels.registry import Registry
from fewlabels.registry.build import list_positional
from fewlabels.registry.signature import list_options


@dataclass(frozen=True)
class Subject:
    """The component under test, with the options and other inputs given by the test."""

    registry: Registry
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    after: Subject | None = None

    @property
    def component(self) -> Callable[..., Any]:
        """The class or function that is registered under the name."""
        return self.registry.get(self.name)

    def make_component(self, **program: Any) -> Any:
        """Build the component; ``program`` has the values of its positional parameters."""
        wanted = list_positional(self.component)
        assert set(wanted) <= set(program), (
            f"{self.registry.kind} {self.name!r} has positional parameters that the program does "
            f"not give: {', '.join(set(wanted) - set(program))}; write * before what a recipe sets"
        )
        made = self.component(*(program[name] for name in wanted), **self.options)
        missing = missing_members(self.registry.kind, made)
        assert not missing, f"{self.registry.kind} {self.name!r}: {missing}"
        return made


class Checks(dict[str, Callable[[Subject], None]]):
    """The checks of a kind, by name; the decorator ``@CHECKS.add`` adds a function."""

    def __init__(self) -> None:
        super().__init__()
        self.expected: dict[str, list[Subject]] = {}  # by check: all that this session tests
        self.add(a_recipe_can_set_its_options_and_is_told_of_a_wrong_one)
        self.add(it_has_what_the_program_reads)

    def add(self, check: Callable[[Subject], None]) -> Callable[[Subject], None]:
        """Add a check under its own name."""
        self[check.__name__] = check
        return check


def a_recipe_can_set_its_options_and_is_told_of_a_wrong_one(subject: Subject) -> None:
    """Options are keyword-only and annotated, their defaults fit, and the docstring says a word."""
    what = f"{subject.registry.kind} {subject.name!r}"
    schema = derive_component_schema(subject.component)
    assert schema["description"], f"{what} has no docstring; `fewlabels show` prints its first part"
    model = build_options_model(schema)
    defaults = {name: p.default for name, p in list_options(subject.component).items()}
    model.model_validate(defaults)
    model.model_validate({**defaults, **subject.options})
    for name in defaults:
        try:
            model.model_validate({name: object()})
        except ValidationError:
            continue
        raise AssertionError(f"{what}: option {name!r} takes anything; annotate it more narrowly")


def it_has_what_the_program_reads(subject: Subject) -> None:
    """Its attributes and methods are there before a run asks for them."""
    sizes = {"embedding_size": 8, "classes": 4, "channels": 16, "height": 6, "width": 6}
    if subject.registry.kind != "backbone":  # a model of timm, of which nothing more is asked
        subject.make_component(**sizes, kind="BCHW", prefix=0)
