"""Facts about the values of arrays, from one pass over them, a block at a time.

The pass over large files shows its progress, and its result is remembered in the cache as long as the files have the
same size and time. Files younger than two seconds are not remembered: they may change again within one tick of time.
"""

import dataclasses
import hashlib
import json
import math
import sys
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaepriors.checkpoint import write_json
from vaepriors.data import files
from vaepriors.data.arrays import Header
from vaepriors.data.shards import Shards
from vaepriors.reading import read_json

VERSION = 1  # of what is remembered
LARGEST_COUNT = 2**24
BAD = "NaN, infinity or a number beyond single precision"  # what `bad_at` is the place of
LARGE = 2**28  # bytes: the result of a pass over less is not remembered
YOUNG = 2.0  # seconds

Block = tuple[str, int, np.ndarray]  # a name for messages, the number of the first row under that name, and rows
Check = Callable[[str, int, np.ndarray], None]
Progress = Callable[[int, int], None]

_progress: ContextVar[Progress] = ContextVar("progress", default=lambda done, total: None)


@contextmanager
def reading_progress(progress: Progress) -> Iterator[None]:
    """Within this block, call `progress` with the MiB done and all while large files are checked or images are read."""
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


def report_progress(done: int, total: int) -> None:
    """Report bytes done and all to the block of `reading_progress`, if there is one."""
    _progress.get()(done >> 20, total >> 20)


@dataclass(frozen=True)
class Facts:
    """Facts about all values together."""

    low: float
    high: float
    low_at: str  # the first place of the smallest value, in words
    high_at: str
    bad_at: str  # the first row with NaN, infinity or a number beyond float32; empty if there is none
    finite: bool
    binary: bool  # 0 or 1
    ends: bool  # 0 or 255
    unit: bool  # in [0, 1]
    levels: bool  # whole, 0 to 255
    counts: bool  # whole, 0 to 2^24
    over_255: bool  # level / 255
    over_256: bool  # (level + 0.5) / 256
    mean: float
    deviation: float
    least: float  # smallest and largest standard deviation of the columns of a table that are not constant
    most: float
    sha256: dict[str, str]  # of each array: type, shape and stored numbers


_Form = typing.TypedDict("_Form", typing.get_type_hints(Facts))  # type: ignore[misc]  # of JSON


class Survey:
    """Collects the facts from blocks of values.

    Args:
        likelihood: The one that the user chose, or `auto`.
    """

    def __init__(self, likelihood: str) -> None:
        self.likelihood = likelihood
        self.low, self.high, self.low_at, self.high_at, self.bad_at = math.inf, -math.inf, "", "", ""
        self.holds = dict.fromkeys(("binary", "ends", "unit", "levels", "counts", "over_255", "over_256"), True)
        self.moments: _Moments | None = None

    def add(self, name: str, start: int, block: np.ndarray) -> None:
        if not block.size:
            return
        with np.errstate(all="ignore"):  # of NaN, and of numbers beyond float32
            if block.dtype.kind == "f":
                self._find_bad(name, start, block)
            self._extend(name, start, block)
            self._test(block)
            if self._needs_moments(block.dtype):
                self.moments = _Moments.of(block) if self.moments is None else self.moments.joined(_Moments.of(block))

    def _find_bad(self, name: str, start: int, block: np.ndarray) -> None:
        if not self.bad_at:
            good = np.isfinite(block.astype(np.float32)).reshape(len(block), -1).all(1)
            self.bad_at = "" if good.all() else f"row {start + int(good.argmin())} of {name}"

    def _extend(self, name: str, start: int, block: np.ndarray) -> None:
        size = block[0].size
        if (low := block.min()) < self.low:
            self.low, self.low_at = low.item(), f"row {start + int(block.argmin()) // size} of {name}"
        if (high := block.max()) > self.high:
            self.high, self.high_at = high.item(), f"row {start + int(block.argmax()) // size} of {name}"

    def _test(self, x: np.ndarray) -> None:
        tests: dict[str, Callable[[], Any]] = {
            "unit": lambda: (x >= 0) & (x <= 1),
            "binary": lambda: (x == 0) | (x == 1),
            "ends": lambda: (x == 0) | (x == 255),
            "levels": lambda: (x >= 0) & (x <= 255) & (x == np.floor(x)),
            "counts": lambda: (x >= 0) & (x <= LARGEST_COUNT) & (x == np.floor(x)),
            "over_255": lambda: np.abs(x * 255.0 - np.round(x * 255.0)) < 1e-3,  # 255 is no int8
            "over_256": lambda: np.abs(x * 256.0 % 1 - 0.5) < 1e-3,
        }
        if x.dtype == np.uint8 or x.dtype == np.bool_:  # the rest is true, or asked of numbers in [0, 1] only
            small = bool(x.max() <= 1)
            tests = {"unit": lambda: np.array(small), "binary": lambda: np.array(small), "ends": tests["ends"]}
        if not self.holds["unit"] or self.likelihood != "logistic256":
            tests = {name: test for name, test in tests.items() if name not in ("over_255", "over_256")}
        for name, test in tests.items():
            self.holds[name] = self.holds[name] and bool(test().all())

    def _needs_moments(self, dtype: np.dtype) -> bool:
        return self.likelihood in ("gaussian", "student") or (self.likelihood == "auto" and dtype.kind == "f")

    def facts(self, sha256: dict[str, str]) -> Facts:
        with np.errstate(all="ignore"):  # of NaN
            moments = (0.0, 0.0, 1.0, 1.0) if self.moments is None else self.moments.summary()
        finite = not self.bad_at and math.isfinite(self.low) and math.isfinite(self.high)
        values: dict[str, Any] = {"finite": finite, "sha256": sha256, **self.holds}
        values |= {name: getattr(self, name) for name in ("low", "high", "low_at", "high_at", "bad_at")}
        values |= zip(MOMENTS, moments, strict=True)
        return Facts(**values)


