"""A distribution under test: its draws and log-densities as plain arrays over R^D."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform, biject_to, identity_transform

from vaepriors.distributions import support_of
from vaepriors.words import a_type

__all__ = ["RealSubject", "Subject", "in_chunks", "shift_of_normalizer", "variance_of_mean"]

CHUNK = 500  # values whose density is computed at a time: 100 MB for a mixture of 25,000 components
BLOCKS = 40  # calls for the values of an estimated density: those of one call may share their noise, as of `SNIS`


def in_chunks(function: Callable[[Tensor], Tensor], values: Tensor, size: int) -> Tensor:
    """Apply a function to rows, a chunk at a time."""
    return torch.cat([function(part) for part in values.split(max(1, size))])


def variance_of_mean(values: Tensor, blocks: int | None = None) -> Tensor:
    """The variance of the mean over rows; the larger one if the rows of each of some blocks may share their noise."""
    alone = values.var(0) / len(values)
    if blocks is None:
        return alone
    size = max(1, len(values) // blocks)
    means = values[: len(values) // size * size].unflatten(0, (-1, size)).mean(1)
    return torch.maximum(alone, means.var(0) / len(means))


def shift_of_normalizer(distribution: Distribution, z: Tensor) -> Tensor:
    """What one standard error of an estimated constant adds to log p(z), of its shape; 0 without such a constant."""
    known: Any = distribution
    if not hasattr(known, "shifted") or known.normalizer is None:
        return z.new_zeros(z.shape[: z.dim() - len(known.event_shape)])
    with torch.no_grad():
        return known.shifted(1).log_prob(z) - known.log_prob(z)


class Subject:
    """A distribution p, seen as B distributions over arrays of D numbers, one for each place of its batch.

    Args:
        distribution: p. Its batch may have any shape.
    """

    def __init__(self, distribution: Distribution) -> None:
        missing = [
            name for name in ("log_prob", "sample", "batch_shape", "event_shape") if not hasattr(distribution, name)
        ]
        if missing:
            raise ValueError(
                f"{a_type(distribution)} has no {', '.join(missing)}: check needs a torch.distributions."
                "Distribution, or a module that returns one"
            )
        self.distribution = distribution
        self.batch_shape, self.event_shape = distribution.batch_shape, distribution.event_shape
        self.members = self.batch_shape.numel()
        self.support = support_of(distribution)

    def sample(self, n: int) -> Tensor:
        """n draws, of shape `(n, *batch, *event)`."""
        rows = max(1, CHUNK // self.members)
        with torch.no_grad():
            return torch.cat(
                [self.distribution.sample(torch.Size((min(rows, n - done),))) for done in range(0, n, rows)]
            )

    def log_prob(self, z: Tensor, blocks: int | None = None) -> Tensor:
        """log p(z) in double precision, of shape `(n, B)`, for z of shape `(n, *batch, *event)`, in blocks as for
        `variance_of_mean`.
        """
        with torch.no_grad():
            log_prob = in_chunks(self.distribution.log_prob, z, len(z) // blocks if blocks else CHUNK // self.members)
        return log_prob.double().reshape(len(z), self.members)

    def log_prob_or_zero(self, z: Tensor, instead: Tensor) -> Tensor:
        """The same, and -inf outside of the support, where a density of `instead[0]` is computed."""
        if self.support is None:
            return self.log_prob(z)
        inside = self.inside(z)
        within = inside.reshape(len(z), *self.batch_shape, *[1] * len(self.event_shape))
        return self.log_prob(torch.where(within, z, instead[:1])).masked_fill(~inside, -math.inf)

    def inside(self, z: Tensor) -> Tensor:
        """Whether each draw is finite and within the support, of shape `(n, B)`."""
        inside = z.isfinite().reshape(len(z), self.members, -1).all(-1)
        if self.support is None:
            return inside
        return inside & self.support.check(z).reshape(len(z), self.members, -1).all(-1)


class RealSubject(Subject):
    """A density as one over R^D, by a map from R^D onto its support.

    Args:
        distribution: p.
        calls: Calls of `log_prob` whose exponentials are averaged: more than one for a density that is estimated.

    Raises:
        ValueError: If no map onto its support is known.
    """

    def __init__(self, distribution: Distribution, calls: int = 1) -> None:
        super().__init__(distribution)
        self.calls = calls
        self.map = _map_onto(self.support)
        self.shape = torch.Size(self.map.inverse_shape(self.event_shape))

    def flat(self, z: Tensor) -> Tensor:
        """Values as y in R^D, of shape `(n, B, D)`, in double precision."""
        return self.map.inv(z.double()).reshape(len(z), self.members, -1)

    def values(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        return self.map(y.reshape(len(y), *self.batch_shape, *self.shape).to(dtype))

    def log_density(self, y: Tensor, dtype: torch.dtype, blocks: int | None = None) -> Tensor:
        """The log-density of y, of shape `(n, B)`: that of z, plus log |dz/dy|; in blocks as for `variance_of_mean`."""
        size = len(y) // blocks if blocks else CHUNK // self.members
        return in_chunks(lambda part: self._log_density(part, dtype).detach(), y, size)

    def _log_density(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        shaped = y.reshape(len(y), *self.batch_shape, *self.shape).to(dtype)
        z = self.map(shaped)
        exact = self.map.inv(z).reshape(len(y), self.members, -1).isfinite().all(-1)  # or rounded to the support's edge
        within = exact.reshape(len(y), *self.batch_shape, *[1] * len(self.shape))
        shaped = torch.where(within, shaped, torch.zeros_like(shaped))
        z = self.map(shaped)
        each = torch.stack([self.distribution.log_prob(z).double() for _ in range(self.calls)])
        log_prob = (each.logsumexp(0) - math.log(self.calls)).reshape(len(y), self.members)
        volume = self.map.log_abs_det_jacobian(shaped, z).double().reshape(len(y), self.members, -1).sum(-1)
        return (log_prob + volume).masked_fill(~exact, -math.inf)

    def shift(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """What one standard error of an estimated constant adds to the log-density of y, of shape `(n, B)`."""
        if self.calls > 1:  # the difference of two random numbers
            return torch.zeros(len(y), self.members, dtype=torch.float64, device=y.device)
        z = self.values(y, dtype)
        shift = in_chunks(lambda part: shift_of_normalizer(self.distribution, part), z, CHUNK // self.members)
        return shift.double().reshape(len(y), self.members)

    def agreement(self, z: Tensor) -> float:
        """Effective share of the calls of an estimated density, 1 if they agree: its lowest decile over z."""
        each = torch.stack([self.log_prob(z) for _ in range(self.calls)]).softmax(0)
        return float((1 / each.square().sum(0)).quantile(0.1) / self.calls)

    def score(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """The gradient of the log-density in y, of shape `(n, B, D)`.

        Raises:
            RuntimeError: If it is not differentiable.
        """

        def gradient(part: Tensor) -> Tensor:
            with torch.enable_grad():
                part = part.detach().requires_grad_()
                return torch.autograd.grad(self._log_density(part, dtype).sum(), part)[0]

        return in_chunks(gradient, y, CHUNK // self.members)


def _map_onto(support: Any) -> Transform:
    """A smooth map from R^D onto a support; that of a mixture is its components'."""
    if support is None:
        return identity_transform
    try:
        return biject_to(support)
    except NotImplementedError as error:
        if hasattr(support, "base_constraint"):
            return _map_onto(support.base_constraint)
        raise ValueError(f"no smooth map onto the support {support} is known") from error
