"""Points of another file than the data of a model, read as these were (see `vaepriors.data.stored`)."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from vaepriors.data.arrays import SPLITS
from vaepriors.data.checks import check_known
from vaepriors.data.conditions import y_of
from vaepriors.data.dataset import Dataset
from vaepriors.data.draws import binarize_once
from vaepriors.data.examples import BinarizedOnce, Examples
from vaepriors.data.frames import SUFFIXES as TABLES
from vaepriors.data.images import is_image_folder, read_images
from vaepriors.data.rows import Points, Streamed, points_of
from vaepriors.data.shards import Arrays, Shards, open_arrays
from vaepriors.data.stored import Stored, conversion_of, extras_of, survey_arrays
from vaepriors.data.survey import BAD

__all__ = ["read_points"]


class _Opened(NamedTuple):
    """The points of a file, and its labels and covariates, if it has them."""

    points: np.ndarray | Shards
    labels: list[Any] | None
    covariates: Tensor | None
    channels_last: bool


def read_points(dataset: Dataset, path: Path, *, stored: Stored | None = None) -> Examples:
    """The examples of a `.npy`, of a `.npz` with the array `train` alone, or of a folder of `.npy` files or images.

    Those that would take too much memory stay on disk, as training points do.

    Args:
        dataset: The data set whose points they are like.
        path: The file or folder.
        stored: How the training data are stored; all ways are tried unless given.
    """
    opened = _open(dataset, path, stored)
    facts = survey_arrays(path, {"train": opened.points}, dataset.likelihood)
    if facts.bad_at:
        raise ValueError(f"{path} holds {BAD} in {facts.bad_at}: remove or repair it")
    convert = conversion_of(path, dataset, opened.points.dtype, facts, stored)
    rows = points_of(opened.points, convert, opened.channels_last)
    x: Points = rows if isinstance(rows, Streamed) else rows[:]
    if x.shape[1:] != dataset.event_shape:
        raise ValueError(
            f"{path} has points of shape {tuple(x.shape[1:])}, but the model is of {tuple(dataset.event_shape)}: store "
            "them like the data that it was trained on"
        )
    if dataset.family.known is not None:
        check_known(str(path), x[:], dataset.train, dataset.family)
    if dataset.dynamic:
        x = binarize_once(x) if isinstance(x, Tensor) else BinarizedOnce(x)
    return Examples(x, _conditions(path, dataset, opened))


def _open(dataset: Dataset, path: Path, stored: Stored | None) -> _Opened:
    if path.suffix.lower() in TABLES:
        raise ValueError(f"{path} is a table, but the model was trained on arrays: give a .npy, a .npz, or a folder")
    arrays: Arrays
    if images := is_image_folder(path):
        arrays, names, doubts = read_images(path, None if stored is None else stored.image_size)
        for doubt in doubts:
            warnings.warn(f"{path.name}: {doubt}", stacklevel=4)
    else:
        arrays, names = open_arrays(path), ()
    splits = [name for name in SPLITS if name in arrays]
    if splits != ["train"]:
        raise ValueError(f"{path} holds {', '.join(splits)}: give a file or folder with one of them")
    points = arrays["train"]
    if not len(points):
        raise ValueError(f"{path} is empty: give at least one point")
    if images and isinstance(points, np.ndarray) and points.shape[1] == 1 and dataset.event_shape[0] == 3:
        points = points.repeat(3, 1)  # as gray images are among coloured ones
    extras = extras_of(path, arrays)
    numbers, covariates = (extras[kind].get("train") for kind in ("labels", "covariates"))
    labels = None if numbers is None else [names[each] if names else each for each in numbers.tolist()]
    return _Opened(points, labels, covariates, stored is not None and stored.channels_last and not images)


def _conditions(path: Path, dataset: Dataset, opened: _Opened) -> Tensor | None:
    """The y of each point; None for a model without conditions."""
    return y_of(path, dataset, opened.labels, opened.covariates) if dataset.conditions else None
