"""A user's table as a data set: kinds of columns, the split, and the likelihood.

The likelihood `auto` is `gaussian`, `negative_binomial`, `bernoulli` or `categorical` where all columns are real,
counts, bits or categories, and no cell is missing; otherwise it is `mixed`. Rows are split 0.8 / 0.1 / 0.1 by seed,
unless a column of the kind `split` says train, valid or test; without valid, a tenth of train becomes valid by seed.
Rows that are split by seed stay in train with a category or class that no other training row has.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaepriors.data.arrays import SPLITS
from vaepriors.data.columns import (
    OUTSIDE,
    are_plain,
    encode,
    guess_kind,
    is_index,
    listed,
    numbers_of,
    parse_columns,
    texts_of,
    wholes_of,
)
from vaepriors.data.conditions import WITH_LABELS, check_covariates, check_labels, condition_on, y_of
from vaepriors.data.dataset import LIKELIHOODS, Dataset
from vaepriors.data.doubts import doubtful_split
from vaepriors.data.draws import keep_known, shuffled_split
from vaepriors.data.examples import Examples
from vaepriors.data.frames import Frame, keeping_zeros, read_frame
from vaepriors.data.table_doubts import doubts_of
from vaepriors.networks.mixed import Column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load", "read_rows"]

KIND_OF = {  # of all columns, by likelihood
    "gaussian": "real",
    "student": "real",
    "poisson": "count",
    "negative_binomial": "count",
    "multinomial": "count",
    "bernoulli": "bit",
    "categorical": "category",
}
AUTO = {"real": "gaussian", "count": "negative_binomial", "bit": "bernoulli", "category": "categorical"}


def load(
    path: Path,
    seed: int = 0,
    likelihood: str = "auto",
    *,
    condition: str | None = None,
    standardize: bool = True,
    columns: str | None = None,
    layer: str | None = None,
) -> Dataset:
    """Load a user's `.csv`, `.parquet`, `.h5ad` or arrays `(N, D)` as a table, with the arguments of `data.load`."""
    frame, given, kinds = _read(path, layer, columns, likelihood)
    coded = [name for name, kind in kinds.items() if kind == "category"]
    if condition in WITH_LABELS:
        coded += [name for name, kind in given.items() if kind == "label"]
    rows, moved = _split(path, frame, given, coded, seed)
    (train, valid, test), table = rows.values(), frame.table
    chosen = [_column(table, name, kind, train.numpy()) for name, kind in kinds.items() if kind not in OUTSIDE]
    if not chosen:
        raise ValueError(f"{path} has no column left: leave out fewer in --columns")
    x = encode(path, table, chosen)
    if likelihood == "auto":
        likelihood = _likelihood(chosen, bool(x.isnan().any()))
    _check_missing(path, x.isnan().numpy(), chosen, train.numpy(), likelihood)
    scaled = standardize and (likelihood == "mixed" or LIKELIHOODS[likelihood].real)
    left_out = ", ".join(f"{name} ({kind})" for name, kind in kinds.items() if kind in OUTSIDE)
    dataset = Dataset(
        path.name,
        x[train],
        x[valid],
        x[test],
        likelihood,
        stored=f"{path.suffix[1:]} without {left_out}" if left_out else path.suffix[1:],
        doubts=(*doubtful_split(moved), *doubts_of(path, table, chosen, x.numpy(), train.numpy(), given)),
        standardize=scaled,
        columns=tuple(chosen),
        reader=partial(_read_examples, columns=columns, layer=layer),
        **_beside(path, frame, given, rows),
    )
    return dataset if condition is None else condition_on(dataset, condition, rows)


def _read(
    path: Path, layer: str | None, columns: str | None, likelihood: str
) -> tuple[Frame, dict[str, str], dict[str, str]]:
    """The table, the kinds that are given, and those of all its columns."""
    frame = read_frame(path, layer)
    given = _roles(frame, columns)
    _check_given(path, frame, given)
    frame = frame.taking(name for name, kind in given.items() if kind == "size")
    kinds = _kinds(path, frame, given, likelihood)
    frame = keeping_zeros(path, frame, [name for name, kind in kinds.items() if kind in ("category", "label")])
    return frame, given, kinds


def _roles(frame: Frame, columns: str | None) -> dict[str, str]:
    """The kinds that the file or the user sets."""
    return {**frame.roles, **({} if columns is None else parse_columns(columns))}


def read_rows(
    dataset: Dataset, path: Path, columns: str | None = None, layer: str | None = None
) -> tuple[Frame, Examples]:
    """Another table with the columns of a data set, and its rows as points of the data set.

    Args:
        dataset: The data set, which knows columns and classes.
        path: The table. It may have more columns, and needs no split.
        columns, layer: Those that the data set was loaded with.
    """
    frame = read_frame(path, layer if path.suffix.lower() == ".h5ad" else None, _text_columns(dataset, columns))
    frame = frame.taking(column.name for column in dataset.columns)
    x = encode(path, frame.table, dataset.columns)
    _check_complete_rows(path, x.isnan().numpy(), dataset.columns, dataset.likelihood)
    return frame, Examples(x, _conditions(path, frame, dataset, columns) if dataset.conditions else None)


