"""Digits: 1,797 real handwritten digits, 8 x 8 (Alpaydin & Kaynak, 1998), shipped inside scikit-learn: no download.

A pixel counts the ink, 0..16, in a 4 x 4 block of a 32 x 32 bitmap: level / 16 is a probability of ink.
"""

import torch

from vaepriors.data.dataset import Dataset
from vaepriors.data.draws import binarize_once, shuffled_split


def load(seed: int = 0) -> Dataset:
    """Digits: 1,297 / 250 / 250, dynamic. The split is shuffled once with seed 0 for all; `seed` has no effect."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    probabilities, classes = torch.from_numpy(loaded.images).float().unsqueeze(1) / 16, torch.from_numpy(loaded.target)
    bits = binarize_once(probabilities)
    train, valid, test = shuffled_split(len(probabilities), 250, 250, seed=0)
    labels = {"train": classes[train], "valid": classes[valid], "test": classes[test]}
    return Dataset("digits", probabilities[train], bits[valid], bits[test], "bernoulli", dynamic=True, labels=labels)
