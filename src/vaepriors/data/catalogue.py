"""The data sets by name: their forms, loaders and files."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from vaepriors.data import (
    caltech,
    digits,
    files,
    frames,
    frey,
    histopathology,
    mnist,
    motion,
    omniglot,
    pendulum,
    views,
)
from vaepriors.data.dataset import LIKELIHOODS, Dataset
from vaepriors.data.files import Source

__all__ = ["CATALOGUE", "Entry", "Form", "entry_of", "fetch", "missing", "stand_in"]


class Form(NamedTuple):
    """Sizes, shape and likelihood of a set, known without its files."""

    sizes: tuple[int, int, int]  # of train, valid and test
    event_shape: tuple[int, ...]
    likelihood: str
    dynamic: bool = False


@dataclass(frozen=True)
class Entry:
    """A set of the catalogue: its loader, which takes a seed, one line about it, its form, and its files."""

    load: Callable[[int], Dataset]
    about: str
    form: Form
    sources: tuple[Source, ...] = ()
    packed: Source | None = None  # one file that replaces all sources, if it is there
    labels: tuple[Source, ...] = ()  # the files of the labels, which only conditions need


PIXELS = (1, 28, 28)
MNIST = (50_000, 10_000, 10_000)

CATALOGUE: dict[str, Entry] = {
    "digits": Entry(
        digits.load,
        "1,797 handwritten digits, 8x8, shipped with scikit-learn: no download",
        Form((1297, 250, 250), (1, 8, 8), "bernoulli", dynamic=True),
    ),
    "static_mnist": Entry(
        mnist.load_static,
        "MNIST, 28x28, binarised once by Larochelle & Murray",
        Form(MNIST, PIXELS, "bernoulli"),
        mnist.STATIC,
        mnist.STATIC_PACKED,
    ),
    "dynamic_mnist": Entry(
        mnist.load_dynamic,
        "MNIST, 28x28, binarised at each visit",
        Form(MNIST, PIXELS, "bernoulli", dynamic=True),
        mnist.MNIST,
        labels=mnist.MNIST_LABELS,
    ),
    "fashion_mnist": Entry(
        mnist.load_fashion,
        "Fashion-MNIST, 28x28, binarised at each visit",
        Form(MNIST, PIXELS, "bernoulli", dynamic=True),
        mnist.FASHION,
        labels=mnist.FASHION_LABELS,
    ),
    "omniglot": Entry(
        omniglot.load,
        "OMNIGLOT, 28x28, the papers' version (chardata.mat), binarised at each visit",
        Form((23_000, 1345, 8070), PIXELS, "bernoulli", dynamic=True),
        (omniglot.CHARDATA,),
    ),
    "omniglot_derived": Entry(
        omniglot.load_derived,
        "NOT the papers' OMNIGLOT: a stand-in, the original drawings resized otherwise; numbers do not compare",
        Form((23_000, 1345, 8115), PIXELS, "bernoulli", dynamic=True),
        (omniglot.DERIVED,),
    ),
    "caltech101": Entry(
        caltech.load,
        "Caltech 101 Silhouettes, 28x28, binary",
        Form((4100, 2264, 2307), PIXELS, "bernoulli"),
        (caltech.SILHOUETTES,),
    ),
    "frey_faces": Entry(
        frey.load,
        "Frey Faces, 28x20, 256 gray levels, split at random by seed",
        Form((1565, 200, 200), (1, 28, 20), "logistic256"),
        (frey.FRAMES,),
    ),
    "pendulum": Entry(
        pendulum.load,
        "18,000 rendered images of a pendulum, 16x16, real-valued: no download",
        Form((15_000, 1500, 1500), (1, 16, 16), "gaussian"),
    ),
    "cmu_motion": Entry(
        motion.load,
        "CMU motion capture: five motions, 50 channels",
        Form((1669, 203, 205), (50,), "gaussian"),
        motion.SOURCES,
        motion.ARCHIVE,
    ),
    "chairs": Entry(
        views.load_chairs,
        "3D chairs, 64x64, 62 views each (no checksum published)",
        Form((69_130, 8618, 8618), (1, 64, 64), "bernoulli", dynamic=True),
        (views.CHAIRS,),
    ),
    "faces": Entry(
        views.load_faces,
        "3D faces, 64x64, rendered by yourself (their model is licensed)",
        Form((59_200, 7400, 7400), (1, 64, 64), "bernoulli", dynamic=True),
        (views.FACES,),
    ),
    "histopathology": Entry(
        histopathology.load,
        "Histopathology, 28x28, 256 gray levels (no checksum published)",
        Form((6800, 2000, 2000), PIXELS, "logistic256"),
        (histopathology.PATCHES,),
    ),
}


def stand_in(name: str, number: int = 20) -> Dataset:
    """Make noise of the form of a set, with `number` points in each split, for tests and estimates of cost.

    >>> stand_in("frey_faces", 5).train.shape
    torch.Size([5, 1, 28, 20])
    """
    form = entry_of(name).form
    x = torch.rand(number, *form.event_shape, generator=torch.Generator().manual_seed(0))
    bits = LIKELIHOODS[form.likelihood].example(x)
    return Dataset(name, x if form.dynamic else bits, bits, bits, form.likelihood, form.dynamic)


def fetch(name: str) -> list[Path]:
    """Find or download the files of a set, verify them, and return their paths. The errors are those of `load`."""
    return [files.fetch(source) for source in (*entry_of(name).sources, *entry_of(name).labels)]


def missing(name: str) -> tuple[str, ...]:
    """The files of a set that are neither in $VAEPRIORS_DATA nor in the cache.

    >>> missing("digits")
    ()
    """
    entry = entry_of(name)
    if entry.packed is not None and files.find(entry.packed) is not None:
        return ()
    return tuple(source.path for source in entry.sources if files.find(source) is None)


def entry_of(name: str) -> Entry:
    """The entry of a name; an unknown one is refused with similar names."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    if os.sep in name or "." in name:
        kinds = ", ".join((".npy", ".npz", *frames.SUFFIXES))
        state = "is of another kind" if os.path.exists(os.path.expanduser(name)) else "does not exist"
        raise ValueError(
            f"{name!r} looks like a path but {state}: custom data are a file {kinds}, or a folder of .npy or images"
        )
    hint = f"did you mean {' or '.join(map(repr, close))}? " if (close := _similar(name)) else ""
    raise ValueError(f"unknown data set {name!r}: {hint}Known are {', '.join(CATALOGUE)}, and the path of a file")


def _similar(name: str) -> list[str]:
    """Names that contain this one, as static_mnist contains mnist; otherwise the closest one."""
    return [known for known in CATALOGUE if name.lower() in known] or difflib.get_close_matches(name, CATALOGUE, n=1)
