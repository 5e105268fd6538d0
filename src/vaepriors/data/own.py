"""A user's own data: a `.npz` with an array `train`, with or without `test` and `valid`, a `.npy` with one array, or a
folder of `.npy` files (see `vaepriors.data.shards`) or of images (see `vaepriors.data.images`).

Arrays are (N, D) for vectors, (N, H, W), (N, C, H, W) or (N, H, W, C) for images, the last with one or three channels.
Beside them, a `.npz` or a folder may have `train_labels`, ... (whole numbers, one for each point) and
`train_covariates`, ... (real numbers), which a model may be given (see `vaepriors.data.conditions`).
One array alone is split 0.8 / 0.1 / 0.1 by seed; of `train` and `test`, a tenth of `train` becomes valid by seed. This
tenth is at most 10,000 points and half a GiB as float32, because valid and test are evaluated whole.
The likelihood `auto` follows from the values of all arrays together:

    every value 0 or 1       bernoulli
    uint8                    logistic256, x = (level + 0.5) / 256
    floats in [0, 1]         bernoulli, dynamic: probabilities; valid and test are binarised once with a fixed seed
    other floats             gaussian

Another one may be chosen: `poisson`, `negative_binomial` or `multinomial` for counts, `categorical` for codes 0, 1, ...
of categories, `student` for real numbers with outliers. For bernoulli, levels 0..255 are divided by 255: probabilities,
unless all are 0 or 255. For logistic256, values are levels, or stored as level / 255 or (level + 0.5) / 256. For all
others, values are taken unchanged.

Bytes stay bytes, and become numbers when they are selected. Training points of `.npy` files that are too large for the
memory stay on disk (see `vaepriors.data.rows`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.arrays import SPLITS, Header
from vaepriors.data.checks import check_known
from vaepriors.data.conditions import WITH_LABELS, condition_on
from vaepriors.data.dataset import LIKELIHOODS, Dataset
from vaepriors.data.doubts import doubtful_layout, doubtful_scales, doubtful_split, doubtful_values
from vaepriors.data.images import read_images
from vaepriors.data.other import read_points
from vaepriors.data.places import Places, held_out, knowing, placed, places_of
from vaepriors.data.rows import (
    Convert,
    Points,
    Rows,
    Streamed,
    is_bytes,
    middles,
    points_of,
    unchanged,
)
from vaepriors.data.shards import Arrays, Shards, headers_of, open_arrays
from vaepriors.data.stored import BITS, WAYS, Stored, extras_of, survey_arrays
from vaepriors.data.survey import BAD, Facts
from vaepriors.networks.likelihoods import Likelihood

Splits = tuple[Points, Tensor, Tensor]

CHANNELS = (1, 3)  # of an image whose channels come last


def load(
    path: Path,
    seed: int = 0,
    likelihood: str = "auto",
    *,
    condition: str | None = None,
    standardize: bool = True,
    stream: str = "auto",
) -> Dataset:
    """Load a user's `.npy` or `.npz`, or a folder of `.npy` files.

    The set's `doubts` say what may have been read wrongly. An array of four dimensions is `(N, H, W, C)` if its last
    size is 1 or 3 and its second is neither; otherwise it is `(N, C, H, W)`.

    Arguments are as for `vaepriors.data.load`.

    Raises:
        ValueError: If a file is missing, damaged, encrypted, pickled or too large, or its arrays have other names,
            shapes or types than above, or values that the likelihood does not take, or not what a model is to be given.
    """
    return _Source(path, seed, likelihood, standardize).load(open_arrays(path, stream), condition)


def load_images(
    path: Path, seed: int = 0, likelihood: str = "auto", *, condition: str | None = None, image_size: int | None = None
) -> Dataset:
    """Load a folder of images; labels are the classes of folders. Arguments and errors are those of `load`."""
    images = read_images(path, image_size)
    source = _Source(path, seed, likelihood, False, images.label_names, images.doubts, image_size)
    return source.load(images.arrays, condition)


class _Reading(NamedTuple):
    """How stored values become points x."""

    likelihood: str
    dynamic: bool
    convert: Convert
    channels_last: bool


@dataclass(frozen=True)
class _Source:
    """How a user's file or folder is read, from memory or from disk."""

    path: Path
    seed: int
    likelihood: str
    standardize: bool
    label_names: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    image_size: int | None = None

    def load(self, arrays: Arrays, condition: str | None) -> Dataset:
        """The data set of arrays. Training points of those in files stay there, and are the same as in memory."""
        stored = {name: each for name, each in arrays.items() if name in SPLITS}
        on_disk, entry = isinstance(stored["train"], Shards), LIKELIHOODS.get(self.likelihood)
        if on_disk and entry is not None and not entry.streams:  # `auto` never chooses such a likelihood
            raise ValueError(
                f"{self.path} is read from disk batch by batch, but the likelihood {self.likelihood} needs all "
                "training values at the start: choose --stream no, or another likelihood"
            )
        extras, headers = extras_of(self.path, arrays), headers_of(stored)
        facts = survey_arrays(self.path, stored, self.likelihood)
        how = _reading(self.path, headers, facts, self.likelihood)
        if facts.bad_at:  # `Dataset` would name the row of a random split
            raise ValueError(f"{self.path} holds {BAD} in {facts.bad_at}: remove or repair it")
        points = {name: points_of(each, how.convert, how.channels_last) for name, each in stored.items()}
        return self._dataset(points, headers, facts, how, extras, condition)

    def _dataset(
        self,
        points: Mapping[str, Rows | Streamed],
        headers: dict[str, Header],
        facts: Facts,
        how: _Reading,
        extras: dict[str, dict[str, Tensor]],
        condition: str | None,
    ) -> Dataset:
        """The data set of points that may still have to be split."""
        family, dtype = LIKELIHOODS[how.likelihood], headers["train"].dtype
        labels = extras["labels"].get("train") if condition in WITH_LABELS else None
        places, moved = _places(points["train"], headers, self.seed, family, labels)
        rows = places["train"][1]
        train = points["train"] if rows is None else points["train"].take(rows)
        valid, test = (held_out(points, places, split, how.dynamic) for split in SPLITS[1:])
        keeps = train.streamed or (is_bytes(dtype) and family.streams)
        splits = train if keeps else train[:], valid, test
        _check_categories(self.path, headers, places, splits, how.likelihood)
        scaled = self.standardize and family.real and len(train.shape) == 2
        on_disk = ", read from disk" if train.streamed else ""
        stored = Stored(how.convert, dtype, how.channels_last, self.image_size)
        dataset = Dataset(
            self.path.name,
            *splits,
            how.likelihood,
            how.dynamic,
            labels=placed(extras["labels"], places),
            covariates=placed(extras["covariates"], places),
            label_names=self.label_names,
            stored=f"{dtype}{', channels last' if how.channels_last else ''}{on_disk}",
            content=" ".join(facts.sha256.values()),
            doubts=self._doubts(train.shape, moved, facts, how, scaled),
            standardize=scaled,
            reader=partial(read_points, stored=stored),
        )
        if condition is None:
            return dataset
        numbers = {name: torch.arange(header.shape[0]) for name, header in headers.items()}
        in_file = placed(numbers, places)  # a wrong label is named by its row there
        return condition_on(dataset, condition, in_file)

    def _doubts(self, shape: torch.Size, moved: int, facts: Facts, how: _Reading, scaled: bool) -> tuple[str, ...]:
        return (
            *self.doubts,
            *doubtful_split(moved),
            *doubtful_layout(shape),
            *doubtful_values(facts, how.likelihood, self.likelihood),
            *(() if scaled else doubtful_scales(facts, how.likelihood)),
        )


