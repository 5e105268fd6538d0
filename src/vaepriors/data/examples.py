"""Examples to encode or to evaluate: those of a split, or of another file that is read as the data of a model were.

How stored numbers become points is decided by the values of the training data (see `vaepriors.data.own`). Another file
is converted in the same way, whatever its own values suggest, and refused where they do not fit:

    training data                     another file
    0 and 1, or 0 and 255             the same
    probabilities, or levels 0..255   the same; they become bits once, with a seed that never changes
    256 gray levels                   the same: levels, level / 255, or (level + 0.5) / 256
    anything else                     what the likelihood takes

The files of a set of the catalogue have formats of their own: for these, each way to store what the likelihood takes is
tried.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.arrays import (
    EXTRAS,
    SPLITS,
    Header,
    array_limit,
    check_headers,
    is_packed,
    needed_memory,
    read_arrays,
)
from vaepriors.data.conditions import check_covariates, check_labels, one_hot
from vaepriors.data.dataset import LIKELIHOODS, Dataset, binarize_once, binarize_rows, check_known, in_words
from vaepriors.data.frames import SUFFIXES as TABLES
from vaepriors.data.rows import (
    Convert,
    Points,
    Streamed,
    as_tensor,
    middles,
    middles_of_middles,
    middles_of_shares,
    shares,
    unchanged,
)
from vaepriors.data.shards import Shards, find_shards
from vaepriors.data.survey import Block, Facts, survey, survey_files

__all__ = ["BinarizedOnce", "Examples", "blocks_of", "check_stored", "examples_of", "read_points", "take_extras"]

ROWS = 10_000  # checked at a time
WAYS: dict[str, tuple[Convert, ...]] = {  # of likelihoods whose data are converted by what the values look like
    "bernoulli": (unchanged, shares),
    "logistic256": (middles, middles_of_shares, middles_of_middles),
}
Arrays = Mapping[str, np.ndarray | Shards]


class Examples(NamedTuple):
    """Examples, and the y of each for a conditional model."""

    x: Points
    condition: Tensor | None = None


class BinarizedOnce:
    """Probabilities as the bits of `binarize_once`, of which only the selected rows are computed.

    >>> p = torch.rand(5, 3)
    >>> torch.equal(BinarizedOnce(p)[2:4], binarize_once(p)[2:4])
    True
    """

    def __init__(self, probabilities: Points) -> None:
        self.probabilities = probabilities

    @property
    def shape(self) -> torch.Size:
        return self.probabilities.shape

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        chosen = np.arange(len(self))[rows.numpy() if isinstance(rows, Tensor) else rows]
        bits = binarize_rows(self.probabilities[torch.from_numpy(chosen.reshape(-1))], chosen.reshape(-1))
        return bits if chosen.ndim else bits[0]


def examples_of(dataset: Dataset, split: str) -> Examples:
    """The examples of a split as an evaluation sees them: probabilities of the training set become bits once."""
    x = getattr(dataset, split)
    return Examples(BinarizedOnce(x) if split == "train" and dataset.dynamic else x, dataset.conditions.get(split))


def read_points(
    dataset: Dataset,
    path: Path,
    *,
    convert: Convert | None = None,
    dtype: np.dtype | None = None,
    channels_last: bool = False,
    limit: float | None = None,
) -> Examples:
    """The examples of a `.npy`, of a `.npz` with the array `train` alone, or of a folder of `.npy` files.

    Those that would take too much memory stay on disk, as training points do.

    Args:
        dataset: What they are read like.
        path: The file or folder.
        convert: How the stored numbers of the training data became points; all ways are tried unless given.
        dtype: The type of the stored training data.
        channels_last: Whether these have images as (H, W, C).
        limit: The most bytes in memory, as in `vaepriors.data.own.load`.

    Raises:
        ValueError: If it cannot be read, has another event shape, other values, or not the conditions of the model.
    """
    arrays = _open(path, limit)
    extras = take_extras(path, {name: _loaded(each) for name, each in arrays.items() if name not in SPLITS})
    stored = _the_points(path, arrays)
    header = stored.header if isinstance(stored, Shards) else Header(stored.shape, stored.dtype)
    facts = _survey(path, stored, header, dataset.likelihood)
    ways = WAYS.get(dataset.likelihood, (unchanged,)) if convert is None else (convert,)
    fitting = [way for way in ways if _fits(way, dataset, header.dtype, dtype, facts)]
    if not fitting:
        raise _refused(path, header.dtype, facts, [_in_words(way, dataset) for way in ways])
    if isinstance(stored, Shards):
        x: Points = Streamed(stored, fitting[0], channels_last=channels_last)
    else:
        x = fitting[0](as_tensor(stored, channels_last))
    if x.shape[1:] != dataset.event_shape:
        raise ValueError(
            f"{path} has points of shape {tuple(x.shape[1:])}, but the model is of {tuple(dataset.event_shape)}: store "
            "them like the data that it was trained on"
        )
    if dataset.family.known is not None:
        check_known(str(path), x[:], dataset.train, dataset.family)
    if dataset.dynamic:
        x = binarize_once(x) if isinstance(x, Tensor) else BinarizedOnce(x)
    return Examples(x, _conditions(path, dataset, {name: each["train"] for name, each in extras.items() if each}))


def _open(path: Path, limit: float | None) -> Arrays:
    """The arrays of a file or folder, large points as files."""
    if path.suffix.lower() in TABLES:
        raise ValueError(f"{path} is a table, but the model was trained on arrays: give a .npy, a .npz, or a folder")
    if not os.path.isdir(path) and is_packed(path):
        return read_arrays(path, limit)
    shards = find_shards(path)
    headers = {name: each.header for name, each in shards.items()}
    check_headers(path, headers)
    if needed_memory(headers) <= array_limit(limit):
        return {name: each.load() for name, each in shards.items()}
    for each in shards.values():
        each.check_order()
    return shards


def _loaded(array: np.ndarray | Shards) -> np.ndarray:
    return array.load() if isinstance(array, Shards) else array


def _the_points(path: Path, arrays: Arrays) -> np.ndarray | Shards:
    names = [name for name in SPLITS if name in arrays]
    if names != ["train"]:
        raise ValueError(f"{path} holds the arrays {', '.join(names)}: save the one that is meant as a .npy")
    points = arrays["train"]
    if not len(points):
        raise ValueError(f"{path} is empty: give at least one point")
    return points


def take_extras(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, dict[str, Tensor]]:
    """Take labels and covariates out of the arrays, checked; by kind and by split."""
    extras = {}
    for kind in EXTRAS:
        taken = {split: arrays.pop(f"{split}_{kind}") for split in SPLITS if f"{split}_{kind}" in arrays}
        extras[kind] = {split: _extra(f"{path}: {split}_{kind}", kind, array) for split, array in taken.items()}
    return extras


def _extra(what: str, kind: str, array: np.ndarray) -> Tensor:
    if kind == "labels":
        labels = torch.from_numpy(array.astype(np.float64 if array.dtype.kind == "f" else np.int64))
        check_labels(what, labels)
        return labels.long()
    covariates = torch.from_numpy(array.astype(np.float32))
    covariates = covariates[:, None] if covariates.dim() == 1 else covariates
    check_covariates(what, covariates)
    return covariates


def _survey(path: Path, stored: np.ndarray | Shards, header: Header, likelihood: str) -> Facts:
    """What the values are, without NaN, infinity, and what a likelihood of whole numbers does not take."""
    look = partial(check_stored, path, likelihood)
    if isinstance(stored, Shards):
        facts = survey_files({"train": stored}, likelihood, look)
    else:
        facts = survey({"train": blocks_of("train", stored)}, {"train": header}, likelihood, look)
    if facts.bad_at:
        raise ValueError(f"{path} holds NaN or infinity in {facts.bad_at}: remove or repair it")
    return facts


def blocks_of(name: str, array: np.ndarray) -> Iterator[Block]:
    """Some rows of an array at a time, for `survey`."""
    return ((name, start, array[start : start + ROWS]) for start in range(0, len(array), ROWS))


def check_stored(path: Path, likelihood: str, name: str, start: int, block: np.ndarray) -> None:
    """Refuse what the likelihood of whole numbers does not take, where the file has it and before it is rounded."""
    entry = LIKELIHOODS.get(likelihood)
    if entry is None or likelihood in WAYS or not entry.discrete:  # checked after the conversion
        return
    x = torch.from_numpy(np.ascontiguousarray(block, np.float64))
    bad = (~entry.contains(x)).nonzero()
    if len(bad):
        row, *place = bad[0].tolist()
        raise ValueError(
            f"{path} holds {x[row, *place].item():.10g} in {in_words(start + row, place)} of {name}, but the "
            f"likelihood {likelihood} takes {entry.support}"
        )


def _fits(way: Convert, dataset: Dataset, dtype: np.dtype, trained: np.dtype | None, facts: Facts) -> bool:
    """Whether the values of a file can be converted in a way.

    Whole numbers from 0 to 1 can be levels or shares. Those of a type of whole numbers are levels, and those of another
    type where the training data, if their type is known, are levels of such a type.
    """
    if dataset.likelihood not in WAYS:
        return True
    real = dtype.kind == "f"
    same = not (real and facts.unit) if trained is None else real == (trained.kind == "f")
    if way is unchanged:
        return facts.unit if dataset.dynamic else facts.binary
    if way is shares:
        return same and (facts.levels if dataset.dynamic else facts.ends)
    if way is middles:
        return same and facts.levels
    return real and facts.unit and (facts.over_255 if way is middles_of_shares else facts.over_256)


def _in_words(way: Convert, dataset: Dataset) -> str:
    """What can be converted in a way."""
    if way is unchanged:
        return "probabilities in [0, 1]" if dataset.dynamic else "0 and 1"
    if way is shares and not dataset.dynamic:
        return "0 and 255"
    words: dict[Convert, str] = {middles_of_shares: "level / 255", middles_of_middles: "(level + 0.5) / 256"}
    return words.get(way, "levels 0..255")


def _refused(path: Path, dtype: np.dtype, facts: Facts, words: Sequence[str]) -> ValueError:
    return ValueError(
        f"{path} holds {dtype} from {facts.low:.6g} ({facts.low_at}) to {facts.high:.6g} ({facts.high_at}), but the "
        f"model was trained on {' or '.join(words)}: store the points like the data that it was trained on"
    )


def _conditions(path: Path, dataset: Dataset, extras: Mapping[str, Tensor]) -> Tensor | None:
    """The y of each point; None for a model without conditions."""
    if not dataset.conditions:
        return None
    number = dataset.conditions["train"].shape[-1] - len(dataset.classes)
    needed = [kind for kind, size in (("labels", len(dataset.classes)), ("covariates", number)) if size]
    for kind in needed:
        if kind not in extras:
            raise ValueError(
                f"{path} has no {kind}, but the model is given {dataset.given_in_words()}: store the points as train "
                f"and these as train_{kind}, in a .npz or a folder"
            )
    if number and extras["covariates"].shape[1] != number:
        raise ValueError(
            f"{path} has {extras['covariates'].shape[1]} covariates, but the model is given {number}: store them as in "
            "the data that it was trained on"
        )
    parts = [one_hot(path, extras["labels"].tolist(), dataset.classes)] if dataset.classes else []
    return torch.cat([*parts, extras["covariates"]] if number else parts, 1)
