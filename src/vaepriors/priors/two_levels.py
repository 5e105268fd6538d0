"""The prior of a hierarchy: any prior of the upper level, and a conditional distribution of the lower one."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.conditional import hold_prior
from vaepriors.distributions import Chain

__all__ = ["TwoLevelPrior"]


class TwoLevelPrior(nn.Module):
    """p(z2) p(z1|z2), over z = [z2, z1] (Tomczak & Welling 2018, eq. 11 to 13).

    Called with y, as the prior of a conditional model, it is p(z2|y) p(z1|z2, y), of `top(y)` and `bottom(z2, y)`.

    Args:
        top: Module, () -> p(z2).
        bottom: Module, z2 -> p(z1|z2).
        sizes: Sizes of z2 and z1.

    >>> from vaepriors import networks, priors
    >>> prior = TwoLevelPrior(priors.StandardNormal(2), networks.conditional(2, [8], 3), sizes=(2, 3))
    >>> prior().sample((4,)).shape
    torch.Size([4, 5])
    """

    __call__: Callable[..., Chain]

    def __init__(self, top: nn.Module, bottom: nn.Module, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.top, self.bottom, self.sizes = top, bottom, sizes

    def forward(self, *y: Tensor) -> Chain:
        return self._chain(self.top(*y), y)

    def _chain(self, top: Distribution, y: tuple[Tensor, ...]) -> Chain:
        return Chain(top, (lambda z2: self.bottom(z2, *y)) if y else self.bottom, self.sizes)

    @property
    def without(self) -> Callable[..., Chain]:
        """The method of the top for both levels (see `ExemplarPrior`); missing if the top does not have it."""
        top: Any = self.top.without
        return lambda rows, *y: self._chain(top(rows, *y), y)

    def hold_prior(self) -> "TwoLevelPrior":
        """The same of a conditional model, with what all p(z2|y) share computed now."""
        return TwoLevelPrior(hold_prior(self.top), self.bottom, self.sizes)
