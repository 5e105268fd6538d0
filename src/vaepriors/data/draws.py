"""Random pixels and splits that are the same on every machine."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["binarize_once", "binarize_rows", "shuffled_split"]

BINARIZATION_SEED = 2018


def binarize_once(probabilities: Tensor, stream: int = 0) -> Tensor:
    """Draw x ~ Bernoulli(probabilities) with a seed that never changes.

    Args:
        probabilities: Numbers in [0, 1], of shape `(N, *event_shape)`.
        stream: Different streams give independent draws.

    Returns:
        Zeros and ones as float32, of the same shape. The same arguments give the same bits on every machine.
    """
    generator = np.random.default_rng([BINARIZATION_SEED, stream])
    uniform = generator.random(tuple(probabilities.shape), dtype=np.float32)  # in [0, 1): p = 0 and p = 1 are exact
    return (torch.from_numpy(uniform) < probabilities).float()


def binarize_rows(probabilities: Tensor, rows: np.ndarray, stream: int = 0) -> Tensor:
    """Some rows of `binarize_once(all, stream)`, from the probabilities of these rows alone."""
    size, bits = probabilities.shape[1:].numel(), np.random.PCG64([BINARIZATION_SEED, stream])
    generator, beginning = np.random.Generator(bits), bits.state
    uniform = np.empty((len(rows), size), np.float32)
    for number, row in enumerate(rows.tolist()):
        bits.state = beginning
        pairs, odd = divmod(row * size, 2)  # 64 random bits are two numbers
        bits.advance(pairs)
        uniform[number] = generator.random(size + odd, dtype=np.float32)[odd:]
    return (torch.from_numpy(uniform).view(probabilities.shape) < probabilities).float()


def shuffled_split(number: int, valid: int, test: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split the indices of `number` points at random into train, valid and test."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(number))
    train, held_out = order[: number - valid - test], order[number - valid - test :]
    return train, held_out[:valid], held_out[valid:]
