"""A user's own data: a `.npz` with an array `train`, with or without `test` and `valid`, or a `.npy` with one array.

Arrays are (N, D) for vectors, (N, H, W), (N, C, H, W) or (N, H, W, C) for images, the last with one or three channels.
Beside them, `train_labels`, ... (whole numbers, one for each point) and `train_covariates`, ... (real numbers) are what
a model may be given (see `vaepriors.data.conditions`).
One array alone is split 0.8 / 0.1 / 0.1 by seed; of `train` and `test`, a tenth of `train` becomes valid by seed.
The likelihood `auto` follows from the values of all arrays together:

    every value 0 or 1       bernoulli
    uint8                    logistic256, x = (level + 0.5) / 256
    floats in [0, 1]         bernoulli, dynamic: probabilities; valid and test are binarised once with a fixed seed
    other floats             gaussian

Another one may be chosen: `poisson`, `negative_binomial` or `multinomial` for counts, `categorical` for codes 0, 1, ...
of categories, `student` for real numbers with outliers. For bernoulli, levels 0..255 are divided by 255: probabilities,
unless all are 0 or 255. For logistic256, values are levels, or stored as level / 255 or (level + 0.5) / 256. For all
others, values are taken unchanged.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.arrays import EXTRAS, SPLITS, read_arrays
from vaepriors.data.conditions import check_covariates, check_labels, condition_on
from vaepriors.data.dataset import LIKELIHOODS, Dataset, binarize_once, check_known, in_words, shuffled_split

RESCALED = ("bernoulli", "logistic256")  # by what the values look like
ROWS = 10_000  # checked at a time
CHANNELS = (1, 3)  # of an image whose channels come last
FAR, NEAR = 10.0, 0.01  # real values of a larger mean or another standard deviation are far from a unit scale
UNEVEN = 1000.0  # and so is a table whose columns differ more in their standard deviations


def load(
    path: Path,
    seed: int = 0,
    likelihood: str = "auto",
    limit: float | None = None,
    *,
    condition: str | None = None,
    standardize: bool = True,
) -> Dataset:
    """Load a user's `.npy` or `.npz`.

    The set's `doubts` say what may have been read wrongly. An array of four dimensions is `(N, H, W, C)` if its last
    size is 1 or 3 and its second is neither; otherwise it is `(N, C, H, W)`.

    Args:
        path: The file.
        seed: Seed of a random split.
        likelihood: `auto`, or a name in `vaepriors.data.LIKELIHOODS`, as above.
        limit: The most bytes that all arrays together may take, as stored and as float32; by default half of the
            available memory, or what the environment variable VAEPRIORS_MEMORY names in GiB.
        standardize: Whether a model by name standardises the columns of real vectors.
        condition: What a model is to be given: `labels`, `covariates` or `both`.

    Raises:
        ValueError: If the file is missing, damaged, encrypted, pickled or too large, or its arrays have other names,
            shapes or types than above, or values that the likelihood does not take, or not what a model is to be given.
    """
    arrays = read_arrays(path, limit)
    extras = _extras(path, arrays, seed)
    last = all(x.ndim == 4 for x in arrays.values()) and _has_last_channels(arrays["train"].shape)
    if last:
        arrays = {name: np.moveaxis(x, -1, 1) for name, x in arrays.items()}
    chosen, dynamic, convert = _reading(path, list(arrays.values()), likelihood)
    _check_values(path, arrays, chosen)
    points = {name: _points(array, convert) for name, array in arrays.items()}
    splits = train, valid, test = _split(points, dynamic, seed)
    _check_categories(path, points, splits, seed, chosen)
    stored = f"{arrays['train'].dtype}{', channels last' if last else ''}"
    scaled = standardize and LIKELIHOODS[chosen].real and train.ndim == 2
    values = _doubtful_values(list(arrays.values()), train, chosen, likelihood)
    doubts = (*_doubtful_layout(train), *values, *(() if scaled else _doubtful_scales(train, chosen)))
    dataset = Dataset(
        path.name,
        train,
        valid,
        test,
        chosen,
        dynamic,
        stored=stored,
        doubts=doubts,
        standardize=scaled,
        labels=extras["labels"],
        covariates=extras["covariates"],
    )
    if condition is None:
        return dataset
    rows = _split_all({name: torch.arange(len(x)) for name, x in points.items()}, seed)
    return condition_on(dataset, condition, rows)


def _extras(path: Path, arrays: dict[str, np.ndarray], seed: int) -> dict[str, dict[str, Tensor]]:
    """Take labels and covariates out of the arrays, checked, split like the points."""
    extras = {}
    for kind in EXTRAS:
        taken = {split: arrays.pop(f"{split}_{kind}") for split in SPLITS if f"{split}_{kind}" in arrays}
        values = {split: _extra(f"{path}: {split}_{kind}", kind, array) for split, array in taken.items()}
        extras[kind] = _split_all(values, seed) if values else {}
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


def _split_all(values: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """What belongs to the points, split like them."""
    return dict(zip(SPLITS, _split(values, False, seed), strict=True))


def _check_values(path: Path, arrays: dict[str, np.ndarray], likelihood: str) -> None:
    """Refuse what the likelihood of whole numbers does not take, where the file has it and before it is rounded."""
    entry = LIKELIHOODS[likelihood]
    if likelihood in RESCALED or not entry.discrete:  # Dataset checks them, after the conversion
        return
    for name, array in arrays.items():
        for start in range(0, len(array), ROWS):
            x = torch.from_numpy(np.ascontiguousarray(array[start : start + ROWS], np.float64))
            bad = (~entry.contains(x)).nonzero()
            if len(bad):
                row, *place = bad[0].tolist()
                raise ValueError(
                    f"{path} holds {x[row, *place].item():.10g} in {in_words(start + row, place)} of {name}, but the "
                    f"likelihood {likelihood} takes {entry.support}"
                )


def _check_categories(
    path: Path, points: dict[str, Tensor], splits: tuple[Tensor, ...], seed: int, likelihood: str
) -> None:
    """Refuse a category that valid or test has and train has not, with its row in the file."""
    rows = _split({name: torch.arange(len(x)) for name, x in points.items()}, False, seed)
    for split, x, row in zip(SPLITS, splits, rows, strict=True):
        if x.shape[1:] == splits[0].shape[1:]:  # otherwise Dataset refuses them
            what = f"{path}: {split}" if split in points else f"{path}: {split}, which is split from train,"
            check_known(what, x, splits[0], LIKELIHOODS[likelihood], row)


def _split(points: dict[str, Tensor], dynamic: bool, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Train, valid and test, the last two binarised if train is dynamic."""
    bits = {name: binarize_once(x, SPLITS.index(name)) if dynamic else x for name, x in points.items()}
    if "valid" in points:
        return points["train"], bits["valid"], bits["test"]
    number = len(points["train"])
    tenth = number // 10
    first, second, third = shuffled_split(number, tenth, 0 if "test" in points else tenth, seed)
    test = bits["test"] if "test" in points else bits["train"][third]
    return points["train"][first], bits["train"][second], test


