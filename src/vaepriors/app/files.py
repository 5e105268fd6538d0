"""The examples that a command reads, and the new file that it writes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vaepriors.data import Dataset
from vaepriors.data.examples import Examples, examples_of

__all__ = ["check_new", "choose_examples", "spaced"]


def choose_examples(dataset: Dataset, split: str, file: Path | None) -> Examples:
    """The examples of a split, or those of another file; not both."""
    if file is None:
        return examples_of(dataset, split)
    if split != "test":
        raise ValueError(f"split is {split}, but the examples are those of {file}: leave one of the two out")
    return dataset.read(file)


def spaced(number: int, size: int) -> Tensor:
    """The places of `number` examples that are evenly spaced among `size`.

    Many files are in the order of their classes, so the first examples would be of one class.

    >>> spaced(3, 10)
    tensor([0, 3, 6])
    """
    return torch.arange(number) * size // number


def check_new(path: Path, kinds: Sequence[str]) -> None:
    """Refuse an `out` that is not a new file of one of these kinds, in a folder that exists, before the work."""
    if path.suffix.lower() not in kinds:
        raise ValueError(f"out is {path}: give a file that ends in {' or '.join(kinds)}")
    if path.exists():
        raise ValueError(f"{path} exists already: choose another --out")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is no folder: choose another --out")
