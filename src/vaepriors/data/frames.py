"""Tables of a user's `.csv`, `.parquet` or `.h5ad`, as data frames of pandas.

pandas and pyarrow are in the extra `tables`, anndata is in the extra `h5ad`. Of an `.h5ad`, the table is X or a layer,
its columns are the variables, and those of `obs` can be the split, a label, covariates or the size factor. A sparse
matrix becomes a dense one.
"""

import csv
import mmap
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vaepriors.data.arrays import EXTRAS, SPLITS, array_limit, check_file, read_arrays, refusing_damage, short
from vaepriors.limits import REMEDY, in_words

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES", "Frame", "as_written", "keeping_zeros", "padded", "read_frame"]

SUFFIXES = (".csv", ".parquet", ".h5ad")
EXACT = "numpy_nullable"  # the types of pandas in which whole numbers stay whole beside missing cells
CELL = 12  # bytes of a number, as read and as float32


class Frame(NamedTuple):
    """A table.

    Attributes:
        table: The columns that can be modelled.
        other: Columns that can be the split, a label, covariates or the size factor, of as many rows.
        kind: The kind of all columns, if it is known.
        fold: The split of each row, if the file has it.
        roles: What other columns are, as in `--columns`, if the file says so.
    """

    table: "pd.DataFrame"
    other: "pd.DataFrame | None" = None
    kind: str | None = None
    fold: np.ndarray | None = None
    roles: Mapping[str, str] = MappingProxyType({})

    def taking(self, names: Iterable[str]) -> "Frame":
        """The same with these columns in the table, if they are among the others."""
        beside = [] if self.other is None else [name for name in names if name in self.other.columns]
        beside = [name for name in beside if name not in self.table.columns]
        if self.other is None or not beside:
            return self
        return self._replace(table=self.table.assign(**{name: self.other[name] for name in beside}))


def read_frame(path: Path, layer: str | None = None, texts: Collection[str] = ()) -> Frame:
    """Read a table; of an `.h5ad` the layer, or X unless given; of a `.csv` the columns `texts` as texts.

    The columns of arrays `(N, D)` in a `.npy` or `.npz` are named 0, 1, ...; labels are beside the table.
    """
    check_file(path)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz") and layer is None:
        return _frame_of_arrays(path, read_arrays(path))
    if layer is not None and suffix != ".h5ad":
        raise ValueError(f"layer is {layer}, but {path} is not an .h5ad and has no layers: leave it out")
    if suffix == ".h5ad":
        frame = _read_h5ad(path, layer)
    else:
        frame = _read_parquet(path) if suffix == ".parquet" else Frame(_read_csv(path, texts))
    if not frame.table.shape[0] or not frame.table.shape[1]:
        rows, columns = frame.table.shape
        raise ValueError(f"{path} has {rows} rows and {columns} columns: give a table with at least one of each")
    return frame


def _frame_of_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Frame:
    pandas = _package("pandas", "tables", f"{path} as a table")
    splits = {name: arrays[name] for name in SPLITS if name in arrays}
    if any(x.ndim != 2 or x.shape[1] != arrays["train"].shape[1] for x in splits.values()):
        shapes = {name: x.shape for name, x in splits.items()}
        raise ValueError(f"{path} holds {shapes}: columns and the likelihood mixed are for tables, (N, D)")
    table = pandas.DataFrame(np.concatenate(list(splits.values())))
    table.columns = [str(place) for place in range(table.shape[1])]
    fold = np.repeat(list(splits), [len(x) for x in splits.values()]) if len(splits) > 1 else None
    beside = _columns_beside(path, arrays)
    other = pandas.DataFrame(beside) if beside else None
    return Frame(table, other, fold=fold, roles={name: name.partition("_")[0][:-1] for name in beside})


