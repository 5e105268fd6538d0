"""The data sets by name, and what a name or a path loads."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
    own,
    pendulum,
    table,
    views,
)
from vaepriors.data.conditions import condition_on
from vaepriors.data.dataset import LIKELIHOODS, Dataset
from vaepriors.data.files import Source
from vaepriors.data.images import is_image_folder

__all__ = ["CATALOGUE", "Entry", "Form", "absolute", "fetch", "is_file", "load", "missing", "stand_in"]


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
        "15,000 rendered images of a pendulum, 16x16, real-valued: no download",
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
    form = _entry(name).form
    x = torch.rand(number, *form.event_shape, generator=torch.Generator().manual_seed(0))
    bits = LIKELIHOODS[form.likelihood].example(x)
    return Dataset(name, x if form.dynamic else bits, bits, bits, form.likelihood, form.dynamic)


def load(
    name: str,
    seed: int = 0,
    likelihood: str = "auto",
    *,
    condition: str | None = None,
    standardize: bool = True,
    stream: str = "auto",
    columns: str | None = None,
    layer: str | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        name: A name of the catalogue, or the path of a user's `.npy` or `.npz`, or of a folder of `.npy` files (see
            `vaepriors.data.own`) or images (see `vaepriors.data.images`), or of a `.csv`, `.parquet` or `.h5ad` (see
            `vaepriors.data.table`).
        seed: Seed of the random split of Frey Faces, of OMNIGLOT's validation images, and of a user's file. The bits of
            valid and test never depend on it.
        likelihood: The likelihood of a user's file; `auto` chooses by its values. A set of the catalogue has its own.
        standardize: Whether a model by name standardises the real columns of a user's table.
        condition: What a conditional model is to be given: `labels`, `covariates` or `both` (see
            `vaepriors.data.conditions`); nothing unless given.
        stream: Whether the training points of a user's `.npy` files stay on disk: `yes`, `no`, or `auto`, if they take
            more than half of the available memory. The points are the same.
        columns: Kinds of columns of a user's table that differ from the guesses: `age=count,id=drop,fold=split`.
        layer: The layer of an `.h5ad`; X unless given.
        image_size: H and W that the images of a folder are scaled and cropped to; as they are unless given.

    Raises:
        ValueError: If the name is unknown, a file is damaged, the likelihood does not fit, or there are no such
            conditions.
        FileNotFoundError: If a file is missing and cannot be downloaded. The message says what to put where.
    """
    if stream not in ("auto", "yes", "no"):
        raise ValueError(f"unknown stream {stream!r}: choose one of auto, yes, no")
    if likelihood not in ("auto", *LIKELIHOODS):
        raise ValueError(f"unknown likelihood {likelihood!r}: choose one of auto, {', '.join(LIKELIHOODS)}")
    if is_file(name):
        options: Any = {"condition": condition, "standardize": standardize, "stream": stream}
        return _load_custom(name, seed, likelihood, columns, layer, image_size, options)
    entry = _entry(name)
    for what, value in {"columns": columns, "layer": layer, "image_size": image_size}.items():
        if value is not None:
            raise ValueError(f"{what} is {value}, but {name} is no custom file: leave it out")
    if likelihood != "auto":
        raise ValueError(
            f"likelihood is {likelihood}, but {name} is always read as {entry.form.likelihood}: leave it out, "
            "it is for custom files"
        )
    if stream == "yes":
        raise ValueError(f"{name} is read into memory as a whole: leave stream out, it is for custom .npy files")
    if condition is None:
        return entry.load(seed)
    for source in entry.labels:
        files.fetch(source)
    return condition_on(entry.load(seed), condition)


def _load_custom(
    name: str,
    seed: int,
    likelihood: str,
    columns: str | None,
    layer: str | None,
    image_size: int | None,
    options: dict[str, Any],
) -> Dataset:
    """Load a user's file or folder by what it is: images, arrays, or a table."""
    path, stream = Path(os.path.expanduser(name)), options["stream"]
    is_table = likelihood == "mixed" or columns is not None or layer is not None
    if is_image_folder(path):
        _check_images(path, is_table, stream, image_size)
        return own.load_images(path, seed, likelihood, condition=options["condition"], image_size=image_size)
    if image_size is not None and path.exists():
        raise ValueError(f"image_size is {image_size}, but {path} is no folder of images: leave it out")
    if not is_table and path.suffix.lower() not in frames.SUFFIXES:
        return own.load(path, seed, likelihood, **options)
    if options.pop("stream") == "yes":
        raise ValueError(f"stream is yes, but {path} is read as a table, into memory: leave it out")
    return table.load(path, seed, likelihood, columns=columns, layer=layer, **options)


def _check_images(path: Path, is_table: bool, stream: str, image_size: int | None) -> None:
    """Refuse options that a folder of images does not take."""
    if is_table:
        raise ValueError(
            f"{path} is a folder of images, which are no table: leave out columns, layer and the likelihood mixed"
        )
    if stream == "yes":
        raise ValueError(f"stream is yes, but {path} is a folder of images, read into memory: save .npy files instead")
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size is {image_size}: give a number of pixels, at least 1")


def is_file(name: str) -> bool:
    """Whether a name is the path of a user's file or folder instead of a name of the catalogue.

    >>> is_file("mine.npz"), is_file("digits")
    (True, False)
    """
    path = os.path.expanduser(name)
    lost = os.path.isabs(path) and not os.path.exists(path)  # a folder of a run, which was moved
    folder = name not in CATALOGUE and (os.path.isdir(path) or lost)
    return folder or Path(name).suffix.lower() in (".npy", ".npz", *frames.SUFFIXES)


def absolute(name: str) -> str:
    """The name of a set, with an absolute path if it is a file.

    >>> absolute("digits"), absolute("/data/mine.npz")
    ('digits', '/data/mine.npz')
    """
    return os.path.realpath(os.path.expanduser(name)) if is_file(name) else name


def fetch(name: str) -> list[Path]:
    """Find or download the files of a set, verify them, and return their paths. The errors are those of `load`."""
    return [files.fetch(source) for source in (*_entry(name).sources, *_entry(name).labels)]


def missing(name: str) -> tuple[str, ...]:
    """The files of a set that are neither in $VAEPRIORS_DATA nor in the cache.

    >>> missing("digits")
    ()
    """
    entry = _entry(name)
    if entry.packed is not None and files.find(entry.packed) is not None:
        return ()
    return tuple(source.path for source in entry.sources if files.find(source) is None)


def _entry(name: str) -> Entry:
    if name in CATALOGUE:
        return CATALOGUE[name]
    if os.sep in name or "." in name:
        kinds = ", ".join((".npy", ".npz", *frames.SUFFIXES))
        state = f"is none of {kinds}" if os.path.exists(os.path.expanduser(name)) else "does not exist"
        raise ValueError(
            f"{name!r} looks like a path but {state}: custom data are a file {kinds}, or a folder of .npy or images"
        )
    hint = f"did you mean {' or '.join(map(repr, close))}? " if (close := _similar(name)) else ""
    raise ValueError(f"unknown data set {name!r}: {hint}Known are {', '.join(CATALOGUE)}, and the path of a file")


def _similar(name: str) -> list[str]:
    """Names that contain this one, as static_mnist contains mnist; otherwise the closest one."""
    return [known for known in CATALOGUE if name.lower() in known] or difflib.get_close_matches(name, CATALOGUE, n=1)
