"""Rows in one or several `.npy` files, read by their position.

Rows are read, not mapped: pages of a mapped file count as memory of the process, and a mapped file that is cut short
ends the process without a word. Each file is opened for each read and compared with what it was at first, so a change
during a training is noticed before its rows are used.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vaepriors.data.arrays import (
    EXTRAS,
    SPLITS,
    Header,
    array_limit,
    check_headers,
    check_limit,
    check_spelling,
    header_of,
    is_packed,
    needed_memory,
    read_arrays,
    refusing_damage,
)

BLOCK = 2**22  # bytes that are read at a time


class Shards:
    """Rows of one type and shape in `.npy` files, in the order of the files.

    Args:
        paths: The files.

    Raises:
        ValueError: If a file is missing, damaged or cut short, has its numbers column by column, or has another type or
            shape of a row than the first.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self.stamps = [_stamp(os.stat(path)) for path in paths if path.exists()]
        self.headers = [header_of(path) for path in paths]
        first = self.headers[0]
        for path, header in zip(paths, self.headers, strict=True):
            if (header.dtype, header.shape[1:]) != (first.dtype, first.shape[1:]):
                raise ValueError(f"{path} holds {header}, but {paths[0].name} {first}: all need one type and row shape")
        self.dtype, self.row_shape = first.dtype, first.shape[1:]
        self.row_size = self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))
        self.ends = np.cumsum([next(iter(header.shape), 0) for header in self.headers])  # a number has no shape

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def header(self) -> Header:
        """Type and shape of all rows together."""
        return Header((len(self), *self.row_shape), self.dtype)

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return len(self) * self.row_size

    def stamped(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        """The files, each with its size and its time in nanoseconds."""
        return zip(self.paths, self.stamps, strict=True)

    def check_order(self) -> None:
        """Refuse files whose rows are not in one piece each."""
        for path, header in zip(self.paths, self.headers, strict=True):
            if header.fortran and len(header.shape) > 1:
                raise ValueError(
                    f"{path} is stored column by column (Fortran order), so rows cannot be read from disk: save "
                    "numpy.ascontiguousarray of it"
                )

    def load(self) -> np.ndarray:
        """All rows."""
        arrays = []
        for path in self.paths:
            with refusing_damage(path):
                arrays.append(np.load(path, allow_pickle=False))
        if len(arrays) == 1:
            return arrays[0]
        return np.concatenate(arrays, out=np.empty(self.header.shape, self.dtype))  # keeps the order of bytes

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, in any order, as they are stored; a file that has changed since it was opened first is refused."""
        stored = np.empty((len(rows), *self.row_shape), self.dtype)
        view, size = _bytes(stored), self.row_size
        files = np.searchsorted(self.ends, rows, side="right")
        for number in np.unique(files).tolist():
            places = np.flatnonzero(files == number)
            header = self.headers[number]
            starts = (rows[places] - (self.ends[number] - header.shape[0])) * size + header.offset
            with self._opened(number) as file:
                for place, start in zip((places * size).tolist(), starts.tolist(), strict=True):
                    if os.preadv(file, [view[place : place + size]], start) != size:
                        raise self._changed(number)
        return stored

    def blocks(self) -> Iterator[tuple[Path, int, np.ndarray]]:
        """All rows, some at a time: the file, the number of the first row in it, and the rows."""
        for number, (path, header) in enumerate(zip(self.paths, self.headers, strict=True)):
            step = max(1, BLOCK // max(1, self.row_size))
            for start in range(0, header.shape[0], step):
                rows = np.arange(start, min(start + step, header.shape[0]))
                block = np.empty((len(rows), *self.row_shape), self.dtype)
                view = _bytes(block)
                with self._opened(number) as file:
                    if os.preadv(file, [view], header.offset + start * self.row_size) != len(view):
                        raise self._changed(number)
                yield path, start, block

    def _opened(self, number: int) -> "_Opened":
        opened = _Opened(self.paths[number])
        if _stamp(os.fstat(opened.file)) != self.stamps[number]:
            opened.__exit__()
            raise self._changed(number)
        return opened

    def _changed(self, number: int) -> ValueError:
        return ValueError(
            f"{self.paths[number]} has changed since it was checked (its size or time differs): restore it, and resume"
        )


class _Opened:
    """A file, open for positional reads."""

    def __init__(self, path: Path) -> None:
        try:
            self.file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise ValueError(f"{path} can no longer be opened ({error.strerror}): restore it, and resume") from error

    def __enter__(self) -> int:
        return self.file

    def __exit__(self, *_: object) -> None:
        os.close(self.file)


Arrays = Mapping[str, np.ndarray | Shards]  # in memory, or in files


def _bytes(array: np.ndarray) -> memoryview:
    """The memory of an array, to be written."""
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def find_shards(path: Path) -> dict[str, Shards]:
    """The files of each array: of a `.npy` file, or of a folder.

    A folder has `.npy` files, in the order of their names, or for each split `NAME.npy` or a folder `NAME` of them; the
    same for labels and covariates, such as `train_labels.npy` or a folder `train_labels`.
    """
    if not os.path.isdir(path):
        return {"train": Shards([path])}
    names = (*SPLITS, *(f"{split}_{kind}" for kind in EXTRAS for split in SPLITS))
    named = {name: paths for name in names if (paths := _files_named(path, name))}
    splits = [name for name in SPLITS if name in named]
    others = [file for file in _files(path) if file.stem not in names]
    check_spelling(path, (*splits, *(file.stem for file in others)))
    if splits and others:
        raise ValueError(f"{path} holds {others[0].name} beside {', '.join(splits)}: move one of them elsewhere")
    if not others and not splits:
        raise ValueError(f"{path} is a folder without a .npy file of points and without images: save some there")
    points = {} if splits else {"train": others}
    return {name: Shards(paths) for name, paths in (points | named).items()}


def open_arrays(path: Path, stream: str = "auto") -> Arrays:
    """The arrays of a `.npz`, a `.npy` or a folder.

    Those of a `.npy` or a folder stay in their files if they take too much memory, or as `stream` says, `yes` or `no`.
    """
    if not os.path.isdir(path) and is_packed(path):
        if stream == "yes":
            raise ValueError(f"{path} is a .npz, which is not read from disk batch by batch: save .npy files instead")
        return read_arrays(path)
    shards = find_shards(path)
    headers = headers_of(shards)
    check_headers(path, headers)
    if stream == "yes" or (stream == "auto" and needed_memory(headers) > array_limit()):
        for name in shards.keys() & set(SPLITS):
            shards[name].check_order()
        return shards
    check_limit(path, headers)
    return {name: each.load() for name, each in shards.items()}


def headers_of(arrays: Arrays) -> dict[str, Header]:
    """Type and shape of each array."""
    return {name: x.header if isinstance(x, Shards) else Header(x.shape, x.dtype) for name, x in arrays.items()}


def _files_named(path: Path, name: str) -> list[Path]:
    """The file, or the files of the folder, of this name."""
    alone, parts = [file for file in _files(path) if file.stem == name], _files(path / name)
    if alone and parts:
        raise ValueError(f"{path} holds both {name}.npy and the folder {name}: move one of them elsewhere")
    return alone + parts


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.npy") if not path.name.startswith("."))
