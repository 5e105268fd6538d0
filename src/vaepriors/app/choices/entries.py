"""What the function of an entry says of itself: its options, and the words about them."""

import inspect
import sys
import typing
from collections.abc import Callable
from typing import Any

from vaepriors.app.choices.options import Option

__all__ = ["options_of", "read_docstring"]


def options_of(build: Callable[..., Any], helps: dict[str, str]) -> dict[str, Option]:
    """The options that a function has: its keyword-only parameters."""
    parameters = inspect.signature(build).parameters.values()
    own = [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    if sys.flags.optimize == 2:  # python -OO has no docstrings
        helps = {each.name: "" for each in own}
    return {
        each.name: Option(each.name, _without_none(each.annotation), each.default, helps[each.name]) for each in own
    }


def _without_none(kind: Any) -> Any:
    """`Size` of `Size | None`."""
    members = [each for each in typing.get_args(kind) if each is not type(None)]
    return members[0] if type(None) in typing.get_args(kind) else kind


def read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The first paragraph of a docstring, and the help of each argument."""
    text = inspect.getdoc(function) or ""
    first, _, rest = text.partition("\n\n")
    _, _, arguments = rest.partition("Args:\n")
    helps: dict[str, str] = {}
    for line in (line for line in arguments.splitlines() if line.startswith("    ")):
        name, colon, words = line.strip().partition(": ")
        if colon and not line.startswith(" " * 8):
            helps[name] = words
        else:  # the argument before, continued
            helps[next(reversed(helps))] += f" {line.strip()}"
    return " ".join(first.split()), helps
