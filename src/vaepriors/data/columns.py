"""Kinds of the columns of a table: guessed from the values or set by the user, and cells as numbers.

bit        0 and 1, or true and false
count      whole numbers from 0 or 1 on
positive   numbers above 0 with a skewness above 1 that is smaller for their logarithms
real       other numbers
category   texts; the codes 0, 1, ... are the sorted categories of the training rows
size       the size factor of the row, which multiplies the means of its counts; see `vaepriors.networks.mixed`
drop       left out: not guessed, except for a column without a name, which is the index of a table of pandas
split      train, valid or test for each row
label      the class that a model is given, a text or a whole number; see `vaepriors.data.conditions`
covariate  a number that a model is given
"""

import csv
import io
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vaepriors.networks.likelihoods import LARGEST_COUNT
from vaepriors.networks.mixed import KINDS, Column

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MISSING",
    "OUTSIDE",
    "ROLES",
    "are_plain",
    "are_values",
    "csv_of",
    "describe_columns",
    "encode",
    "guess_kind",
    "is_index",
    "listed",
    "numbers_of",
    "parse_columns",
    "texts_of",
    "values_of",
    "wholes_of",
]

OUTSIDE = ("drop", "split", "label", "covariate")  # not modelled
ROLES = (*KINDS, *OUTSIDE)
MISSING = -1  # the code of a missing category
MOSTLY = 0.5  # a column with more numbers than this among its texts is one of numbers
SMALLEST = 2.0**-126  # of positive numbers: less becomes 0 in a training
DISTINCT = 0.5  # a column of texts with more categories than this share of its rows has none
SHOWN = 12  # names in a line
LONGEST = 80  # characters of a name


def parse_columns(text: str) -> dict[str, str]:
    """The kinds that a user sets.

    >>> parse_columns("age=count,id=drop")
    {'age': 'count', 'id': 'drop'}
    """
    kinds: dict[str, str] = {}
    for part in text.split(","):
        name, equals, kind = part.rpartition("=")
        if not equals or not name or kind not in ROLES:
            raise ValueError(f"columns has {part!r}: give NAME=KIND, with a kind of {', '.join(ROLES)}")
        if kinds.get(name, kind) != kind:
            raise ValueError(f"columns has {name} as {kinds[name]} and as {kind}: choose one")
        kinds[name] = kind
    for role in ("split", "label", "size"):
        names = [name for name, kind in kinds.items() if kind == role]
        if len(names) > 1:
            raise ValueError(f"columns has several columns as {role}: choose one of {', '.join(names)}")
    return kinds


def numbers_of(cells: "pd.Series") -> np.ndarray | None:
    """Cells as float64 with NaN for missing ones; None if they are not numbers, bits included."""
    if _is(cells, "biuf"):
        return cells.to_numpy(np.float64, copy=True, na_value=np.nan)
    observed = cells[cells.notna()]
    if len(observed) == 0 or all(isinstance(cell, bool) for cell in observed):
        return cells.map({True: 1.0, False: 0.0}).to_numpy(np.float64, copy=True, na_value=np.nan)
    return None


def _is(cells: "pd.Series", kinds: str) -> bool:
    """Whether the type of cells is of one of these kinds of NumPy."""
    return getattr(cells.dtype, "kind", "O") in kinds and cells.dtype.name != "category"


def texts_of(cells: "pd.Series") -> np.ndarray:
    """Cells as texts, None for missing ones; a whole number has no decimal point, and all of its digits."""
    numbers = numbers_of(cells)
    if numbers is None or _is(cells, "iu"):
        return np.array([str(cell) if seen else None for cell, seen in zip(cells, cells.notna(), strict=True)], object)
    return np.array([None if np.isnan(each) else _plain(each) for each in numbers], object)


def _plain(number: float) -> str:
    return f"{number + 0.0:.15g}"  # -0.0 is 0


def wholes_of(cells: "pd.Series") -> np.ndarray | None:
    """Complete cells of numbers, with all digits of whole ones; None if they are not numbers."""
    return cells.to_numpy(np.int64, copy=True) if _is(cells, "iu") else numbers_of(cells)


