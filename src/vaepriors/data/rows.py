"""Points that are kept as a file stores them, and become numbers when some of them are selected.

    rows[i] = convert(stored[i])                x in float32, of one row, a slice, or a tensor of rows

    Rows        in memory, on any device: bytes take a quarter of the memory of float32
    Streamed    in files, of which only the selected rows are read
    Items       of a dataset of torch, which makes only the selected ones (see `vaepriors.data.items`)

A tensor of points is the fourth kind: all have `len`, `shape` and `[rows]`.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.ahead import AHEAD, BYTES, read_ahead
from vaepriors.data.shards import Shards
from vaepriors.limits import check_size

Convert = Callable[[Tensor], Tensor]


class Points(Protocol):
    """What a training set is: a tensor, `Rows`, `Streamed` or `Items`."""

    @property
    def shape(self) -> torch.Size: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor: ...


def unchanged(stored: Tensor) -> Tensor:
    return stored.float()


def middles(levels: Tensor) -> Tensor:
    """The middles of 256 bins, (level + 0.5) / 256."""
    return (levels.float() + 0.5) / 256


def middles_of_shares(x: Tensor) -> Tensor:
    """The middles of 256 bins, from level / 255."""
    return middles((x.float() * 255).round())


def middles_of_middles(x: Tensor) -> Tensor:
    """The middles of 256 bins, from (level + 0.5) / 256."""
    return middles((x.float() * 256).floor())


def shares(levels: Tensor) -> Tensor:
    """Level / 255, with the same bits on all devices: some divide by multiplying, which is exact here in float64."""
    return (levels.double() * (1 / 255)).float()


class Rows:
    """Points in memory as a file stores them.

    Args:
        stored: Numbers of any type, of shape `(N, C, H, W)` or `(N, D)`.
        convert: Turns stored numbers into points of type float32.
        dtype: The type of the points.

    >>> rows = Rows(torch.tensor([[0, 255], [51, 0]], dtype=torch.uint8), shares)
    >>> rows[1], rows[torch.tensor([0, 0])].shape, len(rows)
    (tensor([0.2000, 0.0000]), torch.Size([2, 2]), 2)
    """

    streamed = False

    def __init__(self, stored: Tensor, convert: Convert = unchanged, dtype: torch.dtype = torch.float32) -> None:
        self.stored, self.convert, self.dtype = stored, convert, dtype

    @property
    def shape(self) -> torch.Size:
        return self.stored.shape

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        return self.convert(self.stored[rows]).to(self.dtype)

    def take(self, rows: np.ndarray) -> "Rows":
        """Some of the points, as they are stored."""
        return Rows(self.stored[torch.from_numpy(rows)], self.convert, self.dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Rows":
        """The same points on a device, of another type; they are kept as they are stored."""
        return Rows(self.stored.to(device), self.convert, dtype)

    def __repr__(self) -> str:
        return f"Rows({self.stored.dtype} {tuple(self.shape)})"


class Streamed:
    """Points in files, of which only the selected rows are read.

    Args:
        shards: The files.
        convert: Turns stored numbers into points of type float32.
        order: The row in the files of each point; all rows in their order unless given.
        channels_last: Whether the files have images as (H, W, C).
    """

    streamed = True
    checked = True  # when the files were opened
    dtype = torch.float32

    def __init__(
        self, shards: Shards, convert: Convert = unchanged, order: np.ndarray | None = None, channels_last: bool = False
    ) -> None:
        self.shards, self.convert, self.order, self.channels_last = shards, convert, order, channels_last

    @property
    def shape(self) -> torch.Size:
        *sides, last = self.shards.row_shape
        event = [last, *sides] if self.channels_last else [*sides, last]
        return torch.Size([len(self), *([1] if len(event) == 2 else []), *event])

    def __len__(self) -> int:
        return len(self.shards) if self.order is None else len(self.order)

    @property
    def row_size(self) -> int:
        """Bytes of a row in its file."""
        return self.shards.row_size

    def __getitem__(self, rows: Any) -> Tensor:
        return selected(lambda chosen: self.convert(self._stored(chosen)), rows, self.shape)

    def read(self, rows: Tensor) -> Tensor:
        """Some rows as they are stored, on the CPU."""
        return self._stored(rows.numpy())

    def batches(self, rows: Tensor, pin: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows of each batch, and what is stored there; threads read ahead.

        Args:
            rows: Of shape `(steps, size)`.
            pin: Whether to put what is read into pinned memory.
        """
        ahead = max(1, min(AHEAD, BYTES // (rows.shape[1] * self.row_size)))
        for chosen, stored in read_ahead(self.read, rows, ahead=ahead):
            yield chosen, stored.pin_memory() if pin else stored

    def _stored(self, rows: np.ndarray) -> Tensor:
        return as_tensor(self.shards.read(rows if self.order is None else self.order[rows]), self.channels_last)

    def take(self, rows: np.ndarray) -> "Streamed":
        """Some of the points of files that are read in their order."""
        return Streamed(self.shards, self.convert, rows, self.channels_last)

    def __repr__(self) -> str:
        return f"Streamed({self.shards.dtype} {tuple(self.shape)})"


def points_of(stored: np.ndarray | Shards, convert: Convert, channels_last: bool) -> Rows | Streamed:
    """The points of stored rows: in memory, or in their files."""
    if isinstance(stored, Shards):
        return Streamed(stored, convert, None, channels_last)
    return Rows(as_tensor(stored, channels_last), convert)


def selected(read: Callable[[np.ndarray], Tensor], rows: Any, shape: torch.Size) -> Tensor:
    """What `read` returns for the numbers of selected rows; of a single row without the first dimension."""
    if getattr(rows, "ndim", None) == 0:  # a number of NumPy or torch
        rows = rows.item()
    if isinstance(rows, int):  # by NumPy, because torch's default device may be another
        return read(np.array([range(shape[0])[rows]]))[0]
    chosen = positions(rows, shape[0])
    check_selection(chosen, shape)
    return read(chosen)


def positions(rows: Any, number: int) -> np.ndarray:
    """The numbers of selected rows, of `number`: of a slice, a mask, or numbers, also from the end.

    >>> positions(torch.tensor([True, False, True]), 3), positions([-1], 3)
    (array([0, 2]), array([2]))
    """
    return np.arange(number)[rows.cpu().numpy() if isinstance(rows, Tensor) else rows]


def check_selection(chosen: np.ndarray, shape: torch.Size) -> None:
    """Refuse more points than fit into memory."""
    check_size(f"loading {len(chosen)} points that are not in memory", 8 * len(chosen) * shape[1:].numel())


def is_bytes(dtype: np.dtype) -> bool:
    """Whether numbers of a type are kept as bytes: 0 to 255, or false and true."""
    return dtype == np.uint8 or dtype == np.bool_


def as_tensor(array: np.ndarray, channels_last: bool = False) -> Tensor:
    """Stored rows as bytes or float32, vectors as (N, D), images as (N, C, H, W)."""
    array = np.moveaxis(array, -1, 1) if channels_last else array
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow becomes infinite, which is reported later
        kept = np.require(array, np.uint8 if is_bytes(array.dtype) else np.float32, ["C", "W"])
    x = torch.from_numpy(kept)
    return x.unsqueeze(1) if x.ndim == 3 else x
