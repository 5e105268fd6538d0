"""What a name of the catalogue, or the path of custom data, loads."""

import os
from pathlib import Path
from typing import Any

from vaepriors.data import files, frames, own, table
from vaepriors.data.catalogue import CATALOGUE, entry_of
from vaepriors.data.conditions import condition_on
from vaepriors.data.dataset import LIKELIHOODS, Dataset
from vaepriors.data.images import is_image_folder
from vaepriors.words import a_type

__all__ = ["absolute", "is_file", "load"]


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
    if not isinstance(name, (str, Path)):
        raise ValueError(f"name is {a_type(name)}: give a name or a path, or make a Dataset of your arrays")
    if stream not in ("auto", "yes", "no"):
        raise ValueError(f"unknown stream {stream!r}: choose one of auto, yes, no")
    if likelihood not in ("auto", *LIKELIHOODS):
        raise ValueError(f"unknown likelihood {likelihood!r}: choose one of auto, {', '.join(LIKELIHOODS)}")
    if is_file(name):
        options: Any = {"condition": condition, "standardize": standardize, "stream": stream}
        return _load_custom(name, seed, likelihood, columns, layer, image_size, options)
    entry = entry_of(name)
    for what, value in {"columns": columns, "layer": layer, "image_size": image_size}.items():
        if value is not None:
            raise ValueError(f"{what} is {value}, but {name} is not a custom file: leave it out")
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
        raise ValueError(f"image_size is {image_size}, but {path} is not a folder of images: leave it out")
    if not is_table and path.suffix.lower() not in frames.SUFFIXES:
        return own.load(path, seed, likelihood, **options)
    if options.pop("stream") == "yes":
        raise ValueError(f"stream is yes, but {path} is read as a table, into memory: leave it out")
    return table.load(path, seed, likelihood, columns=columns, layer=layer, **options)


def _check_images(path: Path, is_table: bool, stream: str, image_size: int | None) -> None:
    """Refuse options that a folder of images does not take."""
    if is_table:
        raise ValueError(
            f"{path} is a folder of images, not a table: leave out columns, layer and the likelihood mixed"
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
