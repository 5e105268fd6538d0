"""How a custom file stores points: its values, their conversion, and labels and covariates beside them.

How stored numbers become points is decided by the values of the training data (see `vaepriors.data.own`). Another file
is converted in the same way, whatever its own values suggest, and refused where they do not fit:

    training data                     another file
    0 and 1, or 0 and 255             the same
    probabilities, or levels 0..255   the same
    256 gray levels                   the same: levels, level / 255, or (level + 0.5) / 256
    anything else                     what the likelihood takes

The files of a set of the catalogue have formats of their own: for these, each way to store what the likelihood takes is
tried.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.arrays import EXTRAS, SPLITS
from vaepriors.data.checks import in_words
from vaepriors.data.conditions import check_covariates, check_labels
from vaepriors.data.dataset import LIKELIHOODS, Dataset
from vaepriors.data.rows import Convert, middles, middles_of_middles, middles_of_shares, shares, unchanged
from vaepriors.data.shards import Arrays, Shards, headers_of
from vaepriors.data.survey import Block, Facts, survey, survey_files

__all__ = ["WAYS", "Stored", "conversion_of", "extras_of", "survey_arrays"]

ROWS = 10_000  # checked at a time


class Values(NamedTuple):
    """The values that a way to store points takes, in words, and whether those of a file are such."""

    words: str
    hold: Callable[[Facts], bool]


WAYS: dict[str, dict[Convert, Values]] = {  # of likelihoods whose data are converted by what the values look like
    "bernoulli": {
        unchanged: Values("probabilities in [0, 1]", lambda facts: facts.unit),
        shares: Values("levels 0..255", lambda facts: facts.levels),
    },
    "logistic256": {
        middles: Values("levels 0..255", lambda facts: facts.levels),
        middles_of_shares: Values("level / 255", lambda facts: facts.unit and facts.over_255),
        middles_of_middles: Values("(level + 0.5) / 256", lambda facts: facts.unit and facts.over_256),
    },
}
BITS: dict[Convert, Values] = {  # of a likelihood that is not dynamic
    unchanged: Values("0 and 1", lambda facts: facts.binary),
    shares: Values("0 and 255", lambda facts: facts.ends),
}


class Stored(NamedTuple):
    """How a custom file stores training data.

    Attributes:
        convert: How its numbers became points.
        dtype: Their type.
        channels_last: Whether images are (H, W, C).
        image_size: What the images of a folder were scaled to; None if they were not.
    """

    convert: Convert
    dtype: np.dtype
    channels_last: bool = False
    image_size: int | None = None


def survey_arrays(path: Path, arrays: Arrays, likelihood: str) -> Facts:
    """Facts about the values of arrays; what a likelihood of whole numbers does not take is refused."""
    look = partial(_check_stored, path, likelihood)
    in_files = {name: each for name, each in arrays.items() if isinstance(each, Shards)}
    if in_files:
        return survey_files(in_files, likelihood, look)
    blocks = {name: _blocks_of(name, x) for name, x in arrays.items() if isinstance(x, np.ndarray)}
    return survey(blocks, headers_of(arrays), likelihood, look)


def _blocks_of(name: str, array: np.ndarray) -> Iterator[Block]:
    return ((name, start, array[start : start + ROWS]) for start in range(0, len(array), ROWS))


def _check_stored(path: Path, likelihood: str, name: str, start: int, block: np.ndarray) -> None:
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


def conversion_of(path: Path, dataset: Dataset, dtype: np.dtype, facts: Facts, stored: Stored | None) -> Convert:
    """How the stored numbers of another file become points like those of a data set.

    All ways are tried unless it is known how the training data are stored. A file that fits none is refused.
    """
    ways: Iterable[Convert] = WAYS.get(dataset.likelihood, (unchanged,)) if stored is None else (stored.convert,)
    for way in ways:
        if _fits(way, dataset, dtype, None if stored is None else stored.dtype, facts):
            return way
    raise ValueError(
        f"{path} holds {dtype} from {facts.low:.6g} ({facts.low_at}) to {facts.high:.6g} ({facts.high_at}), but the "
        f"model was trained on {' or '.join(_values(way, dataset).words for way in ways)}: store the points like the "
        "data that it was trained on"
    )


def _fits(way: Convert, dataset: Dataset, dtype: np.dtype, trained: np.dtype | None, facts: Facts) -> bool:
    """Whether the values of a file can be converted in a way.

    0.0 and 1.0 may be levels or shares, so real numbers are levels only where those of the training data are.
    """
    if dataset.likelihood not in WAYS:
        return True
    real = dtype.kind == "f"
    if way in (shares, middles) and real != (trained is not None and trained.kind == "f"):
        return False
    if way in (middles_of_shares, middles_of_middles) and not real:
        return False
    return _values(way, dataset).hold(facts)


def _values(way: Convert, dataset: Dataset) -> Values:
    return BITS[way] if way in BITS and not dataset.dynamic else WAYS[dataset.likelihood][way]


def extras_of(path: Path, arrays: Arrays) -> dict[str, dict[str, Tensor]]:
    """Labels and covariates among the arrays, checked; by kind and by split."""
    extras: dict[str, dict[str, Tensor]] = {kind: {} for kind in EXTRAS}
    for split, kind in itertools.product(SPLITS, EXTRAS):
        array = arrays.get(f"{split}_{kind}")
        if array is not None:
            array = array.load() if isinstance(array, Shards) else array
            extras[kind][split] = _extra(f"{path}: {split}_{kind}", kind, array)
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
