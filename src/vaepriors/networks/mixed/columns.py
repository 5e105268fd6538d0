"""The columns of a table, and their kinds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KINDS", "NUMBERS", "Column", "are", "places"]

KINDS = ("real", "positive", "count", "bit", "category", "size")
NUMBERS = ("real", "positive", "count", "size")  # kinds that are standardised, all but the first as logarithms


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        kind: One of `KINDS`.
        categories: The names of the codes 0, 1, ... of a category.
    """

    name: str
    kind: str = "real"
    categories: tuple[str, ...] = ()


def places(columns: Sequence[Column], *kinds: str, device: torch.device | None = None) -> Tensor:
    """The places of the columns of some kinds.

    >>> places([Column("a"), Column("b", "bit"), Column("c")], "real")
    tensor([0, 2])
    """
    chosen = [place for place, column in enumerate(columns) if column.kind in kinds]
    return torch.tensor(chosen, dtype=torch.int64, device=device)


def are(columns: Sequence[Column], *kinds: str, device: torch.device) -> Tensor:
    """Whether each column is of one of some kinds."""
    return torch.tensor([column.kind in kinds for column in columns], device=device)