def _places(
    points: Points, headers: dict[str, Header], seed: int, family: Likelihood, labels: Tensor | None
) -> tuple[Places, int]:
    """Where the points of each split are; of a random split, how many were moved for their category or class."""
    places = places_of(headers, seed)
    train = places["train"][1]
    if train is None:
        return places, 0
    unknown = torch.zeros(len(points), dtype=torch.bool, device="cpu")
    if family.known is not None:
        x = points[:]
        unknown |= ~family.known(x[train], x).flatten(1).all(1)
    if labels is not None:
        unknown |= ~torch.isin(labels, labels[train])
    return knowing(places, unknown)


def _check_categories(path: Path, headers: dict[str, Header], places: Places, splits: Splits, chosen: str) -> None:
    """Refuse a category that valid or test has and train has not, with its row in the file."""
    if LIKELIHOODS[chosen].known is None:
        return
    train = splits[0][:]
    for split, x in zip(SPLITS[1:], splits[1:], strict=True):
        what = f"{path}: {split}" if split in headers else f"{path}: {split}, which is split from train,"
        rows = places[split][1]
        check_known(what, x, train, LIKELIHOODS[chosen], None if rows is None else torch.from_numpy(rows))


def _reading(path: Path, headers: dict[str, Header], facts: Facts, likelihood: str) -> _Reading:
    """How the values of a file are read; values that fit no way are refused here, or by `Dataset`, which names them."""
    dtype, last = headers["train"].dtype, _have_last_channels(headers)
    if likelihood == "auto":
        likelihood = _likelihood(path, dtype, facts.unit, facts.binary)
    if likelihood not in WAYS or not facts.finite:
        return _Reading(likelihood, False, unchanged, last)
    for way, values in WAYS[likelihood].items():
        in_unit = way is middles and dtype.kind == "f" and facts.unit  # 0.0 and 1.0 are shares then, not levels
        if values.hold(facts) and not in_unit:
            return _Reading(likelihood, way in BITS and not BITS[way].hold(facts), way, last)
    takes = "values in [0, 1] or levels 0..255" if likelihood == "bernoulli" else "256 gray levels, best as uint8"
    raise ValueError(
        f"{path} holds {dtype} from {facts.low:.6g} ({facts.low_at}) to {facts.high:.6g} ({facts.high_at}), but the "
        f"likelihood {likelihood} takes {takes}: scale the values, or choose the likelihood gaussian, or poisson or "
        "negative_binomial for counts"
    )


def _likelihood(path: Path, dtype: np.dtype, unit: bool, binary: bool) -> str:
    if binary:
        return "bernoulli"
    if dtype == np.uint8:
        return "logistic256"
    if dtype.kind != "f":
        raise ValueError(
            f"{path} holds {dtype} beyond 0 and 1: choose the likelihood, for example poisson or negative_binomial for "
            "counts, or categorical for codes of categories; or store gray levels as uint8, and real numbers as float32"
        )
    return "bernoulli" if unit else "gaussian"


def _have_last_channels(headers: dict[str, Header]) -> bool:
    """Whether images are (N, H, W, C)."""
    shape = headers["train"].shape
    last = len(shape) == 4 and shape[-1] in CHANNELS and shape[1] not in CHANNELS
    return last and all(len(header.shape) == 4 for header in headers.values())
