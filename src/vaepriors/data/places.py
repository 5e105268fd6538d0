"""Where the points of each split of custom data are, in arrays or files that may be split by seed."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.arrays import SPLITS, Header
from vaepriors.data.draws import binarize_rows, keep_known, shuffled_split
from vaepriors.data.rows import Points

__all__ = ["Places", "held_out", "knowing", "placed", "places_of"]

Places = dict[str, tuple[str, np.ndarray | None]]
HELD_OUT, HELD_OUT_BYTES = 10_000, 2**29  # at most in valid and test, where they are split off


def places_of(headers: dict[str, Header], seed: int) -> Places:
    """Where the points of each split are: the name of an array, and its rows; None for all."""
    if "valid" in headers:
        return {name: (name, None) for name in SPLITS}
    (number, *event), given = headers["train"].shape, "test" in headers
    most = min(HELD_OUT, max(1, HELD_OUT_BYTES // (4 * max(1, math.prod(event)))))
    tenth = min(number // 10, most)
    train, valid, test = (rows.numpy() for rows in shuffled_split(number, tenth, 0 if given else tenth, seed))
    return {"train": ("train", train), "valid": ("train", valid), "test": ("test", None) if given else ("train", test)}


def knowing(places: Places, unknown: Tensor) -> tuple[Places, int]:
    """The places after `keep_known`, and how many rows it has moved; train and some others are split by seed."""
    rows = {split: torch.from_numpy(each) for split, (_, each) in places.items() if each is not None}
    kept = dict(zip(rows, keep_known(unknown, *rows.values()), strict=True))
    changed = {split: (places[split][0], each.numpy()) for split, each in kept.items()}
    return places | changed, len(kept["train"]) - len(rows["train"])


def held_out(points: Mapping[str, Points], places: Places, split: str, dynamic: bool) -> Tensor:
    """The points of valid or test, binarised if train is dynamic."""
    name, rows = places[split]
    x = points[name][:] if rows is None else points[name][torch.from_numpy(rows)]
    if not dynamic:
        return x
    return binarize_rows(x, np.arange(len(x)) if rows is None else rows, SPLITS.index(name))


def placed(values: dict[str, Tensor], places: Places) -> dict[str, Tensor]:
    """Values of the points, such as labels, split like them; empty without any."""
    if not values:
        return {}
    return {
        split: values[name] if rows is None else values[name][torch.from_numpy(rows)]
        for split, (name, rows) in places.items()
    }
