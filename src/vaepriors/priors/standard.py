"""The standard normal prior."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaepriors.distributions import DiagonalNormal
from vaepriors.limits import at_least_one

__all__ = ["StandardNormal"]


class StandardNormal(nn.Module):
    """N(0, I) over `features` dimensions.

    >>> StandardNormal(2)().sample((5,)).shape
    torch.Size([5, 2])
    """

    __call__: Callable[..., DiagonalNormal]

    def __init__(self, features: int) -> None:
        super().__init__()
        at_least_one(features=features)
        self.loc: Tensor
        self.scale: Tensor
        self.register_buffer("loc", torch.zeros(features), persistent=False)
        self.register_buffer("scale", torch.ones(features), persistent=False)

    def forward(self) -> DiagonalNormal:
        return DiagonalNormal(self.loc, self.scale)
