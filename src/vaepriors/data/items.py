"""Points of a map-style dataset of torch, which makes them one by one."""

import atexit
import multiprocessing
import signal
import traceback
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vaepriors.data.rows import Convert, as_tensor, selected, unchanged
from vaepriors.words import a_type

__all__ = ["Items"]


class Items:
    """Points of a map-style dataset of torch, such as images that are read and augmented when they are needed.

        x_i = convert(dataset[i]),  or convert(dataset[i][0]) if items are tuples

    A `torch.utils.data.DataLoader` reads the batches of a training. Their order follows from the seed of `fit`, as from
    memory, so items that never change give the same numbers as a tensor of them. The workers are seeded by seed and
    epoch, for torch, NumPy and `random`: random items repeat, too, with the same number of workers, from 1.

    Args:
        dataset: Anything with `len(dataset)` and `dataset[i]`. An item is a tensor or an array, of shape `(D,)`,
            `(H, W)` or `(C, H, W)`, or a tuple that begins with one.
        workers: Processes that read batches ahead, of each device; with 0, the training itself reads them.
        convert: Turns stacked items into points of type float32: `vaepriors.data.rows.middles` for bytes that are 256
            gray levels, `shares` for those that are probabilities.

    Raises:
        ValueError: If the dataset has no length, is empty, or its first item is not a tensor or an array. Another item
            with another shape, or with values that the likelihood does not take, is refused when it is read.

    >>> items = Items([(torch.tensor([0.5, 2.0]), "a"), (torch.tensor([1.0, 3.0]), "b")])
    >>> items.shape, items[1:]
    (torch.Size([2, 2]), tensor([[1., 3.]]))
    """

    streamed = True
    checked = False
    dtype = torch.float32

    def __init__(self, dataset: Any, workers: int = 0, convert: Convert = unchanged) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            remedy = "give loader.dataset" if isinstance(dataset, DataLoader) else "write the loop yourself"
            raise ValueError(f"dataset is {a_type(dataset)}, which has no length or no dataset[i]: {remedy}")
        if not len(dataset):
            raise ValueError(f"dataset is {a_type(dataset)} without items: give one with at least one")
        if not isinstance(workers, SupportsIndex) or workers < 0:
            raise ValueError(f"workers is {workers!r}: give 0, or a number of processes")
        self.dataset, self.workers, self.convert = dataset, workers, convert
        self.first = _point(dataset, 0)

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self), *self.first.shape])

    @property
    def content(self) -> str:
        """What is compared when a training is resumed: items may be slow to make, or random."""
        return f"{type(self.dataset).__name__} {tuple(self.shape)}"

    @property
    def row_size(self) -> int:
        """Bytes of one item."""
        return self.first.nbytes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, rows: Any) -> Tensor:
        return selected(lambda chosen: self.convert(self.read(chosen)), rows, self.shape)

    def read(self, rows: np.ndarray) -> Tensor:
        """Some items as they are, stacked."""
        points = _Points(self.dataset, self.first)
        return torch.stack([points[row] for row in rows.tolist()]) if len(rows) else self.first[None][:0]

    def batches(self, rows: Tensor, pin: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows of each batch, and its items. The workers end when the iterator is closed.

        Args:
            rows: Of shape `(steps, size)`.
            pin: Whether to put the items into pinned memory.
        """
        loader: DataLoader[Tensor | _Failure] = DataLoader(
            _Points(self.dataset, self.first),  # type: ignore[arg-type]
            batch_sampler=rows.tolist(),
            num_workers=self.workers,
            collate_fn=_as_read,
            pin_memory=pin,
            worker_init_fn=_leave_signals,
            generator=torch.Generator("cpu").manual_seed(torch.initial_seed()),  # of the epoch; draws nothing from it
        )
        before = set(multiprocessing.active_children())
        with torch.device("cpu"):  # whatever torch's default device is
            read = iter(loader)
        end = partial(_kill, set(multiprocessing.active_children()) - before)
        atexit.register(end)  # of a program that keeps an iterator which it never closes
        try:
            for chosen, batch in zip(rows, read, strict=True):
                if isinstance(batch, _Failure):
                    error = ValueError(batch.sentence)
                    error.add_note(batch.traceback)
                    raise error
                yield chosen, batch
        finally:
            del read  # a traceback would keep it, and the workers
            atexit.unregister(end)

    def __repr__(self) -> str:
        return f"Items({type(self.dataset).__name__} {tuple(self.shape)}, workers={self.workers})"


class _Failure(NamedTuple):
    """An error of a worker, in words: not every exception can be sent to another process."""

    sentence: str
    traceback: str


class _Points:
    """The points of a dataset as tensors like the first; the batches of a `DataLoader` as what is read or a failure."""

    def __init__(self, dataset: Any, first: Tensor) -> None:
        self.dataset, self.form = dataset, (first.dtype, first.shape)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Tensor:
        x = _point(self.dataset, row)
        if (x.dtype, x.shape) != self.form:
            dtype, shape = self.form
            raise ValueError(
                f"item {row} of the dataset is {x.dtype} of shape {tuple(x.shape)}, item 0 is {dtype} of shape "
                f"{tuple(shape)}: all need the same"
            )
        return x

    def __getitems__(self, rows: Sequence[int]) -> Tensor | _Failure:
        try:
            return torch.stack([self[row] for row in rows])
        except ValueError as error:
            return _Failure(str(error), traceback.format_exc())


def _as_read(batch: Any) -> Any:
    return batch


def _point(dataset: Any, row: int) -> Tensor:
    """An item as bytes or float32, on the CPU."""
    try:
        item = dataset[row]
    except Exception as error:
        raise ValueError(
            f"item {row} of the dataset cannot be read ({type(error).__name__}: {error}): repair it, or leave it out"
        ) from error
    x = item[0] if isinstance(item, (tuple, list)) and item else item
    if not isinstance(x, (Tensor, np.ndarray)):
        what = "a tuple that begins with " if x is not item else ""
        raise ValueError(
            f"item {row} of the dataset is {what}{a_type(x)}: give a dataset of tensors or arrays, or of tuples that "
            "begin with one"
        )
    if isinstance(x, Tensor):
        x = (x.float() if x.is_floating_point() else x).numpy(force=True)
    if x.dtype.kind not in "fiub":
        raise ValueError(f"item {row} of the dataset holds {x.dtype}: give real numbers")
    return as_tensor(x[None])[0]


def _leave_signals(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which a terminal or SLURM sends to all processes, to the training."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _kill(workers: Iterable[BaseProcess]) -> None:
    """End the workers with the program. torch's handler would raise an error once the first of them has ended."""
    if hasattr(signal, "SIGCHLD"):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in workers:
        worker.kill()
