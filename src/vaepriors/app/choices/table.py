"""Choices by name: a table for each kind of choice, an entry for each name, and what is derived from them.

An entry is a function of a `Setting`. Its keyword-only parameters are the options of that choice, with their types,
limits and defaults; the first paragraph of its docstring is the line about it, and its `Args` are the help:

    @PRIORS.entry("mog")
    def mog(setting: Setting, *, components: Count = 500) -> nn.Module:
        '''K free normals.

        Args:
            components: Number of components.
        '''

The fields of `Experiment`, the checks of options, `--help`, README's tables and the parameters of the contract tests
follow from the entries. A default of None means that the value follows from other choices; an option without a default
must be given. The value of an option `base` is another entry of the table: with it come that entry's options. The fact
`only` says which options belong to one value of another option: `only={"bins": ("flow", "nsf")}`.
"""

import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, Literal

import tyro
from torch import nn

from vaepriors.data import Dataset

__all__ = ["Choice", "Count", "Option", "Positive", "Setting", "Size", "Sizes", "Table", "check_choice", "check_value"]

LARGEST = 2**63 - 1  # torch's integers have 64 bits
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Within:
    """Limits of a whole number."""

    least: int = 1
    most: int = LARGEST


@dataclass(frozen=True)
class Length:
    """Limits of the number of layers."""

    least: int = 1
    most: int = 10**3


Count = Annotated[int, Within()]
CountFromZero = Annotated[int, Within(0)]
Size = Annotated[int, Within(1, 10**9)]  # a layer of more units fits into no memory
Sizes = Annotated[tuple[int, ...], Length()]
Positive = Annotated[float, "positive"]


@dataclass(frozen=True)
class Option:
    """An option of a choice.

    Attributes:
        name: The name, as in `Experiment`.
        kind: Its type: `Count`, `Size`, `Sizes`, `Positive`, `bool`, or a `Literal` of strings.
        default: What it is unless given; None if that follows from other choices, `REQUIRED` if it must be given.
        help: What it is, in a sentence.
    """

    name: str
    kind: Any
    default: Any
    help: str

    def resolve(self, owner: str, value: Any) -> Any:
        """The value of the option for the entry `owner`: the default if it is None, checked."""
        if value is None and self.default is REQUIRED:
            raise ValueError(f"{owner} needs {self.name}: {self.help}")
        value = self.default if value is None else value
        if value is not None:
            check_value(self.name, value, self.kind)
        return value


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
            about, helps = _read_docstring(build)
            helps = {name: option.help for name, option in self.options().items()} | helps
            self[name] = Choice(name, build, about, options_of(build, helps), facts)
            return build

        return add

    def choose(self, name: str) -> Choice:
        """The entry of a name.

        Raises:
            ValueError: If no choice has this name.
        """
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
        """The entry that an entry builds on, if it has the option `base` (see above)."""
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


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(markdown_table(["row", "ours"], [["a", "1"]]))
    | row | ours |
    |---|---|
    | a | 1 |
    """
    first, *others = ("| " + " | ".join(each) + " |" for each in (titles, *rows))
    return "\n".join([first, "|" + "---|" * len(titles), *others])


def render(text: str, tables: Iterable[Table]) -> str:
    """A page of Markdown with the tables of choices between their marks."""
    for table in tables:
        text = between_marks(text, f"choices {table.kind}", table.markdown())
    return text


def between_marks(text: str, name: str, body: str) -> str:
    """The text with this body between its two marks of a name.

    >>> between_marks("a <!-- b: begin --> old <!-- b: end --> c", "b", "new")
    'a <!-- b: begin -->\\nnew\\n<!-- b: end --> c'
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{body}\n{end}{after}"


def in_words(default: Any) -> str:
    """A default as it is typed.

    >>> in_words((300, 300)), in_words(()), in_words(False), in_words(None)
    ('300 300', 'none', 'no', 'set automatically')
    """
    if default is REQUIRED:
        return "required"
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return " ".join(map(str, default)) or "none"
    return "set automatically" if default is None else str(default)


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