def _text_columns(dataset: Dataset, columns: str | None) -> list[str]:
    """Columns of categories or classes of which some are no numbers: there, 012 and 12 differ."""
    labels = [name for name, kind in parse_columns(columns).items() if kind == "label"] if columns else []
    named = any(isinstance(each, str) for each in dataset.classes)
    return [each.name for each in dataset.columns if not are_plain(each.categories)] + labels * named


def _read_examples(dataset: Dataset, path: Path, columns: str | None, layer: str | None) -> Examples:
    return read_rows(dataset, path, columns, layer)[1]


def _conditions(path: Path, frame: Frame, dataset: Dataset, columns: str | None) -> torch.Tensor:
    """The y of each row of a table, of shape `(N, c)`."""
    number = dataset.conditions["train"].shape[-1] - len(dataset.classes)
    needed = ["label"] * bool(dataset.classes) + ["covariate"] * bool(number)
    given = {name: kind for name, kind in _roles(frame, columns).items() if kind in needed}
    _check_given(path, frame, given)
    labels, where = None, ""
    for name in (name for name, kind in given.items() if kind == "label"):
        _check_complete(path, name, _cells(frame, name))
        labels, where = texts_of(_cells(frame, name)).tolist(), f" of the column {name}"
    covariates = [_numbers(path, name, _cells(frame, name)) for name, kind in given.items() if kind == "covariate"]
    return y_of(path, dataset, labels, torch.stack(covariates, 1) if covariates else None, where)


