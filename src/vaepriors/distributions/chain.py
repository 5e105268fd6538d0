"""Distributions of two levels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaepriors.distributions.asking import (
    Auxiliary,
    Normalizer,
    at_noise,
    auxiliary,
    noise_of,
    point_estimate,
    rsample_and_log_prob,
)
from vaepriors.distributions.shaped import Shape, ShapedDistribution

__all__ = ["Chain"]


class Chain(ShapedDistribution):
    r"""Distribution of $[a, b]$, where b is drawn given a: $\log p(a, b) = \log p(a) + \log p(b \mid a)$.

    Args:
        first: p(a), over vectors.
        then: a -> p(b|a), over vectors; it may close over other inputs, such as features of x.
        sizes: The sizes of a and b.

    Raises:
        ValueError: If p(a), or later p(b|a), is not over vectors of its size.

    >>> from vaepriors.distributions import DiagonalNormal
    >>> first = DiagonalNormal(torch.zeros(3, 2), torch.ones(3, 2))
    >>> chain = Chain(first, lambda a: DiagonalNormal(a.sum(-1, keepdim=True), torch.ones(1)), sizes=(2, 1))
    >>> z, log_prob = chain.rsample_and_log_prob((5,))
    >>> z.shape, torch.allclose(log_prob, chain.log_prob(z), atol=1e-5)
    (torch.Size([5, 3, 3]), True)
    """

    support = constraints.real_vector

    def __init__(self, first: Distribution, then: Callable[[Tensor], Distribution], sizes: tuple[int, int]) -> None:
        self.first, self.then, self.sizes = _over(first, sizes[0], "first"), then, sizes
        super().__init__(first.batch_shape, (sum(sizes),))

    def _then(self, a: Tensor) -> Distribution:
        """p(b|a)."""
        return _over(self.then(a), self.sizes[1], "second")

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "Chain":
        return Chain(self.first.expand(torch.Size(batch_shape)), self.then, self.sizes)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.first.has_rsample

    @property
    def normalizer(self) -> Normalizer | None:
        """The estimated constant of p(a), if it has one (see `Normalizer`)."""
        return getattr(self.first, "normalizer", None)

    def shifted(self, errors: float) -> "Chain":
        """The same with the estimated constant of p(a) moved by a number of standard errors."""
        first: Any = self.first
        return Chain(first.shifted(errors), self.then, self.sizes)

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError("the mean of a Chain has no closed form: average draws, or take `point_estimate()`")

    def point_estimate(self) -> Tensor:
        """The mean of a, and the mean of b given that a (see the function of the same name)."""
        a = point_estimate(self.first)
        return torch.cat([a, point_estimate(self._then(a))], -1)

    def factors(self, value: Tensor) -> dict[str, tuple[Distribution, Tensor]]:
        """p(a) and p(b|a), as levels `z2` and `z1` (see the function of the same name)."""
        a, b = value.split(self.sizes, -1)
        return {"z2": (self.first, a), "z1": (self._then(a), b)}

    def auxiliary(self) -> Auxiliary | None:
        """The joint distribution of [u, a, b], if a has a u (see the function of the same name)."""
        of_a = auxiliary(self.first)
        if of_a is None:
            return None
        (a, b), u = self.sizes, of_a.size
        joint = Chain(of_a.joint, lambda ua: self.then(ua[..., u:]), (u + a, b))
        return Auxiliary(joint, lambda z: of_a.posterior(z[..., :a]), u)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "z")
        a, b = value.split(self.sizes, -1)
        return self.first.log_prob(a) + self._then(a).log_prob(b)

    def at_noise(self, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """[a, b], where b is at its noise given a (see the function of the same name)."""
        of_a, of_b = epsilon.split(self.sizes, -1)
        a, log_det_a = at_noise(self.first, of_a)
        b, log_det_b = at_noise(self._then(a), of_b)
        return torch.cat([a, b], -1), log_det_a + log_det_b

    def noise_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The noise of a, and that of b given a (see the function of the same name)."""
        a, b = value.split(self.sizes, -1)
        of_a, log_det_a = noise_of(self.first, a)
        of_b, log_det_b = noise_of(self._then(a), b)
        return torch.cat([of_a, of_b], -1), log_det_a + log_det_b

    def rsample_and_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """[a, b] and its log-density, with p(b|a) computed once (see the function of the same name)."""
        a, log_p_a = rsample_and_log_prob(self.first, sample_shape)
        b, log_p_b = rsample_and_log_prob(self._then(a))
        return torch.cat([a, b], -1), log_p_a + log_p_b

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        a = self.first.rsample(torch.Size(sample_shape))
        return torch.cat([a, self._then(a).rsample()], -1)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        a = self.first.sample(torch.Size(sample_shape))
        return torch.cat([a, self._then(a).sample()], -1)


def _over(p: Distribution, size: int, which: str) -> Distribution:
    """The distribution, refused if it is not over vectors of this size, of which each value would broadcast."""
    if getattr(p, "event_shape", (size,)) != (size,):
        raise ValueError(
            f"the {which} of the sizes of a chain is {size}, but its distribution has event shape "
            f"{tuple(p.event_shape)}: give the size of its network, and wrap single coordinates as Independent(p, 1)"
        )
    return p
