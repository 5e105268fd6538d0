"""Checks of the points and conditions of a data set: shapes, types, and values in the support of the likelihood."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.arrays import SPLITS
from vaepriors.networks.likelihoods import Likelihood
from vaepriors.networks.mixed import Column
from vaepriors.words import a_type

__all__ = [
    "blocks",
    "check_columns",
    "check_conditions",
    "check_known",
    "check_points",
    "check_shape",
    "check_values",
    "in_words",
]

BLOCK, BYTES = 10_000, 2**28  # points that become numbers at a time, at most, and the memory that these take


def check_conditions(name: str, conditions: dict[str, Tensor], classes: int) -> None:
    """Refuse conditions that are not of all splits, or not finite float32 of one size."""
    if set(conditions) != set(SPLITS):
        raise ValueError(
            f"{name}: conditions are of {', '.join(sorted(conditions))}: give those of {', '.join(SPLITS)}"
        )
    size = conditions["train"].shape[-1:]
    for split, y in conditions.items():
        what = f"{name}: the conditions of {split}"
        if y.dtype != torch.float32 or y.dim() != 2 or y.shape[1:] != size or not max(classes, 1) <= y.shape[1]:
            raise ValueError(
                f"{what} are {y.dtype} {tuple(y.shape)}: give float32 of shape (N, c), with the same c in all splits, "
                "at least one number for each class"
            )
        if not y.isfinite().all():
            row = int((~y.isfinite()).any(1).nonzero()[0])
            raise ValueError(f"{what} hold NaN or infinity, first in row {row}: remove or repair them")


def blocks(x: Any) -> Iterator[tuple[range, Tensor]]:
    """A tensor whole, other points some at a time; each with the numbers of its rows."""
    if isinstance(x, Tensor):
        yield range(len(x)), x
        return
    size = max(1, min(BLOCK, BYTES // (4 * x.shape[1:].numel())))
    for start in range(0, len(x), size):
        rows = range(start, min(start + size, len(x)))
        yield rows, x[rows.start : rows.stop]


def check_points(what: str, x: Any) -> None:
    """Refuse what is not an array, such as a list or a `DataLoader`, and a tensor that is being trained."""
    if not (hasattr(x, "dtype") and hasattr(x, "shape")):
        raise ValueError(
            f"{what} is {a_type(x)}: give a float32 tensor of shape (N, D) or (N, C, H, W); data.Items(dataset) has "
            "the points of a dataset of torch"
        )
    if getattr(x, "requires_grad", False):
        raise ValueError(f"{what} requires a gradient, but data are not trained: give x.detach()")


def check_shape(what: str, x: Any, event_shape: torch.Size) -> None:
    """Refuse what is not float32, is empty, or has another form than vectors or images of this event shape."""
    if x.dtype != torch.float32:
        array = isinstance(x, np.ndarray)
        remedy = "convert it with torch.from_numpy(array).float()" if array else "convert it with .float()"
        raise ValueError(f"{what} is {'a numpy array' if array else x.dtype}, not torch.float32: {remedy}")
    if len(x.shape) not in (2, 4):
        raise ValueError(
            f"{what} has shape {tuple(x.shape)}: vectors are (N, D), images (N, C, H, W), sequences images of one row, "
            "(N, C, 1, T); flatten anything else, and reshape it in the encoder"
        )
    if x.shape.numel() == 0:
        raise ValueError(
            f"{what} is empty, shape {tuple(x.shape)}: every split needs at least one point, and "
            "data that are split by seed at least 10"
        )
    if x.shape[1:] != event_shape:
        raise ValueError(
            f"{what} has event shape {tuple(x.shape[1:])}, train has {tuple(event_shape)}: all splits need the same"
        )


def check_columns(name: str, train: Tensor, columns: Sequence[Column]) -> None:
    """Refuse what is not a table, or a column without values."""
    if len(train.shape) != 2 or (columns and len(columns) != train.shape[1]):
        raise ValueError(
            f"{name}: train has shape {tuple(train.shape)}, but the likelihood mixed takes (N, D) with the kinds of D "
            f"columns: {len(columns)} are given"
        )
    empty = train.isnan().all(0).nonzero().flatten().tolist() if len(train) else []
    if empty:
        column = columns[empty[0]].name if columns else empty[0]
        raise ValueError(f"{name}: the column {column} has no value in the training rows: leave it out")


def check_values(what: str, x: Tensor, likelihood: Likelihood | None, rows: Sequence[int], number: int) -> None:
    """Refuse values outside the support; without a likelihood, those outside [0, 1].

    x are the points of these rows, of `number` points.
    """
    missing = x.isnan() if likelihood is not None and likelihood.missing else x.new_zeros((), dtype=torch.bool)
    x = x.masked_fill(missing, 0) if missing.any() else x
    if not torch.stack(torch.aminmax(x)).isfinite().all():  # NaN passes through both extremes
        bad = (~x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise ValueError(
            f"{what} holds NaN or infinity in {len(bad)} of {number} points, first in point {rows[bad[0]]}: "
            "remove or repair them"
        )
    inside = (x >= 0) & (x <= 1) if likelihood is None else likelihood.contains(x)
    inside = inside | missing
    if not inside.all():
        low, high = (value.item() for value in torch.aminmax(x))
        support = "[0, 1]: scale the data to probabilities" if likelihood is None else likelihood.support
        row, *place = (~inside).nonzero()[0].tolist()
        raise ValueError(
            f"{what} holds the value {x[row, *place].item():.6g} (smallest {low:.6g}, largest {high:.6g}) in "
            f"{in_words(rows[row], place)}, but its values must lie in {support}"
        )


def check_known(what: str, x: Tensor, train: Tensor, likelihood: Likelihood, rows: Tensor | None = None) -> None:
    """Refuse values that a model of the training set cannot have learned.

    `rows` has the row of each point where the user has it; by default it is the row in x.
    """
    if likelihood.known is None or x is train:
        return
    unknown = (~likelihood.known(train, x)).nonzero()
    if len(unknown):
        row, *place = unknown[0].tolist()
        where = in_words(row if rows is None else int(rows[row]), place)
        raise ValueError(
            f"{what} has the category {x[row, *place].item():g} in {where}, which the training set does not have "
            "there: merge rare categories, or remove such rows"
        )


def in_words(row: int, place: Sequence[int]) -> str:
    """Where a value is, counted from 0.

    >>> in_words(7, [2]), in_words(7, [0, 3, 4])
    ('row 7, column 2', 'image 7 at (0, 3, 4)')
    """
    return f"row {row}, column {place[0]}" if len(place) == 1 else f"image {row} at {tuple(place)}"