def are_plain(texts: Iterable[str]) -> bool:
    """Whether all texts are those of numbers, which a file may also write as 1.0 or 01.

    >>> are_plain(["1", "2.5"]), are_plain(["1", "x"]), are_plain(["1", "01"])
    (True, False, False)
    """
    return all(_is_number(text) and _plain(float(text)) == text for text in texts)


def is_index(name: str) -> bool:
    """Whether a column has no name in the file: it is the index of a table that pandas wrote."""
    return name.startswith("Unnamed: ") or not name


def are_values(names: Collection[str]) -> bool:
    """Whether the names of columns look like a row of values: all are numbers, some with decimals, in no order.

    >>> are_values(["0.5", "-1"]), are_values(["12", "3"]), are_values(["400.5", "401.5"]), are_values(["age", "0.5"])
    (True, False, False, False)
    """
    if not all(map(_is_number, names)) or all(name.isdigit() for name in names):
        return False
    numbers = [float(name) for name in names]
    return numbers != sorted(numbers)


def guess_kind(path: Path, name: str, cells: "pd.Series") -> str:
    """The kind of a column, by its values. Texts among numbers or nearly as many as rows, and objects are refused."""
    numbers = numbers_of(cells)
    if numbers is None:
        return _guess_text(path, name, cells)
    x = numbers[np.isfinite(numbers)]
    if ((x == 0) | (x == 1)).all():
        return "bit"
    if (x == np.floor(x)).all() and x.min() in (0, 1) and x.max() <= LARGEST_COUNT:
        return "count"
    skewness = _skewness(x)
    return "positive" if x.min() >= SMALLEST and skewness > 1 and abs(_skewness(np.log(x))) < skewness else "real"


def _skewness(x: np.ndarray) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # `encode` refuses numbers that are so large
        deviation = x - x.mean()
        scale = np.sqrt((deviation**2).mean())
        return float(((deviation / scale) ** 3).mean()) if scale > 0 else 0.0


def _guess_text(path: Path, name: str, cells: "pd.Series") -> str:
    observed = cells[cells.notna()]
    strange = [row for row, cell in observed.items() if not isinstance(cell, str)]
    if strange:
        kind = type(observed[strange[0]]).__name__
        raise ValueError(f"{path} holds a {kind} in row {strange[0]} of the column {name}: set --columns {name}=drop")
    numeric = np.array([_is_number(cell) for cell in observed])
    if numeric.mean() > MOSTLY:
        row = observed.index[int(np.argmin(numeric))]
        raise ValueError(
            f"{path} holds {observed[row]!r} in row {row} of the column {name} among numbers: repair it, leave it "
            f"empty, or set --columns {name}=category"
        )
    distinct = observed.nunique()
    if distinct > max(10, DISTINCT * len(observed)):
        raise ValueError(
            f"{path} has {distinct} different texts in {len(observed)} rows of the column {name}, too many for "
            f"categories: set --columns {name}=drop"
        )
    return "category"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


TAKES = {
    "real": (lambda x: np.isfinite(x), "finite numbers"),
    "positive": (lambda x: np.isfinite(x) & (x >= SMALLEST), "numbers above 0, from 1.2e-38 on"),
    "count": (lambda x: (x >= 0) & (x <= LARGEST_COUNT) & (x == np.floor(x)), f"whole numbers 0 to {LARGEST_COUNT}"),
    "bit": (lambda x: (x == 0) | (x == 1), "0 and 1"),
    "size": (lambda x: np.isfinite(x) & (x >= SMALLEST), "numbers above 0, from 1.2e-38 on"),
}


def encode(path: Path, table: "pd.DataFrame", columns: Sequence[Column]) -> Tensor:
    """The columns as float32 of shape `(N, D)`, with NaN for missing cells and codes for categories."""
    lacking = [column.name for column in columns if column.name not in table.columns]
    if lacking:
        raise ValueError(f"{path} has no column {lacking[0]}, which the model needs: it has {listed(table.columns)}")
    x = np.empty((len(table), len(columns)), np.float32)
    for place, column in enumerate(columns):
        cells = table[column.name]
        with np.errstate(over="ignore"):
            x[:, place] = _codes(path, cells, column) if column.kind == "category" else _numbers(path, cells, column)
    return torch.from_numpy(x)


