"""Examples that a model draws, whose z is an exact draw from their posterior."""

from typing import NamedTuple

import torch
from torch import Tensor

from vaepriors.annealing.path import unrolled
from vaepriors.conditional import AnyVAE, check_condition, given
from vaepriors.limits import at_least_one

__all__ = ["Simulated", "simulate"]


class Simulated(NamedTuple):
    """Draws of x from a model, each with the z, or [u, z], that it was drawn from: an exact draw of p(z|x, y)."""

    x: Tensor  # (n, *event)
    z: Tensor  # (n, d)
    condition: Tensor | None = None  # (n, c), the y of each x

    def rows(self, start: int, end: int) -> "Simulated":
        """Those from `start` to `end`."""
        y = self.condition
        return Simulated(self.x[start:end], self.z[start:end], None if y is None else y[start:end])


def simulate(model: AnyVAE, n: int, condition: Tensor | None = None) -> Simulated:
    """n draws of x from a model, each with an exact draw of p(z|x), or of p(z|x, y).

    Args:
        model: The model.
        n: How many x to draw.
        condition: The y of the x, of shape `(N, c)`, for a `ConditionalVAE`: in their order, and from the first again
            where n is larger than N.

    Raises:
        ValueError: If `n` < 1, or conditions are missing or not those of the model.
    """
    at_least_one(n=n)
    check_condition(model, condition)
    y = None if condition is None else _repeated(condition.to(next(model.parameters(), condition)), n)
    at = given(model, y)
    joint, size = unrolled(at.prior())
    z = joint.sample(torch.Size((n,)) if y is None else ())  # the prior given y is of n distributions
    return Simulated(at.decoder(z[..., size:]).sample(), z, y)


def _repeated(y: Tensor, n: int) -> Tensor:
    if y.dim() != 2 or not len(y):
        raise ValueError(f"y has shape {tuple(y.shape)}: give at least one condition, of shape (N, c)")
    return y[torch.arange(n, device=y.device) % len(y)]