def metavar(kind: Any) -> str | None:
    """How the values of an option are shown in the help; None for a flag."""
    plain = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    if typing.get_origin(plain) is Literal:
        return f"{{{','.join(typing.get_args(plain))}}}"
    return {int: "INT", float: "FLOAT", str: "STR", bool: None}.get(plain, "INT ...")


def check_choice(what: str, value: str, choices: Collection[str]) -> None:
    """Refuse an unknown name.

    Raises:
        ValueError: If the name is unknown; the message has the nearest one.
    """
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown {what} '{value}': choose one of {', '.join(choices)}{hint}")


def check_value(name: str, value: Any, kind: Any) -> None:
    """Compare the value of an option with its limits, which stand in its type.

    Raises:
        ValueError: If it is outside of them.
    """
    if typing.get_origin(kind) in (typing.Union, types.UnionType):  # with None
        (kind,) = (each for each in typing.get_args(kind) if each is not types.NoneType)
    plain, *limits = typing.get_args(kind) if typing.get_origin(kind) is Annotated else (kind,)
    if typing.get_origin(plain) is Literal:
        check_choice(name, value, typing.get_args(plain))
    for limit in limits:
        if isinstance(limit, Within):
            _check_whole(name, value, limit)
        elif isinstance(limit, Length):
            _check_sizes(name, value, limit)
        elif limit == "positive" and not sys.float_info.min <= value < float("inf"):  # less becomes 0 in a training
            raise ValueError(f"{name} is {value}: a positive number is needed")


def _check_whole(name: str, value: int, limit: Within) -> None:
    if value < limit.least:
        need = "it cannot be negative" if limit.least == 0 else f"at least {limit.least} is needed"
        raise ValueError(f"{name} is {value}: {need}")
    if value > limit.most:
        raise ValueError(f"{name} is {value}: at most {limit.most} is possible")


def _check_sizes(name: str, sizes: Sequence[int], limit: Length) -> None:
    if not limit.least <= len(sizes) <= limit.most:
        number = f"{limit.least} to {limit.most} layers" if limit.most < 10**3 else f"at least {limit.least} layer"
        raise ValueError(f"{name} is {in_words(tuple(sizes))}: give {number}")
    if min(sizes, default=1) < 1:
        raise ValueError(f"{name} is {in_words(tuple(sizes))}: give layers of at least 1 unit")
    if max(sizes, default=1) > 10**9:
        raise ValueError(f"{name} is {in_words(tuple(sizes))}: at most {10**9} units are possible")


def plain_type(kind: Any) -> Any:
    """The type of an option without limits; a `Literal` is a string.

    >>> plain_type(Sizes), plain_type(Literal["a", "b"])
    (tuple[int, ...], <class 'str'>)
    """
    plain = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    return str if typing.get_origin(plain) is Literal else plain


def options_of(build: Callable[..., Any], helps: dict[str, str]) -> dict[str, Option]:
    """The options that a function has: its keyword-only parameters."""
    parameters = inspect.signature(build).parameters.values()
    own = [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    return {
        each.name: Option(each.name, _without_none(each.annotation), each.default, helps[each.name]) for each in own
    }


def _without_none(kind: Any) -> Any:
    """`Size` of `Size | None`."""
    members = [each for each in typing.get_args(kind) if each is not type(None)]
    return members[0] if type(None) in typing.get_args(kind) else kind


def _read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The first paragraph of a docstring, and the help of each argument."""
    text = inspect.getdoc(function) or ""
    first, _, rest = text.partition("\n\n")
    _, _, arguments = rest.partition("Args:\n")
    helps: dict[str, str] = {}
    for line in _indented(arguments.splitlines()):
        name, colon, words = line.strip().partition(": ")
        if colon and not line.startswith(" " * 8):
            helps[name] = words
        else:  # the argument before, continued
            helps[next(reversed(helps))] += f" {line.strip()}"
    return " ".join(first.split()), helps


def _indented(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line.startswith("    ")]