def _numbers(path: Path, cells: "pd.Series", column: Column) -> np.ndarray:
    numbers = numbers_of(cells)
    takes, words = TAKES[column.kind]
    if numbers is None:
        text = [row for row, cell in enumerate(cells) if isinstance(cell, str) and not _is_number(cell)]
        row = text[0] if text else int(cells.notna().to_numpy().argmax())
        raise _refused(path, cells.iloc[row], row, column, words)
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = ~np.isnan(numbers) & ~(takes(numbers) & np.isfinite(numbers.astype(np.float32)))
    if wrong.any():
        row = int(wrong.argmax())
        raise _refused(path, f"{numbers[row]:.10g}", row, column, words)
    if column.kind == "size" and np.isnan(numbers).any():
        row = int(np.isnan(numbers).argmax())
        raise ValueError(f"{path} misses the cell in row {row} of the column {column.name}, the size factor: fill it")
    return numbers


def _refused(path: Path, value: object, row: int, column: Column, words: str) -> ValueError:
    return ValueError(
        f"{path} holds {str(value)[:80]} in row {row} of the column {column.name}, which is {column.kind} and takes "
        f"{words}: repair it, or set another kind with --columns {column.name}=KIND"
    )


def _codes(path: Path, cells: "pd.Series", column: Column) -> np.ndarray:
    code = {name: float(number) for number, name in enumerate(column.categories)} | {None: np.nan}
    texts = texts_of(cells)
    for row, text in enumerate(texts):
        if text not in code:
            raise ValueError(
                f"{path} has the category {text[:80]!r} in row {row} of the column {column.name}, but no training "
                f"row has it: merge rare categories, remove such rows, or set --columns {column.name}=drop"
            )
    return np.array([code[text] for text in texts])


def values_of(x: Tensor, columns: Sequence[Column]) -> dict[str, list[Any]]:
    """The cells of each column as Python's values: numbers, whole numbers, categories; None for missing ones.

    >>> values_of(torch.tensor([[0.5, 1.0], [torch.nan, 0.0]]), [Column("age"), Column("sex", "category", ("f", "m"))])
    {'age': [0.5, None], 'sex': ['m', 'f']}
    """
    values: dict[str, list[Any]] = {}
    for column, cells in zip(columns, x.cpu().float().T.tolist(), strict=True):
        values[column.name] = [None if math.isnan(cell) else _value(cell, column) for cell in cells]
    return values


def _value(cell: float, column: Column) -> Any:
    if column.kind == "category":
        return column.categories[int(cell)]
    return int(cell) if column.kind in ("count", "bit") else float(f"{cell:.7g}")


def csv_of(x: Tensor, columns: Sequence[Column]) -> str:
    """Rows as the text of a `.csv`.

    >>> print(csv_of(torch.tensor([[0.5, 1.0]]), [Column("age"), Column("visits", "count")]), end="")
    age,visits
    0.5,1
    """
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    values = values_of(x, columns)
    lines.writerow(values)
    lines.writerows(zip(*values.values(), strict=True))
    return file.getvalue()


def describe_columns(columns: Sequence[Column]) -> list[str]:
    """A line for each kind.

    >>> describe_columns([Column("age"), Column("sex", "category", ("f", "m")), Column("mass")])
    ['real: age, mass', 'category: sex (f, m)']
    """
    lines = []
    for kind in KINDS:
        names = [
            f"{column.name[:LONGEST]} ({listed(column.categories)})" if column.categories else column.name[:LONGEST]
            for column in columns
            if column.kind == kind
        ]
        if names:
            lines.append(f"{kind}: {_first(names)}")
    return lines


def listed(names: Collection[object]) -> str:
    """The first names, and how many more there are."""
    return _first([str(name)[:LONGEST] for name in names])


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
