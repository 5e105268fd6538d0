r"""What a latent space does.

A unit j of z is active if its posterior mean follows the data, $\mathrm{Var}_x(\mathbb{E}_q[z_j|x]) > 0.01$
(Burda, Grosse & Salakhutdinov 2016, section 5.2).

Whether a latent plane has learned an angle is told by a regression on its own polar angle, `angle_regression`
(Klushyn et al. 2019, table 1).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaepriors.nn import evaluating
from vaepriors.vae import VAE

__all__ = ["AngleRegression", "active_units", "activity", "angle_regression"]


@torch.no_grad()
def activity(model: VAE, x: Tensor, n: int = 32, chunk: int = 1000) -> Tensor:
    r"""$\mathrm{Var}_x(\mathbb{E}_q[z_j|x])$ of each unit, of shape `(latent,)`.

    A chain has no posterior mean in closed form. The covariance over x of two means over n independent draws each
    estimates the variance without bias, whatever the posterior.

    Args:
        model: The model.
        x: Data, of shape `(batch, *event)`, at least two.
        n: Draws in each of the two means.
        chunk: Examples encoded at a time.
    """
    if len(x) < 2:
        raise ValueError(f"a variance over {len(x)} example is not defined: give at least 2")
    with evaluating(model):
        means = [model.encoder(batch).sample((2, n)).mean(1) for batch in x.split(chunk)]
    first, second = torch.cat(means, dim=1).double()  # (batch, latent) each
    return ((first - first.mean(0)) * (second - second.mean(0))).sum(0) / (len(x) - 1)


def active_units(model: VAE, x: Tensor, threshold: float = 0.01) -> int:
    """The number of units whose activity is above the threshold."""
    return int((activity(model, x) > threshold).sum())


class AngleRegression(NamedTuple):
    """How well the polar angle in the latent plane tells a true angle."""

    error: float  # mean absolute error, in radians
    winding: int  # turns in the latent plane while the true angle makes one; only 1 and -1 are one to one


def angle_regression(z: Tensor, angles: Tensor) -> AngleRegression:
    r"""Ordinary least squares of the true angle on the polar angle of z around the mean of all z.

    In the order of the true angles, the polar angle is unwrapped (each step taken as the shorter way round), the line
    fitted, and the error of its prediction wrapped into $[-\pi, \pi)$. (Klushyn et al. 2019, appendix B.3, regress on
    $\arcsin(z_2 / r)$; their exact procedure is not given, this one is ours.) Guessing has an error of $\pi / 2$.

    Args:
        z: Posterior means, of shape `(N, 2)`.
        angles: True angles in radians, of shape `(N,)`.

    Raises:
        ValueError: If z is not in a plane, or there are fewer than three points.

    >>> angles = torch.linspace(0, 2 * math.pi, 100)[:-1]
    >>> ring = torch.stack([3 + 2 * angles.cos(), -2 * angles.sin()], 1)
    >>> found = angle_regression(ring, angles)
    >>> round(found.error, 4), found.winding
    (0.0, -1)
    """
    if z.dim() != 2 or z.shape[1] != 2 or len(z) < 3 or angles.shape != z.shape[:1]:
        raise ValueError(
            f"z has shape {tuple(z.shape)} and angles {tuple(angles.shape)}: (N, 2) and (N,) are needed, N at least 3"
        )
    true, order = angles.double().cpu().sort()
    centred = (z.double().cpu() - z.double().cpu().mean(0))[order]
    polar = np.unwrap(torch.atan2(centred[:, 1], centred[:, 0]).numpy())
    turn = np.unwrap([polar[-1], polar[0]])[1] - polar[0]  # what is left to the closed curve, in whole turns
    slope, intercept = np.polyfit(polar, true.numpy(), 1)
    error = np.mod(true.numpy() - (slope * polar + intercept) + math.pi, 2 * math.pi) - math.pi
    return AngleRegression(float(np.abs(error).mean()), round(turn / (2 * math.pi)))
