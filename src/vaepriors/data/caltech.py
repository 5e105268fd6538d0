"""Caltech 101 Silhouettes: 28 x 28 outlines of objects of 101 classes (Marlin, Swersky, Chen & de Freitas, 2010).

Upstream stores 0 for the object, 1 for the background, and each image by columns; here x = 1 is the object.
"""

import numpy as np
import torch

from vaepriors.data.dataset import Dataset
from vaepriors.data.files import Source, read_mat

SILHOUETTES = Source(
    "caltech101_silhouettes/caltech101_silhouettes_28_split1.mat",
    "md5:4483e9c14b188fd09937f9ea6f9ea777",
    ("https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat",),
)
KEYS = ("train_data", "val_data", "test_data")


def load(seed: int = 0, source: Source = SILHOUETTES) -> Dataset:
    """Caltech 101 Silhouettes: 4,100 / 2,264 / 2,307 binary images. The split is fixed, `seed` has no effect."""
    images = (1 - x.reshape(-1, 1, 28, 28).swapaxes(2, 3) for x in read_mat(source, KEYS))
    train, valid, test = (torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)) for x in images)
    return Dataset("caltech101", train, valid, test, likelihood="bernoulli", pseudo=(0.5, 0.02))
