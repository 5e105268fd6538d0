"""A folder of image files as arrays of bytes, (N, C, H, W).

    photos/*.png                all images, split by seed
    photos/cat/*.png, ...       the same, with labels 0, 1, ... in the order of the names of the classes
    photos/train/..., ...       splits, each of one of these kinds; valid, or valid and test, may be missing

Images are in the order of their paths. Gray images have one channel. If any image has colour, all have three: gray ones
are repeated. A palette is colour. Pixels are the levels 0..255 of the file: colour profiles are not applied, and images
of 16 bits, of several frames, or of other colours, such as CMYK, are refused. The orientation of EXIF is applied.
Transparent pixels are put on white. All images have one size, or get one: the shorter side is scaled to it by
Pillow's bicubic filter, which averages where it makes smaller, and the middle is kept.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaepriors.data.arrays import SPLITS, Header, check_limit, check_spelling
from vaepriors.data.pixels import common_size, doubt_about, read_header, read_levels

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class Images(NamedTuple):
    """The arrays of a folder, such as `train` and `train_labels`, the names of the labels, and doubts."""

    arrays: dict[str, np.ndarray]
    label_names: tuple[str, ...]
    doubts: tuple[str, ...]


class _Split(NamedTuple):
    """The images of a folder, and the class of each, or None without classes."""

    files: list[Path]
    classes: list[str] | None


def is_image_folder(path: Path) -> bool:
    """Whether a folder has an image, in itself, in its folders or in theirs; hidden files do not count."""
    return os.path.isdir(path) and any(map(_is_image, _files(path)))


def read_images(path: Path, image_size: int | None = None) -> Images:
    """Read a folder of images, scaled to squares of `image_size` pixels; they keep their size unless it is given.

    Sizes and colours are compared by the headers, before any image is decoded.
    """
    splits = {name: _find(folder) for name, folder in _split_folders(path).items()}
    others = [file for file in _files(path) if not _is_image(file)]
    _check_arrays(path, others)
    names = _label_names(path, splits)
    forms = {file: read_header(file) for each in splits.values() for file in each.files}
    height, width = common_size(forms) if image_size is None else (image_size, image_size)
    event = (1 if all(form.gray for form in forms.values()) else 3, height, width)
    headers = {name: Header((len(each.files), *event), np.dtype(np.uint8)) for name, each in splits.items()}
    check_limit(path, headers)
    levels, doubts = read_levels(forms, event, image_size)
    arrays, start, numbers = {}, 0, {name: number for number, name in enumerate(names)}
    for name, each in splits.items():
        arrays[name] = levels[start : start + len(each.files)]
        start += len(each.files)
        if each.classes is not None:
            arrays[f"{name}_labels"] = np.array([numbers[one] for one in each.classes])
    ignored = doubt_about("other files are not read", others, "move them away, or convert them if they are images")
    return Images(arrays, names, (*ignored, *doubts))


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files of a folder, without hidden ones, in the order of their names."""
    try:
        with os.scandir(folder) as entries:
            visible = sorted((each for each in entries if not each.name.startswith(".")), key=lambda each: each.name)
        folders = [Path(each.path) for each in visible if each.is_dir()]
        return folders, [Path(each.path) for each in visible if not each.is_dir()]
    except OSError as error:
        raise ValueError(f"{folder} cannot be opened ({error.strerror}): make it readable, or remove it") from error


def _files(folder: Path, depth: int = 2) -> Iterator[Path]:
    """The files in a folder, and in readable folders down to a depth."""
    folders, files = _entries(folder)
    yield from files
    for each in folders if depth else ():
        if os.access(each, os.R_OK | os.X_OK):
            yield from _files(each, depth - 1)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _check_arrays(path: Path, others: Sequence[Path]) -> None:
    arrays = [each for each in others if each.suffix.lower() in (".npy", ".npz")]
    if arrays:
        raise ValueError(f"{path} holds images and {arrays[0].relative_to(path)}: move one of them elsewhere")


def _split_folders(path: Path) -> dict[str, Path]:
    """The folder of each split; the folder itself as train if it has none."""
    folders, files = _entries(path)
    check_spelling(path, (each.name for each in folders))
    names = [name for name in SPLITS if path / name in folders]
    if not names:
        return {"train": path}
    beside = [each for each in folders if each.name not in names] + [each for each in files if _is_image(each)]
    if beside:
        raise ValueError(f"{path} holds {beside[0].name} beside {', '.join(names)}: move it into one of them, or away")
    if names not in (["train"], ["train", "test"], list(SPLITS)):
        raise ValueError(
            f"{path} holds the folders {', '.join(names)}: give train, valid and test, or train and test to have valid "
            "split from train, or train alone to have both split from it"
        )
    return {name: path / name for name in names}


def _find(folder: Path) -> _Split:
    """The images in a folder, or in its folders, one for each class."""
    folders, files = _entries(folder)
    images = [each for each in files if _is_image(each)]
    if not folders and not images:
        raise ValueError(f"{folder} holds no image: add some, or remove it")
    if not folders:
        return _Split(images, None)
    if images:
        raise ValueError(
            f"{folder} holds {images[0].name} and the folder {folders[0].name}: put all images into folders, one for "
            "each class, or none"
        )
    classes = []
    for each in folders:
        inner, files = _entries(each)
        if inner:
            raise ValueError(f"{inner[0]} is a folder in that of the class {each.name}: put its images into {each}")
        inside = [file for file in files if _is_image(file)]
        if not inside:
            raise ValueError(f"{each} is the folder of a class without images: add some, or remove it")
        images += inside
        classes += [each.name] * len(inside)
    return _Split(images, classes)


def _label_names(path: Path, splits: Mapping[str, _Split]) -> tuple[str, ...]:
    """The classes of train in the order of their names, which those of the other splits are compared with."""
    names = sorted(set(splits["train"].classes or ()))
    for split, each in splits.items():
        if bool(each.classes) != bool(names):
            first, second = ("train", split) if names else (split, "train")
            raise ValueError(f"{path} has folders of classes in {first}, but not in {second}: give them in all or none")
        unknown = sorted(set(each.classes or ()).difference(names))
        if unknown:
            raise ValueError(
                f"{path / split} has the class {unknown[0]}, which train does not have: add it there, or remove it"
            )
    return tuple(names)
