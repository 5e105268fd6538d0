"""The mixture of free normals, the plainest learned prior."""

from collections.abc import Callable

import torch
from torch import nn

from vaepriors.distributions import NormalMixture
from vaepriors.limits import at_least_one

__all__ = ["MixtureOfGaussians"]


class MixtureOfGaussians(nn.Module):
    r"""Mixture of K diagonal normals with equal weights, means and variances free (Tomczak & Welling 2018, "MoG").

    Means start as standard normal draws and log-variances at 0 (our choice; the paper does not say).

    Args:
        features: Size of z.
        components: K.

    >>> MixtureOfGaussians(2, components=10)().log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    __call__: Callable[..., NormalMixture]

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        at_least_one(features=features, components=components)
        self.loc = nn.Parameter(torch.randn(components, features))
        self.log_var = nn.Parameter(torch.zeros(components, features))

    def forward(self) -> NormalMixture:
        return NormalMixture(self.loc, torch.exp(self.log_var / 2))