def _beside(path: Path, frame: Frame, given: dict[str, str], rows: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Labels, with the names of those that are texts, and covariates of each split, from the columns of these kinds."""
    beside: dict[str, Any] = {}
    names = {role: [name for name, kind in given.items() if kind == role] for role in ("label", "covariate")}
    for name in names["label"]:
        labels, beside["label_names"] = _labels(path, name, _cells(frame, name))
        beside["labels"] = {split: labels[of] for split, of in rows.items()}
    if names["covariate"]:
        columns = [_numbers(path, name, _cells(frame, name)) for name in names["covariate"]]
        beside["covariates"] = {split: torch.stack(columns, 1)[of] for split, of in rows.items()}
    return beside


def _labels(path: Path, name: str, cells: "pd.Series") -> tuple[torch.Tensor, tuple[str, ...]]:
    """Whole numbers as they are; of texts, the place of each among all in their order, and all."""
    _check_complete(path, name, cells)
    numbers = wholes_of(cells)
    if numbers is None:
        texts, places = np.unique(texts_of(cells).astype(str), return_inverse=True)
        return torch.from_numpy(places).long(), tuple(texts.tolist())
    labels = torch.from_numpy(numbers)
    check_labels(f"{path}: the column {name}", labels)
    return labels.long(), ()


def _numbers(path: Path, name: str, cells: "pd.Series") -> torch.Tensor:
    _check_complete(path, name, cells)
    numbers = numbers_of(cells)
    if numbers is None:
        raise ValueError(f"{path} holds texts in the column {name}, which is covariate: set it as label or drop")
    covariates = torch.from_numpy(numbers).float()
    check_covariates(f"{path}: the column {name}", covariates[:, None])
    return covariates


def _check_complete(path: Path, name: str, cells: "pd.Series") -> None:
    if cells.isna().any():
        row = int(cells.isna().to_numpy().argmax())
        raise ValueError(f"{path} misses the cell in row {row} of the column {name}, which is a condition: fill it")


def _cells(frame: Frame, name: str) -> "pd.Series":
    """A column of the table, or of those beside it."""
    source = frame.table if name in frame.table.columns else frame.other
    assert source is not None
    return source[name]


def _check_given(path: Path, frame: Frame, given: dict[str, str]) -> None:
    """Refuse a column that the table does not have; one beside it can only be the size or outside of the model."""
    beside = [] if frame.other is None else [str(name) for name in frame.other.columns]
    for name, kind in given.items():
        if name in frame.table.columns and name in beside and kind in (*OUTSIDE, "size"):
            raise ValueError(f"{path} has {name} among its variables and in obs: rename one to set it as {kind}")
        if name not in frame.table.columns and not (kind in (*OUTSIDE, "size") and name in beside):
            known = listed([*frame.table.columns, *beside])
            raise ValueError(f"{path} has no column {name}, which columns names as {kind}: it has {known}")
    labels = [name for name, kind in given.items() if kind == "label"]
    if len(labels) > 1:
        raise ValueError(f"{path} has several labels, {listed(labels)}: set all but one as drop")


def _kinds(path: Path, frame: Frame, given: dict[str, str], likelihood: str) -> dict[str, str]:
    """The kind of each column of the table: as given, as the likelihood needs it, or guessed."""
    if likelihood not in ("auto", "mixed", *KIND_OF):
        raise ValueError(f"{path} is a table, but the likelihood {likelihood} is for images: choose mixed or auto")
    needed = KIND_OF.get(likelihood)
    kinds = {}
    for name in map(str, frame.table.columns):
        kind = given.get(name) or ("drop" if is_index(name) else needed or frame.kind)
        kind = kind or guess_kind(path, name, frame.table[name])
        if needed and kind not in (needed, *OUTSIDE):
            raise ValueError(
                f"columns has {name} as {kind}, but the likelihood {likelihood} takes columns of the kind {needed}: "
                "choose the likelihood mixed, or leave one out"
            )
        kinds[name] = kind
    sizes = [name for name, kind in kinds.items() if kind == "size"]
    if sizes and "count" not in kinds.values():
        raise ValueError(f"columns has {sizes[0]} as size, which multiplies the means of counts: set columns as count")
    return kinds


def _split(
    path: Path, frame: Frame, given: dict[str, str], coded: Sequence[str], seed: int
) -> tuple[dict[str, torch.Tensor], int]:
    """The rows of each split; of a random one, how many were moved for their category or class in the coded columns."""
    number, name = len(frame.table), next((name for name, kind in given.items() if kind == "split"), None)
    fold = frame.fold if name is None else texts_of(_cells(frame, name))
    if fold is None:
        splits, drawn = list(shuffled_split(number, number // 10, number // 10, seed)), 3
    else:
        splits, drawn = _stored_split(path, fold, name, seed)
    kept = keep_known(_unknown(frame, coded, splits[0]), *splits[:drawn])
    return dict(zip(SPLITS, (*kept, *splits[drawn:]), strict=True)), len(kept[0]) - len(splits[0])


def _unknown(frame: Frame, coded: Sequence[str], train: torch.Tensor) -> torch.Tensor:
    """Which rows have a cell in these columns that no training row has."""
    unknown = np.zeros(len(frame.table), bool)
    for name in coded:
        cells = _cells(frame, name)
        _, codes = np.unique(texts_of(cells).astype(str), return_inverse=True)
        unknown |= ~np.isin(codes, codes[train]) & cells.notna().to_numpy()
    return torch.from_numpy(unknown)


def _stored_split(path: Path, fold: np.ndarray, name: str | None, seed: int) -> tuple[list[torch.Tensor], int]:
    """The rows of train, valid and test by the column of the split, and how many of these have rows of its train."""
    strange = [row for row, each in enumerate(fold) if each not in SPLITS]
    if strange:
        raise ValueError(
            f"{path} holds {str(fold[strange[0]])[:80]} in row {strange[0]} of the column {name}, which is the split: "
            "write train, valid or test"
        )
    train, valid, test = (torch.from_numpy(np.flatnonzero(fold == each)) for each in SPLITS)
    drawn = 1 if len(valid) else 2
    if not len(valid):
        first, second, _ = shuffled_split(len(train), len(train) // 10, 0, seed)
        train, valid = train[first], train[second]
    for each, rows in zip(SPLITS, (train, valid, test), strict=True):
        if not len(rows):
            raise ValueError(f"{path} has no row for {each} by the column {name}: every split needs at least one")
    return [train, valid, test], drawn


def _column(table: "pd.DataFrame", name: str, kind: str, train: np.ndarray) -> Column:
    if kind != "category":
        return Column(name, kind)
    cells = table[name].iloc[train]
    texts = {text for text in texts_of(cells) if text is not None}
    return Column(
        name, kind, tuple(sorted(sorted(texts), key=float) if numbers_of(cells) is not None else sorted(texts))
    )


def _likelihood(columns: list[Column], missing: bool) -> str:
    kinds = {column.kind for column in columns}
    return AUTO.get(kinds.pop(), "mixed") if len(kinds) == 1 and not missing else "mixed"


def _check_missing(path: Path, missing: np.ndarray, columns: list[Column], train: np.ndarray, likelihood: str) -> None:
    empty = np.flatnonzero(missing[train].all(0))
    if len(empty):
        name = columns[empty[0]].name
        raise ValueError(f"{path} has no value in the training rows of the column {name}: set --columns {name}=drop")
    _check_complete_rows(path, missing, columns, likelihood)


def _check_complete_rows(path: Path, missing: np.ndarray, columns: Sequence[Column], likelihood: str) -> None:
    if likelihood != "mixed" and missing.any():
        row, place = np.argwhere(missing)[0]
        raise ValueError(
            f"{path} misses the cell in row {row} of the column {columns[place].name}, but the likelihood {likelihood} "
            "needs all: choose the likelihood mixed, or fill it"
        )
