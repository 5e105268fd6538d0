"""A user's own data: a `.npz` with an array `train`, with or without `valid` and `test`, or a `.npy` with one array.

Arrays are (N, D) for vectors, (N, H, W) or (N, C, H, W) for images. One array alone is split 0.8 / 0.1 / 0.1 by seed.
The likelihood follows from the values of all arrays together:

    every value 0 or 1       bernoulli
    uint8                    logistic256, x = (level + 0.5) / 256
    floats in [0, 1]         bernoulli, dynamic: probabilities; valid and test are binarised once with a fixed seed
    other floats             gaussian
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.dataset import Dataset, binarize_once, shuffled_split

SPLITS = ("train", "valid", "test")


def load(path: Path, seed: int = 0) -> Dataset:
    """A data set from the user's `.npy` or `.npz`.

    To force another likelihood, store another type (gray levels as uint8; real numbers shifted out of [0, 1]), or build
    the set yourself: ``Dataset("mine", train, valid, test, likelihood="gaussian")``.

    Raises:
        ValueError: the file is missing, damaged or pickled, its arrays have other names, shapes or types than above, or
            the `Dataset` refuses their values.
    """
    arrays = _read(path)
    shapes_and_types = {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
    if len({array.dtype for array in arrays.values()}) > 1:
        raise ValueError(f"{path} mixes types, {shapes_and_types}: store all arrays with one.")
    if any(array.ndim not in (2, 3, 4) for array in arrays.values()):
        raise ValueError(f"{path} holds {shapes_and_types}: vectors are (N, D), images (N, H, W) or (N, C, H, W).")
    likelihood, dynamic = _likelihood(path, list(arrays.values()))
    points = {name: _points(array, likelihood) for name, array in arrays.items()}
    bits = {name: binarize_once(x, SPLITS.index(name)) if dynamic else x for name, x in points.items()}
    if len(points) == 3:
        train, valid, test = points["train"], bits["valid"], bits["test"]
    else:
        tenth = len(points["train"]) // 10
        first, second, third = shuffled_split(len(points["train"]), tenth, tenth, seed)
        train, valid, test = points["train"][first], bits["train"][second], bits["train"][third]
    return Dataset(path.name, train, valid, test, likelihood=likelihood, dynamic=dynamic)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the path of a .npy or .npz file.")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {"train": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it is cut short or holds pickled objects, which are refused because "
            "they may run code; save plain numeric arrays with numpy.save or numpy.savez."
        ) from error
    if set(arrays) not in ({"train"}, set(SPLITS)):
        raise ValueError(
            f"{path} holds the arrays {sorted(arrays)}: name them train, valid and test, or give train alone to have "
            "it split 0.8 / 0.1 / 0.1."
        )
    return arrays


def _likelihood(path: Path, arrays: list[np.ndarray]) -> tuple[str, bool]:
    dtype = arrays[0].dtype
    if dtype.kind not in "biuf":
        raise ValueError(f"{path} holds {dtype}: store real numbers, for example float32.")
    if all(((x == 0) | (x == 1)).all() for x in arrays):
        return "bernoulli", False
    if dtype == np.uint8:
        return "logistic256", False
    if dtype.kind != "f":
        raise ValueError(f"{path} holds {dtype} beyond 0 and 1: store gray levels as uint8, other values as float32.")
    if all(((x >= 0) & (x <= 1)).all() for x in arrays):
        return "bernoulli", True
    return "gaussian", False


def _points(array: np.ndarray, likelihood: str) -> Tensor:
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which Dataset reports
        x = torch.from_numpy(array.astype(np.float32))
    if likelihood == "logistic256":
        x = (x + 0.5) / 256
    return x.unsqueeze(1) if x.ndim == 3 else x
