"""The options of a choice: their types, with limits, and the checks of their values."""

import difflib
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

__all__ = [
    "REQUIRED",
    "Count",
    "CountFromZero",
    "Length",
    "Option",
    "Positive",
    "Size",
    "Sizes",
    "Within",
    "check_choice",
    "check_value",
    "in_words",
    "metavar",
    "plain_type",
]

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


def check_choice(what: str, value: str, choices: Collection[str]) -> None:
    """Refuse an unknown name; the sentence has the nearest one."""
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown {what} '{value}': choose one of {', '.join(choices)}{hint}")


def check_value(name: str, value: Any, kind: Any) -> None:
    """Refuse the value of an option that is outside of the limits in its type."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):  # with None
        (kind,) = (each for each in typing.get_args(kind) if each is not types.NoneType)
    plain, *limits = typing.get_args(kind) if typing.get_origin(kind) is Annotated else (kind,)
    if typing.get_origin(plain) is Literal:
        check_choice(name, value, typing.get_args(plain))
    if plain is bool and value not in (True, False):  # any text would be true, "no" included
        raise ValueError(f"{name} is {value!r}: give True or False")
    for limit in limits:
        if isinstance(limit, Within):
            _check_whole(name, value, limit)
        elif isinstance(limit, Length):
            _check_sizes(name, value, limit)
        elif limit == "positive" and not sys.float_info.min <= value < float("inf"):  # less becomes 0 in a training
            raise ValueError(f"{name} is {value}: a positive number is needed")


def _check_whole(name: str, value: int, limit: Within) -> None:
    if not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} is {value}: a whole number is needed")
    if value < limit.least:
        need = "it cannot be negative" if limit.least == 0 else f"at least {limit.least} is needed"
        raise ValueError(f"{name} is {value}: {need}")
    if value > limit.most:
        raise ValueError(f"{name} is {value}: at most {limit.most} is possible")


def _check_sizes(name: str, sizes: Sequence[int], limit: Length) -> None:
    if not limit.least <= len(sizes) <= limit.most:
        number = f"{limit.least} to {limit.most} layers" if limit.most < 10**3 else f"at least {limit.least} layer"
        raise ValueError(f"{name} is {in_words(tuple(sizes))}: give {number}")
    for size in sizes:
        if not isinstance(size, numbers.Integral):
            raise ValueError(f"{name} is {in_words(tuple(sizes))}: give whole numbers")
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


def metavar(kind: Any) -> str | None:
    """How the values of an option are shown in the help; None for a flag."""
    plain = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    if typing.get_origin(plain) is Literal:
        return f"{{{','.join(typing.get_args(plain))}}}"
    return {int: "INT", float: "FLOAT", str: "STR", bool: None}.get(plain, "INT ...")


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
