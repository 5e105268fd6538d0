"""Tables of choices."""

import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any

import tyro
from torch import nn

from vaepriors.app.choices.entries import options_of, read_docstring
from vaepriors.app.choices.markdown import between_marks, markdown_table
from vaepriors.app.choices.options import Option, check_choice, in_words, metavar, plain_type
from vaepriors.data import Dataset

__all__ = ["Choice", "Setting", "Table", "fields_of", "render"]


@dataclass(frozen=True)
class Choice:
    """An entry of a table: a name, what builds it, the line about it, its options, and facts that others ask for."""

    name: str
    build: Callable[..., Any]
    about: str
    options: dict[str, Option]
    facts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, setting: "Setting") -> Any:
        """What the choice builds, with its options as the experiment has them."""
        return self.build(setting, **{name: getattr(setting.experiment, name) for name in self.options})


@dataclass(frozen=True)
class Setting:
    """What an entry builds from.

    Attributes:
        experiment: The whole `Experiment`, for options that belong to no choice.
        dataset: Its data.
        encoder: For priors, the encoder of the top level.
        model: For priors, the entry of the model.
    """

    experiment: Any
    dataset: Dataset
    encoder: nn.Module | None = None
    model: Choice | None = None


class Table(dict[str, Choice]):
    """The choices of one kind, by name.

    Args:
        kind: The field of `Experiment` that has the name: "prior", say.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def entry(self, name: str, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A decorator that adds a function as an entry.

        An option that an entry before it has, too, needs no help of its own.

        Args:
            name: What the user types.
            facts: What others ask the entry for.
        """

        def add(build: Callable[..., Any]) -> Callable[..., Any]:
            about, helps = read_docstring(build)
            helps = {name: option.help for name, option in self.options().items()} | helps
            self[name] = Choice(name, build, about, options_of(build, helps), facts)
            return build

        return add

    def choose(self, name: str) -> Choice:
        """The entry of a name."""
        check_choice(self.kind, name, self)
        return self[name]

    def options(self) -> dict[str, Option]:
        """All options of all entries; one that several have is that of the first."""
        options: dict[str, Option] = {}
        for choice in self.values():
            options |= {name: option for name, option in choice.options.items() if name not in options}
        return options

    def having(self, option: str) -> list[str]:
        """The names of the entries that have an option."""
        return [name for name, choice in self.items() if option in choice.options]

    def base_of(self, choice: Choice, values: Mapping[str, Any]) -> Choice | None:
        """The entry that an entry builds on, if it has the option `base` (see `choices`)."""
        if "base" not in choice.options or choice.name not in self:
            return None
        return self[values.get("base") or choice.options["base"].default]

    def options_of(self, choice: Choice, values: Mapping[str, Any]) -> dict[str, Option]:
        """The options that an entry has beside these values: its own, and those of its base."""
        base = self.base_of(choice, values)
        options = choice.options if base is None else self.options_of(base, values) | choice.options
        excluded = {
            name
            for name, (other, needed) in choice.facts.get("only", {}).items()
            if (values.get(other) or choice.options[other].default) != needed
        }
        return {name: option for name, option in options.items() if name not in excluded}

    def facts_of(self, choice: Choice, values: Mapping[str, Any]) -> dict[str, Any]:
        """What others ask an entry for: its own facts, and those of its base."""
        base = self.base_of(choice, values)
        return choice.facts if base is None else self.facts_of(base, values) | choice.facts

    def resolve(self, choice: Choice, values: dict[str, Any]) -> dict[str, Any]:
        """The options of a choice, the given ones and the defaults of the others.

        Args:
            choice: The entry.
            values: All options of the table; None, or False for a flag, where not given.

        Raises:
            ValueError: If one is given that only other entries have, if a required one is not, or if one is out of its
                limits.
        """
        options = self.options_of(choice, values)
        for name, value in values.items():
            if name not in options and value not in (None, False):
                raise ValueError(
                    f"{name} is {in_words(value)}, but the {self.kind} {choice.name} has no such option"
                    f"{self._remedy(choice, name, values)}"
                )
        return {name: option.resolve(choice.name, values[name]) for name, option in options.items()}

    def _remedy(self, choice: Choice, name: str, values: Mapping[str, Any]) -> str:
        """The end of the sentence about an option that an entry does not have: beside what, and what else to choose."""
        if name in choice.options:
            other, needed = choice.facts["only"][name]
            return f" with {other} {values[other]}: leave it out, or choose {other} {needed}"
        base = self.base_of(choice, values)
        if base is None:
            others = f", or choose the {self.kind} {' or '.join(self.having(name))}" if self.having(name) else ""
            return f": leave it out{others}"
        if name in base.options:
            return self._remedy(base, name, values)
        bases = [each for each in typing.get_args(choice.options["base"].kind) if each in self.having(name)]
        if not bases:
            return f": leave it out, or choose the {self.kind} {' or '.join(self.having(name))}"
        return f" with base {base.name}: leave it out, or choose the base {' or '.join(bases)}"

    def describe(self) -> str:
        """The names with their lines, for the help of the option that chooses."""
        return "\n".join(f"{name}: {choice.about}" for name, choice in self.items())

    def argument(self) -> Any:
        """How the option that chooses an entry is shown in the help."""
        return tyro.conf.arg(help=self.describe(), metavar=f"{{{','.join(self)}}}")

    def defaults(self, option: str) -> str:
        """Which entries have an option, with their defaults, for its help.

        >>> from vaepriors.app.objectives import OBJECTIVES
        >>> OBJECTIVES.defaults("nu")
        'for rewo, rewo-gamma, geco: 1.0'
        """
        names: dict[str, list[str]] = {}
        for name in self.having(option):
            names.setdefault(in_words(self[name].options[option].default), []).append(name)
        return "; ".join(f"for {', '.join(each)}: {default}" for default, each in names.items())

    def markdown(self) -> str:
        """The entries as a table of Markdown."""
        rows = []
        for name, choice in self.items():
            options = (f"`--{o.name.replace('_', '-')}` ({in_words(o.default)})" for o in choice.options.values())
            rows.append([f"`{name}`", choice.about.replace("|", r"\|"), ", ".join(options)])
        return markdown_table([f"`--{self.kind}`", "what", "options"], rows)


def fields_of(table: Table) -> type:
    """A frozen dataclass with a field for each option of a table: None, or False for a flag, where not given."""
    fields = []
    for name, option in table.options().items():
        kind, flag = plain_type(option.kind), option.kind is bool
        shown = tyro.conf.arg(
            help=option.help, help_behavior_hint=f"({table.defaults(name)})", metavar=metavar(option.kind)
        )
        hint: Any = Annotated[kind if flag else kind | None, shown]
        fields.append((name, hint, False if flag else None))
    return make_dataclass("Options", fields, frozen=True)


def render(text: str, tables: Iterable[Table]) -> str:
    """A page of Markdown with the tables of choices between their marks."""
    for table in tables:
        text = between_marks(text, f"choices {table.kind}", table.markdown())
    return text
