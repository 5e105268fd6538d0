"""Random pixels and splits that are the same on every machine."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["binarize_once", "binarize_rows", "keep_known", "shuffled_split"]

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


def keep_known(unknown: Tensor, train: Tensor, *held_out: Tensor) -> tuple[Tensor, ...]:
    """Move held-out rows that a model of the training rows cannot know into train.

    Args:
        unknown: Which of all rows have a value, such as a rare category, that no training row has, of shape `(N,)`.
        train, held_out: The rows of a random split.

    Returns:
        The rows of train, then of the others. If one of these would lose more than half of its rows, none is moved.

    >>> keep_known(torch.tensor([0, 0, 0, 1, 0, 0]) > 0, *torch.tensor([[0, 1], [2, 3], [4, 5]]))
    (tensor([0, 1, 3]), tensor([2]), tensor([4, 5]))
    """
    kept = [rows[~unknown[rows]] for rows in held_out]
    if any(2 * len(few) < len(rows) for few, rows in zip(kept, held_out, strict=True)):
        return train, *held_out
    return torch.cat([train, *(rows[unknown[rows]] for rows in held_out)]), *kept
