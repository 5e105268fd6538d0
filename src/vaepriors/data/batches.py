"""Batches of a training set: the rows of each, and how their points come to the device.

resident    points on the device; a batch is a selection of rows there
streamed    points elsewhere, such as on disk; the next batches are read while a step runs, and the loop copies each
            into one tensor on the device, which a step selects from (so a step may be compiled, or recorded as a CUDA
            graph)
"""

import math
from collections.abc import Callable, Generator
from typing import Any, Protocol

import torch
from torch import Tensor

from vaepriors.data.rows import Convert

Check = Callable[[Tensor, Tensor], None]


class Order:
    """The rows of each batch. Every example is seen once in each pass, in an order of its own.

    An epoch is some steps of this sequence of passes, usually a whole one. Shapes never change: the last batch of a
    pass is filled up from its first examples.

    Args:
        number: Examples.
        size: Examples in a batch.
        seed: Turns the number of a pass, from 1, into the seed of its order.
        steps: Steps of an epoch; those of a pass unless given.
    """

    def __init__(self, number: int, size: int, seed: Callable[[int], int], steps: int | None = None) -> None:
        self.number, self.size, self.seed = number, size, seed
        self.steps_of_pass = math.ceil(number / size)
        self.steps = steps or self.steps_of_pass
        self.kept: tuple[int, Tensor] | None = None  # of passes that are longer than an epoch

    def epoch(self, epoch: int) -> Tensor:
        """The rows of an epoch, from 1, of shape `(steps, size)`."""
        step, end, parts = (epoch - 1) * self.steps, epoch * self.steps, []
        while step < end:
            number, first = divmod(step, self.steps_of_pass)
            last = min(first + end - step, self.steps_of_pass)
            parts.append(self._part(number + 1, first, last))
            step += last - first
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(self.steps, self.size)

    def _part(self, number: int, first: int, last: int) -> Tensor:
        """The rows of some steps of a pass."""
        rows = self._pass(number)
        missing = max(0, last * self.size - self.number)
        part = rows[first * self.size : last * self.size]
        return torch.cat([part, rows[torch.arange(missing, device=rows.device) % self.number]]) if missing else part

    def _pass(self, number: int) -> Tensor:
        if self.kept is not None and self.kept[0] == number:
            return self.kept[1]
        self.kept = None  # before another one takes memory
        generator = torch.Generator("cpu").manual_seed(self.seed(number))
        rows = torch.randperm(self.number, generator=generator, device="cpu")
        if self.steps < self.steps_of_pass:
            self.kept = number, rows
        return rows


class Feed(Protocol):
    """Brings batches to the device."""

    points: Any  # `points[rows]` are the points of the batch that was brought last

    def batches(self, rows: Tensor) -> Generator[Tensor]:
        """Bring the batches of an epoch in turn, and return the rows of each on the device.

        Args:
            rows: Of shape `(steps, size)`, on the CPU.
        """


def feed(train: Any, device: torch.device, dtype: torch.dtype, check: Check) -> Feed:
    """The feed of a training set: a tensor, `Rows`, `Streamed` or `Items`.

    Args:
        train: The training set.
        device, dtype: Of the points of a batch.
        check: Called with the points of a batch and their rows, on the CPU, if they were not checked before.
    """
    if getattr(train, "streamed", False):
        return _Streamed(train, device, dtype, check)
    return _Resident(train.to(device, dtype), device)


class _Resident:
    def __init__(self, points: Any, device: torch.device) -> None:
        self.points, self.device = points, device

    def batches(self, rows: Tensor) -> Generator[Tensor]:
        yield from rows.to(self.device)


class _Streamed:
    def __init__(self, train: Any, device: torch.device, dtype: torch.dtype, check: Check) -> None:
        self.train, self.device, self.check = train, device, check
        self.points: _Window = _Window(train.convert, dtype)

    def batches(self, rows: Tensor) -> Generator[Tensor]:
        pin = self.device.type == "cuda"  # a copy from there need not be waited for
        for chosen, stored in self.train.batches(rows, pin):
            if not self.train.checked:
                self.check(self.train.convert(stored), chosen)
            self.points.fill(stored.to(self.device, non_blocking=True))
            yield (chosen.pin_memory() if pin else chosen).to(self.device, non_blocking=True)


class _Window:
    """The points of one batch, of which all rows are selected: those that it was filled with."""

    def __init__(self, convert: Convert, dtype: torch.dtype) -> None:
        self.convert, self.dtype = convert, dtype
        self.stored: Tensor | None = None

    def fill(self, stored: Tensor) -> None:
        if self.stored is None:
            self.stored = torch.empty_like(stored)
        self.stored.copy_(stored, non_blocking=True)

    def __getitem__(self, rows: Tensor) -> Tensor:
        assert self.stored is not None
        return self.convert(self.stored).to(self.dtype)
