"""Data sets by name: train, validation and test points with the likelihood that fits them.

    >>> digits = load("digits")
    >>> digits.train.shape, digits.likelihood, digits.dynamic
    (torch.Size([1297, 1, 8, 8]), 'bernoulli', True)

A new set is a module with a loader and its sources, and one entry of `CATALOGUE`.
"""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vaepriors.data import caltech, digits, files, frey, histopathology, mnist, motion, omniglot, own, pendulum, views
from vaepriors.data.dataset import LIKELIHOODS, Dataset, binarize_once
from vaepriors.data.files import Source

__all__ = ["CATALOGUE", "LIKELIHOODS", "Dataset", "Entry", "Source", "binarize_once", "fetch", "load", "names"]


@dataclass(frozen=True)
class Entry:
    """A set of the catalogue: its loader (of a seed), one line about it, and the files that it is read from."""

    load: Callable[[int], Dataset]
    about: str
    sources: tuple[Source, ...] = ()


CATALOGUE: dict[str, Entry] = {
    "digits": Entry(digits.load, "1,797 handwritten digits, 8x8, shipped with scikit-learn: no download"),
    "static_mnist": Entry(mnist.load_static, "MNIST, 28x28, binarised once by Larochelle & Murray", mnist.STATIC),
    "dynamic_mnist": Entry(mnist.load_dynamic, "MNIST, 28x28, binarised anew at each visit", mnist.MNIST),
    "fashion_mnist": Entry(mnist.load_fashion, "Fashion-MNIST, 28x28, binarised anew at each visit", mnist.FASHION),
    "omniglot": Entry(
        omniglot.load, "OMNIGLOT, 28x28, the papers' version (chardata.mat), binarised anew", (omniglot.CHARDATA,)
    ),
    "omniglot_derived": Entry(
        omniglot.load_derived,
        "NOT the papers' OMNIGLOT: a stand-in, the original drawings resized otherwise; numbers do not compare",
        (omniglot.DERIVED,),
    ),
    "caltech101": Entry(caltech.load, "Caltech 101 Silhouettes, 28x28, binary", (caltech.SILHOUETTES,)),
    "frey_faces": Entry(frey.load, "Frey Faces, 28x20, 256 gray levels, split at random by seed", (frey.FRAMES,)),
    "pendulum": Entry(pendulum.load, "15,000 rendered images of a pendulum, 16x16, real-valued: no download"),
    "cmu_motion": Entry(motion.load, "CMU motion capture: five motions, 50 channels (no checksum)", motion.SOURCES),
    "chairs": Entry(views.load_chairs, "3D chairs, 64x64, 62 views each (no checksum published)", (views.CHAIRS,)),
    "faces": Entry(views.load_faces, "3D faces, 64x64, rendered by yourself (their model is licensed)", (views.FACES,)),
    "histopathology": Entry(
        histopathology.load, "Histopathology, 28x28, 256 gray levels (no checksum published)", (histopathology.PATCHES,)
    ),
}


def names() -> list[str]:
    """The names of the catalogue."""
    return list(CATALOGUE)


def load(name: str, seed: int = 0) -> Dataset:
    """Load a data set.

    Args:
        name: a name of the catalogue, or the path of a user's own `.npy` or `.npz` (see `vaepriors.data.own`).
        seed: of the random split, where there is one: Frey Faces, the validation images of OMNIGLOT, own files. The
            bits of valid and test never depend on it.

    Raises:
        ValueError: an unknown name, a damaged file, or bad data; the message says what to do.
        FileNotFoundError: a file that is neither here nor can be downloaded; the message says what to put where.
    """
    if Path(name).suffix.lower() in (".npy", ".npz"):
        return own.load(Path(name).expanduser(), seed)
    return _entry(name).load(seed)


def fetch(name: str) -> list[Path]:
    """Find or download the files of a set, verify them, and return their paths. Raises as `load`."""
    return [files.fetch(source) for source in _entry(name).sources]


def _entry(name: str) -> Entry:
    if name in CATALOGUE:
        return CATALOGUE[name]
    if os.sep in name or "." in name:
        state = "is neither .npy nor .npz" if Path(name).expanduser().exists() else "does not exist"
        raise ValueError(f"{name!r} looks like a path but {state}: own data are a .npy or .npz file.")
    close = difflib.get_close_matches(name, CATALOGUE, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"unknown data set {name!r}: {hint}Known are {', '.join(CATALOGUE)}, and a path to .npy or .npz.")