MOMENTS = ("mean", "deviation", "least", "most")


@dataclass
class _Moments:
    """Number of rows, and mean, sum of squared distances from it, and largest size of each column."""

    number: int
    mean: np.ndarray
    squares: np.ndarray
    largest: np.ndarray
    table: bool

    @classmethod
    def of(cls, block: np.ndarray) -> "_Moments":
        x = block.reshape(len(block), -1).astype(np.float64)
        mean = x.mean(0)
        return cls(len(x), mean, ((x - mean) ** 2).sum(0), np.abs(x).max(0), block.ndim == 2)

    def joined(self, other: "_Moments") -> "_Moments":
        """The moments of both (Chan, Golub & LeVeque 1979)."""
        number, apart = self.number + other.number, other.mean - self.mean
        mean = self.mean + apart * (other.number / number)
        squares = self.squares + other.squares + apart**2 * (self.number * other.number / number)
        return _Moments(number, mean, squares, np.maximum(self.largest, other.largest), self.table)

    def summary(self) -> tuple[float, float, float, float]:
        """`MOMENTS` of all values together."""
        variance = self.squares / self.number
        mean = self.mean.mean()
        deviation = math.sqrt((variance + (self.mean - mean) ** 2).mean())
        deviations = np.sqrt(variance)
        deviations = deviations[deviations > 1e-6 * self.largest]  # less is rounding
        if not self.table or not len(deviations):
            return float(mean), deviation, 1.0, 1.0
        return float(mean), deviation, float(deviations.min()), float(deviations.max())


def survey_files(
    splits: Mapping[str, Shards], likelihood: str, look: Check, cache: Path | None = None, least: int = LARGE
) -> Facts:
    """Look at every value in files once, or remember what a pass over the same files showed.

    Args:
        splits: The files of each split.
        likelihood, look: As for `survey`.
        cache: Where results are kept; the folder `surveys` of the cache of downloads unless given.
        least: The result of a pass over fewer bytes is not kept.
    """
    stamps = [(str(path.resolve()), *stamp) for each in splits.values() for path, stamp in each.stamped()]
    key = hashlib.sha256(json.dumps([VERSION, likelihood, list(splits), stamps]).encode()).hexdigest()
    path = (files.cache() / "surveys" if cache is None else cache) / f"{key}.json"
    large = sum(each.size for each in splits.values()) >= least
    if large and path.is_file():
        try:
            return Facts(**read_json(path, _Form, "delete it"))
        except ValueError as error:
            print(f"{error}: checking the data again", file=sys.stderr)
    old = time.time() - max(mtime for _, _, mtime in stamps) / 1e9 > YOUNG
    headers = {name: each.header for name, each in splits.items()}
    facts = survey({name: _named(each, name) for name, each in splits.items()}, headers, likelihood, look)
    if large and old:
        _remember(path, facts)
    return facts


def _named(shards: Shards, split: str) -> Iterator[Block]:
    single = len(shards.paths) == 1
    return ((split if single else path.name, start, block) for path, start, block in shards.blocks())


def _remember(path: Path, facts: Facts) -> None:
    if not facts.finite:  # refused, and no numbers of JSON
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dataclasses.asdict(facts))
    except OSError as error:
        print(f"the check of the data cannot be kept ({error}): it is repeated next time", file=sys.stderr)


def survey(arrays: Mapping[str, Iterable[Block]], headers: Mapping[str, Header], likelihood: str, look: Check) -> Facts:
    """Look at every value once.

    Args:
        arrays: The blocks of each array.
        headers: Type and shape of each array, which are part of its digest.
        likelihood: The one that the user chose, or `auto`.
        look: Called with each block; it may refuse it.
    """
    begun, sha256 = Survey(likelihood), {}
    total = sum(header.numel * header.dtype.itemsize for header in headers.values())
    done = 0
    with ThreadPoolExecutor(1) as pool:
        for split, blocks in arrays.items():
            digest = hashlib.sha256(f"{headers[split].dtype.str} {tuple(headers[split].shape)}".encode())
            hashing: Future[None] | None = None
            for name, start, block in blocks:
                if hashing is not None:
                    hashing.result()
                hashing = pool.submit(digest.update, np.ascontiguousarray(block).data.cast("B"))
                look(name, start, block)
                begun.add(name, start, block)
                done += block.nbytes
                if total > LARGE:
                    report_progress(done, total)
            if hashing is not None:
                hashing.result()
            sha256[split] = digest.hexdigest()
    return begun.facts(sha256)
