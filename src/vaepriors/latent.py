r"""What a latent space does.

A unit j of z is active if its posterior mean follows the data, $\mathrm{Var}_x(\mathbb{E}_q[z_j|x]) > 0.01$
(Burda, Grosse & Salakhutdinov 2016, section 5.2).
"""

import torch
from torch import Tensor

from vaepriors.nn import evaluating
from vaepriors.vae import VAE

__all__ = ["active_units", "activity"]


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
