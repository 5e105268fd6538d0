"""Examples to encode or to evaluate, and the y of each for a conditional model."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.dataset import Dataset
from vaepriors.data.draws import binarize_rows
from vaepriors.data.rows import Points

__all__ = ["BinarizedOnce", "Examples", "examples_of"]


class Examples(NamedTuple):
    """Examples, and the y of each for a conditional model."""

    x: Points
    condition: Tensor | None = None


class BinarizedOnce:
    """Probabilities as the bits of `binarize_once`, of which only the selected rows are computed.

    >>> from vaepriors.data import binarize_once
    >>> p = torch.rand(5, 3)
    >>> torch.equal(BinarizedOnce(p)[2:4], binarize_once(p)[2:4])
    True
    """

    def __init__(self, probabilities: Points) -> None:
        self.probabilities = probabilities

    @property
    def shape(self) -> torch.Size:
        return self.probabilities.shape

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        chosen = np.arange(len(self))[rows.numpy() if isinstance(rows, Tensor) else rows]
        bits = binarize_rows(self.probabilities[torch.from_numpy(chosen.reshape(-1))], chosen.reshape(-1))
        return bits if chosen.ndim else bits[0]


def examples_of(dataset: Dataset, split: str) -> Examples:
    """The examples of a split as an evaluation sees them: probabilities of the training set become bits once."""
    x = getattr(dataset, split)
    return Examples(BinarizedOnce(x) if split == "train" and dataset.dynamic else x, dataset.conditions.get(split))
