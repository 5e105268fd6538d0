"""JSON files, read in one place and checked against a form: a class whose annotations name the fields.

>>> class Point(typing.TypedDict):
...     x: float
...     name: str | None
>>> check({"x": 1, "name": None}, Point)
>>> check({"x": "1", "name": None}, Point)
Traceback (most recent call last):
...
ValueError: x is '1', not of type float
>>> check({"x": 1}, Point)
Traceback (most recent call last):
...
ValueError: name is missing
"""

import hashlib
import io
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal

import numpy as np

__all__ = ["check", "read_json", "read_npy"]


def read_json(path: Path, form: Any, remedy: str, more: bool = False) -> Any:
    """Read a file of JSON.

    Args:
        path: The file.
        form: The type of its content, as for `check`.
        remedy: What to do if it is damaged, for the end of the error's sentence.
        more: Whether it may have other fields as well.

    Raises:
        ValueError: If it is no JSON, or not of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): {remedy}") from error
    try:
        check(content, form, more=more)
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or of another version: {error}; {remedy}") from error
    return content


def read_npy(path: Path, sha256: str, shape: tuple[int, ...], remedy: str) -> np.ndarray:
    """Read an array of numbers that was written together with a file of JSON, which has its digest.

    Raises:
        ValueError: If it is missing, or another one.
    """
    content = path.read_bytes() if path.is_file() else b""
    try:
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("it is missing, or was written by another evaluation")
        array = np.load(io.BytesIO(content))
        if array.shape != shape or array.dtype.kind != "f":
            raise ValueError(f"it holds {array.dtype} of shape {array.shape}, not {shape}")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} does not belong to the JSON file beside it ({error}): {remedy}") from error
    return array


def check(value: Any, form: Any, name: str = "", more: bool = False) -> None:
    """Compare a value of JSON with a type: one of JSON's own, a union, `list`, `tuple` or `dict` of such, `TypedDict`.

    A float is finite, and may be written as an integer. A tuple of any length is a list.

    Raises:
        ValueError: If it is of another type; the message has the name of the field.
    """
    kind, inner = typing.get_origin(form), typing.get_args(form)
    if typing.is_typeddict(form):
        _check_fields(value, form, name, more)
    elif kind in (list, tuple) and isinstance(value, list):
        for each in value:
            check(each, inner[0], name, more)
    elif kind is dict and isinstance(value, dict):
        for key, each in value.items():
            check(key, inner[0], f"a key of {name or 'it'}")
            check(each, inner[1], f"{name}.{key}" if name else key, more)
    elif not _fits(value, form, name, more):
        shown = json.dumps(value) if isinstance(value, dict | list) else repr(value)
        raise ValueError(f"{name or 'its content'} is {shown[:60]}, not of type {getattr(form, '__name__', form)}")


def _check_fields(value: Any, form: Any, name: str, more: bool) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{name or 'its content'} is no JSON object")
    prefix = f"{name}." if name else ""
    for field, inner in typing.get_type_hints(form).items():
        if field in value:
            check(value[field], inner, prefix + field, more)
        elif field in form.__required_keys__:
            raise ValueError(f"{prefix}{field} is missing")
    unknown = sorted(value.keys() - typing.get_type_hints(form).keys())
    if unknown and not more:
        raise ValueError(f"the field {prefix}{unknown[0]!r} is unknown")


def _fits(value: Any, form: Any, name: str, more: bool) -> bool:
    """Whether a value is of a union, of some literals, or of a plain type."""
    kind, inner = typing.get_origin(form), typing.get_args(form)
    if kind in (types.UnionType, typing.Union):
        return any(_passes(value, each, name, more) for each in inner)
    if kind is Literal:
        return value in inner
    if form is float:
        return _is_number(value) and math.isfinite(value)
    return form is Any or (isinstance(value, kind or form) and (form is bool or not isinstance(value, bool)))


def _passes(value: Any, form: Any, name: str, more: bool) -> bool:
    try:
        check(value, form, name, more)
    except ValueError:
        return False
    return True


def _is_number(value: Any) -> bool:
    """Whether it is a float, or an integer that a float can hold."""
    return not isinstance(value, bool) and (
        isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**1000)
    )