def _reading(path: Path, arrays: list[np.ndarray], likelihood: str) -> tuple[str, bool, Callable[[Tensor], Tensor]]:
    """The likelihood, whether it is dynamic, and how float32 values become points x."""

    def every(holds: Callable[[np.ndarray], np.ndarray]) -> bool:
        with np.errstate(invalid="ignore"):  # of NaN, which Dataset reports
            return all(holds(x).all() for x in arrays)

    dtype = arrays[0].dtype
    unit, binary = every(lambda x: (x >= 0) & (x <= 1)), every(lambda x: (x == 0) | (x == 1))
    levels = every(lambda x: (x >= 0) & (x <= 255) & (x == np.floor(x)))
    if likelihood == "auto":
        likelihood = _likelihood(path, dtype, unit, binary)
    if likelihood not in RESCALED or not every(np.isfinite):  # Dataset names values it cannot take
        return likelihood, False, lambda x: x
    if likelihood == "bernoulli" and unit:
        return likelihood, not binary, lambda x: x
    if likelihood == "bernoulli" and levels:
        return likelihood, not every(lambda x: (x == 0) | (x == 255)), lambda x: x / 255
    if likelihood == "logistic256" and levels and (dtype.kind != "f" or not unit):
        return likelihood, False, _middles
    if likelihood == "logistic256" and unit and every(lambda x: np.abs(x * 255 - np.round(x * 255)) < 1e-3):
        return likelihood, False, lambda x: _middles((x * 255).round())
    if likelihood == "logistic256" and unit and every(lambda x: np.abs(x * 256 % 1 - 0.5) < 1e-3):
        return likelihood, False, lambda x: _middles((x * 256).floor())
    low, high = min(x.min() for x in arrays), max(x.max() for x in arrays)
    takes = "values in [0, 1] or levels 0..255" if likelihood == "bernoulli" else "256 gray levels, best as uint8"
    raise ValueError(
        f"{path} holds {dtype} from {low:.6g} to {high:.6g}, but the likelihood {likelihood} takes {takes}: scale the "
        "values, or choose the likelihood gaussian, or poisson or negative_binomial for counts"
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


def _middles(levels: Tensor) -> Tensor:
    return (levels + 0.5) / 256


def _points(array: np.ndarray, convert: Callable[[Tensor], Tensor]) -> Tensor:
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow becomes infinite, which Dataset reports
        x = convert(torch.from_numpy(np.ascontiguousarray(array, np.float32)))
    return x.unsqueeze(1) if x.ndim == 3 else x


def _has_last_channels(shape: tuple[int, ...]) -> bool:
    return shape[-1] in CHANNELS and shape[1] not in CHANNELS


def _doubtful_layout(train: Tensor) -> Iterator[str]:
    channels, *sides = train.shape[1:]
    if sides and sides[1] <= 4 < min(channels, sides[0]):
        yield (
            f"images are read as {channels} channels of {sides[0]} x {sides[1]} pixels, which looks like channels "
            "last: store (N, C, H, W) if it is"
        )


def _doubtful_values(arrays: list[np.ndarray], train: Tensor, chosen: str, likelihood: str) -> Iterator[str]:
    if chosen == "logistic256" and likelihood == "auto" and all(((x == 0) | (x == 255)).all() for x in arrays):
        yield (
            "every byte is 0 or 255, which looks binary and is read as 256 gray levels: choose --likelihood bernoulli "
            "if it is binary"
        )
    if LIKELIHOODS[chosen].discrete or not train.numel():
        return
    if likelihood == "auto" and LIKELIHOODS["poisson"].contains(train).all():
        yield (
            "every value is a whole number and is read as a real one: choose --likelihood poisson or negative_binomial "
            "for counts"
        )


def _doubtful_scales(train: Tensor, chosen: str) -> Iterator[str]:
    """Doubts about real values that are not standardised."""
    if LIKELIHOODS[chosen].discrete or not train.numel():
        return
    scale, mean, low, high = _moments(train)
    least, most = _extreme_deviations(train)
    if low >= 0 and high <= 255 and scale > FAR:
        yield (
            f"values from {low:.6g} to {high:.6g} look like pixels and are read as real numbers: divide them by 255, "
            "store them as uint8, or choose --likelihood logistic256 or bernoulli if they are whole levels"
        )
    elif most > UNEVEN * least:
        yield (
            f"columns have standard deviations from {least:.3g} to {most:.3g}: standardise each, or the largest decide "
            "alone"
        )
    elif scale > FAR or abs(mean) > FAR or 0 < scale < NEAR:
        yield (
            f"values have mean {mean:.3g} and standard deviation {scale:.3g}, far from a unit scale: standardise them, "
            "or training may fail"
        )


def _extreme_deviations(x: Tensor) -> tuple[float, float]:
    """Smallest and largest standard deviation of the columns of a table that are not constant; otherwise 1 and 1."""
    if x.ndim != 2:
        return 1.0, 1.0
    deviations = x.double().std(0, correction=0)
    deviations = deviations[deviations > 1e-6 * x.abs().amax(0)]  # less is rounding
    if not len(deviations):
        return 1.0, 1.0
    return deviations.min().item(), deviations.max().item()


def _moments(x: Tensor) -> tuple[float, float, float, float]:
    """Standard deviation, mean, smallest and largest value."""
    x = x.double()
    return x.std(correction=0).item(), x.mean().item(), x.min().item(), x.max().item()
