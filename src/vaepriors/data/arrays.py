"""Arrays of a user's `.npy` or `.npz`, checked by their headers before they are unpacked.

A header has the shape and the type. An array of another kind, or of more than half of the available memory, is refused
before it is read. Pickled objects are never read.
"""

import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from vaepriors.limits import REMEDY, in_words, memory_limit

SPLITS = ("train", "valid", "test")
SPELLINGS = {"training": "train", "val": "valid", "validation": "valid", "dev": "valid", "testing": "test"}
EXTRAS = ("labels", "covariates")  # of the points of a split, as train_labels


class Header(NamedTuple):
    """What the header of an array says, and where its numbers start."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool = False
    offset: int = 0

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype} {short(self.shape)}"


class _Member(NamedTuple):
    """An array in a file: how to open it, and its size in bytes."""

    open: Callable[[], IO[bytes]]
    size: int


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a `.npz` by name, or that of a `.npy` as `train`: of one numeric type and 2 to 4 dimensions.

    Those of labels and covariates, such as `train_labels`, have a row for each point, and a type of their own.
    """
    if not is_packed(path):
        return _read_members(path, {"train": _Member(lambda: path.open("rb"), path.stat().st_size)})
    with refusing_damage(path):
        archive = zipfile.ZipFile(path)
    with archive:
        return _read_members(path, _members(path, archive))


def is_packed(path: Path) -> bool:
    """Whether a file holds several arrays, as a `.npz` does."""
    check_file(path)
    with refusing_damage(path), path.open("rb") as file:
        return file.read(2) == b"PK"


def header_of(path: Path) -> Header:
    """The header of a `.npy`, compared with the size of the file."""
    check_file(path)
    with refusing_damage(path):
        size = path.stat().st_size
    return _header(path, _Member(lambda: path.open("rb"), size))


def _read_members(path: Path, members: dict[str, _Member]) -> dict[str, np.ndarray]:
    headers = {name: _header(path, member) for name, member in members.items()}
    check_headers(path, headers)
    check_limit(path, headers)
    arrays = {}
    for name, member in members.items():
        with refusing_damage(path), member.open() as file:
            arrays[name] = npy.read_array(file, allow_pickle=False)
    return arrays


