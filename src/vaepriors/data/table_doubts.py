"""Likely mistakes in a table that can be read, one sentence each."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaepriors.data.columns import are_values, listed, numbers_of
from vaepriors.data.frames import as_written, padded
from vaepriors.networks.mixed import Column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["doubts_of"]

COARSE = 0.01  # of a standard deviation: larger steps of float32 are noticed


def doubts_of(
    path: Path,
    table: "pd.DataFrame",
    columns: Sequence[Column],
    x: np.ndarray,
    train: np.ndarray,
    given: Collection[str],
) -> Iterator[str]:
    """Sentences about likely mistakes.

    Args:
        path: The file.
        table: Its table.
        columns: The columns that are modelled.
        x: Their values, of shape `(N, D)`.
        train: The training rows.
        given: The columns whose kinds the user has set.
    """
    yield from _doubtful_values(table, columns, x, train)
    yield from _doubtful_words(path, table, columns)
    yield from _doubtful_marks(table, columns)
    numbers = [column.name for column in columns if column.kind != "category" and column.name not in given]
    for name in padded(path, table, numbers):
        yield (
            f"the column {name} has numbers with leading zeros: if they are codes, such as postal codes, set --columns "
            f"{name}=category, or {name}=drop"
        )


def _doubtful_values(
    table: "pd.DataFrame", columns: Sequence[Column], x: np.ndarray, train: np.ndarray
) -> Iterator[str]:
    """Likely mistakes: no names, columns with one value, and numbers that are the same in single precision."""
    if are_values(table.columns):
        names = listed(table.columns)
        yield f"the columns have numbers as names, {names}: if the first line is a row, write a line of names above it"
    for place, column in enumerate(columns):
        name, rounded = column.name, x[train, place]
        numbers = None if column.kind == "category" else numbers_of(table[name])
        cells = rounded if numbers is None else numbers[train]
        spread = np.nanstd(cells)
        if spread <= 1e-12 * np.nanmax(np.abs(cells)):
            yield f"the column {name} has one value in the training rows: set --columns {name}=drop"
        elif column.kind == "real" and np.nanmax(np.abs(cells - rounded)) > COARSE * spread:
            yield (
                f"the column {name} has values near {np.nanmean(cells):.6g} that differ by about {spread:.2g}: single "
                "precision rounds them, so subtract a constant"
            )


def _doubtful_marks(table: "pd.DataFrame", columns: Sequence[Column]) -> Iterator[str]:
    """A sentence about each extreme value of nines alone, such as -999, that is far from all others of its column."""
    for name in (column.name for column in columns if column.kind != "category"):
        numbers = numbers_of(table[name])
        cells = np.empty(0) if numbers is None else numbers[~np.isnan(numbers)]
        for mark in sorted({cells.min(), cells.max()}) if len(cells) else ():
            others = cells[cells != mark]
            if set(f"{abs(mark):g}") == {"9"} and len(others) and np.abs(others - mark).min() > np.ptp(others) > 0:
                yield (
                    f"the column {name} has {mark:g} in {len(cells) - len(others)} of {len(table)} rows, far from its "
                    f"other values, {others.min():g} to {others.max():g}: if it marks missing cells, leave these empty"
                )


def _doubtful_words(path: Path, table: "pd.DataFrame", columns: Sequence[Column]) -> Iterator[str]:
    """A sentence about the first word among categories that pandas reads as a missing cell."""
    incomplete = [each.name for each in columns if each.kind == "category" and table[each.name].isna().any()]
    written = as_written(path, table, incomplete) if incomplete else table
    for name in incomplete:
        words = [cell for cell in written[name][table[name].isna()] if isinstance(cell, str) and cell.lower() != "nan"]
        if any(words):
            yield (
                f"the column {name} has {next(filter(None, words))}, which is read as a missing cell: if it is a "
                "category, write another word"
            )
            return
