r"""Pendulum: rendered images of a bob on a circle (Klushyn et al. 2019, section 4.1), 15,000 of 16 x 16.

The paper gives the number, the size, and that the angle is uniform. The rendering is our choice: with pixel centres in
[-1, 1], the bob at $b = 0.65\, (\sin a, \cos a)$, and no noise,

$$x_{ij} = \exp\big(-\|p_{ij} - b\|^2 / (2 \cdot 0.2^2)\big)$$

so that the two coordinates of z can describe it to the accuracy that the paper's constraint asks for.
"""

import math

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.dataset import Dataset

SIZE, RADIUS, WIDTH = 16, 0.65, 0.2


def render(angles: Tensor) -> Tensor:
    """Images of the pendulum, of shape (N, 1, 16, 16), for angles in radians, of shape (N,).

    >>> image = render(torch.tensor([math.pi / 2]))[0, 0]  # to the right
    >>> divmod(int(image.argmax()), SIZE)
    (7, 13)
    """
    axis = (torch.arange(SIZE, dtype=angles.dtype) + 0.5) / SIZE * 2 - 1
    across = (axis - RADIUS * angles.sin()[:, None]).square()
    down = (axis - RADIUS * angles.cos()[:, None]).square()
    return torch.exp(-(down[:, :, None] + across[:, None, :]) / (2 * WIDTH**2)).unsqueeze(1)


def load(seed: int = 0) -> Dataset:
    """Pendulum: 15,000 / 1,500 / 1,500 images, real-valued, labelled with the angle; `seed` has no effect."""
    angles = torch.from_numpy(np.random.default_rng(2019).uniform(0, 2 * math.pi, 18_000)).float()
    train, valid, test = angles.split([15_000, 1_500, 1_500])
    labels = {"train": train, "valid": valid, "test": test}
    return Dataset("pendulum", render(train), render(valid), render(test), likelihood="gaussian", labels=labels)