def check_file(path: Path) -> None:
    """Refuse what is not a regular file, without opening it: opening a FIFO would wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{path} does not exist: give the path of a data file") from error
    except (OSError, ValueError) as error:  # a loop of links, a folder without permission, a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} cannot be opened ({reason}): give the path of a readable file") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ValueError(f"{path} is {kind}: give the path of a data file")


PLAIN = (
    "it is cut short or holds pickled objects, which are refused because they may run code; save plain numeric arrays "
    "with numpy.save or numpy.savez"
)


@contextmanager
def refusing_damage(path: Path, remedy: str = PLAIN) -> Iterator[None]:
    """Name the file and a remedy, whatever its reader raises: damage makes it nearly anything."""
    try:
        yield
    except PermissionError as error:
        raise ValueError(f"{path} cannot be opened ({error.strerror}): give yourself the permission to read") from error
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):  # a sentence already
            raise
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(f"{path} cannot be read ({short(reason.rstrip('.'), 300)}): {remedy}") from error


def short(text: object, most: int = 150) -> str:
    """Text from a file, cut to fit into a sentence."""
    words = str(text)
    return words if len(words) <= most else f"{words[:most]}..."


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, _Member]:
    members = {}
    remedy = "write the file with numpy.savez or numpy.savez_compressed"
    for info in archive.infolist():
        name, member = info.filename.removesuffix(".npy"), short(repr(info.filename))
        if name == info.filename:
            raise ValueError(f"{path} holds {member}, which is not an array: {remedy}")
        if name in members:
            raise ValueError(f"{path} holds {member} twice: {remedy}")
        if info.flag_bits & 1:
            raise ValueError(f"{path} holds {member} encrypted: {remedy}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{path} holds {member} compressed by method {info.compress_type}: {remedy}")
        members[name] = _Member(lambda info=info: archive.open(info), info.file_size)  # type: ignore[misc]
    return members


def _header(path: Path, member: _Member) -> Header:
    with refusing_damage(path), member.open() as file:
        version = npy.read_magic(file)
        if version > (2, 0):  # later ones are for names of fields
            raise ValueError(f"version {version[0]} of the format is not for plain arrays")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        header = Header(shape, dtype, fortran, file.tell())
        available = member.size - header.offset
        if dtype.hasobject:
            raise ValueError("an array of objects")
        if min(shape, default=0) < 0 or header.numel * dtype.itemsize > available:
            raise ValueError(f"its header announces {header}, but {available} bytes follow")
    return header


def check_spelling(path: Path, names: Iterable[str]) -> None:
    """Refuse names of splits in another spelling, such as Train and val, which would be classes or parts of one array.

    One such name alone may be that of a class.
    """
    plain = {name: name.lower().removeprefix("x_") for name in names}
    meant = {name: SPELLINGS.get(word, word) for name, word in plain.items()}
    names = [name for name, split in meant.items() if split in SPLITS]
    if len(names) > 1 and any(name != meant[name] for name in names):
        raise ValueError(
            f"{path} holds {', '.join(names)}: name the splits train, valid and test, or, if they are none, rename them"
        )


def check_headers(path: Path, headers: Mapping[str, Header]) -> None:
    """Refuse arrays whose names, shapes or types are not those of a data set."""
    extras = {name: header for name, header in headers.items() if name.partition("_")[2] in EXTRAS}
    headers = {name: header for name, header in headers.items() if name not in extras}
    _check_points(path, headers)
    for kind in EXTRAS:
        _check_extras(path, kind, headers, {name: each for name, each in extras.items() if name.endswith(f"_{kind}")})


def _check_extras(path: Path, kind: str, points: dict[str, Header], extras: dict[str, Header]) -> None:
    """Compare the arrays of labels or covariates, if there are any, with those of the points."""
    needed = {f"{split}_{kind}": header for split, header in points.items()}
    if extras and extras.keys() != needed.keys():
        raise ValueError(
            f"{path} holds the {kind} {', '.join(sorted(extras))}: give {', '.join(needed)}, or none of them"
        )
    for name, header in extras.items():
        if len(header.shape) not in (1, 2) or header.dtype.kind not in "biuf":
            raise ValueError(f"{path} holds {name} of {header}: store a number, or a row of numbers, for each point")
        if header.shape[0] != needed[name].shape[0]:
            split = name.removesuffix(f"_{kind}")
            raise ValueError(
                f"{path} holds {header.shape[0]} {name} for {needed[name].shape[0]} points of {split}: one each is "
                "needed"
            )


def _check_points(path: Path, headers: dict[str, Header]) -> None:
    if set(headers) not in ({"train"}, {"train", "test"}, set(SPLITS)):
        raise ValueError(
            f"{path} holds the arrays {short(sorted(headers))}: name them train, valid and test, or give train alone "
            "to have it split 0.8 / 0.1 / 0.1, or train and test to have valid split from train"
        )
    shapes_and_types = {name: str(header) for name, header in headers.items()}
    if len({header.dtype for header in headers.values()}) > 1:
        raise ValueError(f"{path} mixes types, {shapes_and_types}: store all arrays with one")
    if any(len(header.shape) not in (2, 3, 4) for header in headers.values()):
        raise ValueError(f"{path} holds {shapes_and_types}: vectors are (N, D), images (N, H, W) or (N, C, H, W)")
    for name, header in headers.items():
        if (event := header.shape[1:]) != (other := headers["train"].shape[1:]):
            raise ValueError(f"{path}: {name} has event shape {event}, train has {other}: all splits need the same")
    if headers["train"].dtype.kind not in "biuf":
        raise ValueError(f"{path} holds {headers['train'].dtype}: store real numbers, for example float32")


def needed_memory(headers: Mapping[str, Header]) -> int:
    """Bytes of arrays as stored and as float32."""
    return sum(header.numel * (header.dtype.itemsize + 4) for header in headers.values())


def array_limit() -> float:
    """The most bytes that all arrays together may take: half of the available memory, or as the user sets it."""
    return memory_limit(0.5)


def check_limit(path: Path, headers: Mapping[str, Header]) -> None:
    """Refuse arrays that do not fit into memory."""
    size, limit = needed_memory(headers), array_limit()
    if size > limit:
        shapes = ", ".join(f"{name} {header}" for name, header in headers.items())
        raise ValueError(
            f"{path} announces {shapes}, which take {in_words(size)} of memory as stored and as float32, more than the "
            f"limit of {in_words(limit)}: store less, raise the limit ({REMEDY}), or store .npy files, which "
            "can be read from disk (--stream auto)"
        )