def _columns_beside(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns `labels` and `covariates`; of several covariates `covariates_0`, ..."""
    columns: dict[str, np.ndarray] = {}
    for kind in EXTRAS:
        parts = [arrays[f"{split}_{kind}"] for split in SPLITS if f"{split}_{kind}" in arrays]
        if kind == "labels" and any(part.ndim > 1 for part in parts):
            raise ValueError(f"{path} holds labels of shape {parts[0].shape}: labels are (N,), one for each point")
        values = list(np.concatenate([part.reshape(len(part), -1) for part in parts]).T) if parts else []
        columns |= {kind if len(values) == 1 else f"{kind}_{place}": each for place, each in enumerate(values)}
    return columns


def as_written(path: Path, table: "pd.DataFrame", names: Collection[str] | None = None) -> "pd.DataFrame":
    """The table with its cells as in the file: of a `.csv` as texts, of a `.parquet` with an index that has names.

    Of a `.csv`, other columns than `names` may be left out.
    """
    if path.suffix.lower() == ".parquet":
        return _parquet(path)[0]
    if path.suffix.lower() != ".csv":
        return table
    with _reading(path):
        return _package("pandas", "tables", path).read_csv(
            path, index_col=False, dtype=str, keep_default_na=False, encoding="utf-8-sig",
            usecols=None if names is None else lambda name: name in names,
        )  # fmt: skip


def keeping_zeros(path: Path, frame: Frame, names: Collection[str]) -> Frame:
    """The table with columns of codes as texts if the file has leading zeros in them: 012 is not the code 12."""
    texts = padded(path, frame.table, [name for name in names if name in frame.table.columns])
    return read_frame(path, texts=texts) if texts else frame


def padded(path: Path, table: "pd.DataFrame", names: Iterable[str]) -> list[str]:
    """Those columns of numbers that a `.csv` writes with leading zeros, such as 012."""
    numbers = [name for name in names if getattr(table[name].dtype, "kind", "O") in "iuf"]
    if not numbers or path.suffix.lower() != ".csv":
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if re.search(rb"[,\n\r\"']0[0-9]", content) is None:  # most files, at the cost of one search
            return []
    cells = as_written(path, table, numbers)
    return [name for name in numbers if cells[name].str.match(r"\s*0\d").any()]


def _package(name: str, extra: str, what: object) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"{what} needs {name}: install the extra, pip install 'vaepriors[{extra}]'") from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    remedy = f"write it again as {path.suffix}{' in UTF-8' if path.suffix.lower() == '.csv' else ''}"
    with refusing_damage(path, remedy), warnings.catch_warnings(action="ignore"):
        yield


def _check_size(path: Path, size: float) -> None:
    if size > (limit := array_limit()):
        raise ValueError(
            f"{path} needs about {in_words(size)} of memory as a table, more than the limit of {in_words(limit)}: "
            f"store less, or raise the limit ({REMEDY})"
        )


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, number in Counter(names).items() if number > 1 and name]
    if twice:
        raise ValueError(f"{path} has the column {short(twice[0])} {Counter(names)[twice[0]]} times: rename one")


def _read_csv(path: Path, texts: Collection[str]) -> "pd.DataFrame":
    pandas = _package("pandas", "tables", path)
    _check_size(path, CELL / 2 * path.stat().st_size)  # a cell takes at least two characters
    with _reading(path):
        _check_lines(path)
        return pandas.read_csv(
            path, index_col=False, low_memory=False, float_precision="round_trip", encoding="utf-8-sig",
            dtype=dict.fromkeys(texts, str), dtype_backend=EXACT,
        )  # fmt: skip


def _check_lines(path: Path) -> None:
    """Refuse a row of another length than the header: pandas would fill it up."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        names = next(lines, [])
        _check_names(path, names)
        if len(names) == 1 and (other := {";", "\t", "|"} & set(names[0])):
            raise ValueError(
                f"{path} has one column, {short(names[0])}: separate cells by commas, not by {other.pop()!r}"
            )
        for row, line in enumerate(each for each in lines if each):
            if len(line) != len(names):
                raise ValueError(
                    f"{path} has {len(line)} cells in row {row}, but {len(names)} columns: repair the row, or separate "
                    "cells by commas"
                )


def _read_parquet(path: Path) -> Frame:
    parquet = _package("pyarrow.parquet", "tables", path)
    with _reading(path):
        file = parquet.ParquetFile(path)
        rows, columns = file.metadata.num_rows, file.metadata.num_columns
        _check_names(path, file.schema_arrow.names)
    _check_size(path, CELL * rows * columns)
    table, index = _parquet(path)
    return Frame(table.drop(columns=index), table[index] if index else None)


def _parquet(path: Path) -> tuple["pd.DataFrame", list[str]]:
    """The table with its index as columns if it has names, and these names."""
    with _reading(path):
        table = _package("pandas", "tables", path).read_parquet(path, engine="pyarrow", dtype_backend=EXACT)
    named = any(name is not None for name in table.index.names)
    levels = table.index.nlevels if named else 0
    table = table.reset_index(drop=not named)
    table.columns = [str(name) for name in table.columns]
    return table, list(table.columns[:levels])


def _read_h5ad(path: Path, layer: str | None) -> Frame:
    pandas, anndata = _package("pandas", "h5ad", path), _package("anndata", "h5ad", path)
    with _reading(path):
        data = anndata.read_h5ad(path, backed="r")
    try:
        with _reading(path):
            if layer is not None and layer not in data.layers:
                raise ValueError(f"{path} has no layer {layer}: choose one of {short(list(data.layers)) or 'none'}")
            if layer is None and "X" not in data.file:
                raise ValueError(f"{path} has no X: choose a layer of {short(list(data.layers))}")
            names = [str(name) for name in data.var_names]
            _check_names(path, names)
            _check_size(path, CELL * data.n_obs * data.n_vars)
            matrix = data.X[:] if layer is None else data.layers[layer]
            x = np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)
            other = data.obs.reset_index(drop=True)
    finally:
        data.file.close()
    whole = x.dtype.kind in "biu" or bool((np.isfinite(x) & (x >= 0) & (x == np.floor(x))).all())
    return Frame(pandas.DataFrame(x, columns=names), other, "count" if whole else "real")
