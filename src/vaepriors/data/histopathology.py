"""Histopathology: 28 x 28 gray patches of stained tissue (Tomczak & Welling, Householder Flow, 2016).

Upstream is a pickle in a compressed tar: a dictionary with `training`, `validation` and `test`, gray levels in [0, 1]
or 0..255. Reading a pickle can run any program, so only the names that rebuild NumPy arrays are admitted.
Levels are clipped to [1/512, 1 - 1/512]: black and white lie in the middle of the first and the last of 256 bins.
No checksum is published.
"""

import io
import pickle
import tarfile
from typing import Any

import numpy as np
import torch

from vaepriors.data.dataset import Dataset
from vaepriors.data.files import Source, read

PATCHES = Source(
    "histopathology/histopathology.pkl.tar.gz",
    None,
    (
        "https://github.com/jmtomczak/vae_householder_flow/raw/master/"
        "datasets/histopathologyGray/histopathology.pkl.tar.gz",
    ),
)
KEYS = ("training", "validation", "test")
_ADMITTED = {
    *((module, name) for module in ("numpy.core.multiarray", "numpy._core.multiarray")
      for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}  # fmt: skip


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is refused, it may run code")
        return super().find_class(module, name)


def load(seed: int = 0) -> Dataset:
    """Histopathology: 6,800 / 2,000 / 2,000 patches of 256 gray levels. The split is fixed, `seed` has no effect."""
    arrays = _unpickle(read(PATCHES))
    low, high = min(x.min() for x in arrays), max(x.max() for x in arrays)
    if not 0 <= low <= high <= 255:
        raise ValueError(f"{PATCHES.path} holds values from {low:g} to {high:g}: gray levels lie in [0, 1] or 0..255")
    scale = np.float32(255 if high > 1 else 1)
    train, valid, test = (torch.from_numpy(np.clip(x / scale, 1 / 512, 1 - 1 / 512)) for x in arrays)
    return Dataset("histopathology", train, valid, test, likelihood="logistic256", pseudo=(0.4, 0.05))


def _unpickle(content: bytes) -> list[np.ndarray]:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            pickles = [member for member in archive if member.isfile() and member.name.endswith(".pkl")]
            file = archive.extractfile(max(pickles, key=lambda member: member.size))
            assert file is not None  # a regular file has content
            data = _ArraysOnly(file, encoding="latin1").load()
        return [np.asarray(data[key], dtype=np.float32).reshape(-1, 1, 28, 28) for key in KEYS]
    except (tarfile.TarError, pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{PATCHES.path} is not a tar of one pickled dictionary with arrays of 28 x 28 images {', '.join(KEYS)} "
            f"({error!r}): delete it, and it will be fetched again"
        ) from error
