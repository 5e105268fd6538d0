"""Points of another file than the data of a model, read as these were (see `vaepriors.data.stored`)."""

import os
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.arrays import SPLITS, Header, array_limit, check_headers, is_packed, needed_memory, read_arrays
from vaepriors.data.checks import check_known
from vaepriors.data.conditions import one_hot
from vaepriors.data.dataset import Dataset
from vaepriors.data.draws import binarize_once
from vaepriors.data.examples import BinarizedOnce, Examples
from vaepriors.data.frames import SUFFIXES as TABLES
from vaepriors.data.images import is_image_folder, read_images
from vaepriors.data.rows import Convert, Points, Streamed, as_tensor
from vaepriors.data.shards import Shards, find_shards
from vaepriors.data.stored import Stored, blocks_of, check_stored, conversion_of, take_extras
from vaepriors.data.survey import Facts, survey, survey_files

__all__ = ["read_points"]

Arrays = Mapping[str, np.ndarray | Shards]


class _Opened(NamedTuple):
    """The points of a file, and its labels and covariates, if it has them."""

    points: np.ndarray | Shards
    labels: list[Any] | None
    covariates: Tensor | None
    channels_last: bool

    @property
    def header(self) -> Header:
        points = self.points
        return points.header if isinstance(points, Shards) else Header(points.shape, points.dtype)


def read_points(dataset: Dataset, path: Path, *, stored: Stored | None = None, limit: float | None = None) -> Examples:
    """The examples of a `.npy`, of a `.npz` with the array `train` alone, or of a folder of `.npy` files or images.

    Those that would take too much memory stay on disk, as training points do.

    Args:
        dataset: What they are read like.
        path: The file or folder.
        stored: How the training data are stored; all ways are tried unless given.
        limit: The most bytes in memory, as for `vaepriors.data.own.load`.
    """
    opened = _open(dataset, path, stored, limit)
    facts = _survey(path, opened, dataset.likelihood)
    x = _converted(opened, conversion_of(path, dataset, opened.header.dtype, facts, stored))
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


def _open(dataset: Dataset, path: Path, stored: Stored | None, limit: float | None) -> _Opened:
    if path.suffix.lower() in TABLES:
        raise ValueError(f"{path} is a table, but the model was trained on arrays: give a .npy, a .npz, or a folder")
    arrays: Arrays
    if images := is_image_folder(path):
        arrays, names, doubts = read_images(path, None if stored is None else stored.image_size)
        for doubt in doubts:
            warnings.warn(f"{path.name}: {doubt}", stacklevel=4)
    else:
        arrays, names = _open_arrays(path, limit), ()
    splits = [name for name in SPLITS if name in arrays]
    if splits != ["train"]:
        raise ValueError(f"{path} holds {', '.join(splits)}: give a file or folder with one of them")
    points = arrays["train"]
    if not len(points):
        raise ValueError(f"{path} is empty: give at least one point")
    if images and isinstance(points, np.ndarray) and points.shape[1] == 1 and dataset.event_shape[0] == 3:
        points = points.repeat(3, 1)  # as gray images are among coloured ones
    beside = {name: each for name, each in arrays.items() if name not in SPLITS}
    extras = take_extras(
        path, {name: each.load() if isinstance(each, Shards) else each for name, each in beside.items()}
    )
    numbers, covariates = (extras[kind].get("train") for kind in ("labels", "covariates"))
    labels = None if numbers is None else [names[each] if names else each for each in numbers.tolist()]
    return _Opened(points, labels, covariates, stored is not None and stored.channels_last and not images)


def _open_arrays(path: Path, limit: float | None) -> Arrays:
    """The arrays of a file or folder; as files if they would take too much memory."""
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


def _converted(opened: _Opened, convert: Convert) -> Points:
    if isinstance(opened.points, Shards):
        return Streamed(opened.points, convert, channels_last=opened.channels_last)
    return convert(as_tensor(opened.points, opened.channels_last))


def _survey(path: Path, opened: _Opened, likelihood: str) -> Facts:
    """What the values are, without NaN, infinity, and what a likelihood of whole numbers does not take."""
    look = partial(check_stored, path, likelihood)
    if isinstance(opened.points, Shards):
        facts = survey_files({"train": opened.points}, likelihood, look)
    else:
        facts = survey({"train": blocks_of("train", opened.points)}, {"train": opened.header}, likelihood, look)
    if facts.bad_at:
        raise ValueError(f"{path} holds NaN or infinity in {facts.bad_at}: remove or repair it")
    return facts


def _conditions(path: Path, dataset: Dataset, opened: _Opened) -> Tensor | None:
    """The y of each point; None for a model without conditions."""
    if not dataset.conditions:
        return None
    number, parts = dataset.conditions["train"].shape[-1] - len(dataset.classes), []
    if dataset.classes:
        if opened.labels is None:
            raise _missing(path, dataset, "labels")
        parts.append(one_hot(path, opened.labels, dataset.classes))
    if number:
        if opened.covariates is None:
            raise _missing(path, dataset, "covariates")
        if opened.covariates.shape[1] != number:
            raise ValueError(
                f"{path} has {opened.covariates.shape[1]} covariates, but the model is given {number}: store them as "
                "in the data that it was trained on"
            )
        parts.append(opened.covariates)
    return torch.cat(parts, 1)


def _missing(path: Path, dataset: Dataset, kind: str) -> ValueError:
    return ValueError(
        f"{path} has no {kind}, but the model is given {dataset.given_in_words()}: store them like those of the "
        f"training data, as train_{kind} beside the points as train, or as the folders of images"
    )
