"""Normal distributions over vectors."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

from vaepriors.distributions.shaped import Shape, ShapedDistribution

__all__ = ["DiagonalNormal"]


class DiagonalNormal(ShapedDistribution):
    r"""Normal distribution with a diagonal covariance matrix, over vectors.

    $$\log N(z; \mu, \sigma) = -\sum_d \tfrac12 \epsilon_d^2 + \log \sigma_d + \tfrac12 \log 2\pi,
      \qquad \epsilon = (z - \mu) / \sigma$$

    Args:
        loc: Mean $\mu$, of shape `(*batch, D)`.
        scale: Standard deviation $\sigma > 0$, of a shape that broadcasts with it.

    >>> DiagonalNormal(torch.zeros(4, 2), torch.ones(2)).log_prob(torch.zeros(3, 4, 2)).shape
    torch.Size([3, 4])
    """

    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.independent(constraints.positive, 1)}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:])

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "DiagonalNormal":
        shape = (*batch_shape, *self.event_shape)
        return DiagonalNormal(self.loc.expand(shape), self.scale.expand(shape))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    @property
    def stddev(self) -> Tensor:
        return self.scale

    def _log_density(self, epsilon: Tensor) -> Tensor:
        constant = 0.5 * math.log(2 * math.pi) * self.event_shape[0]
        return -0.5 * epsilon.square().sum(-1) - self.scale.log().sum(-1) - constant

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "z")
        return self._log_density((value - self.loc) / self.scale)

    def marginal_log_prob(self, value: Tensor) -> Tensor:
        return Normal(self.loc, self.scale, validate_args=False).log_prob(value)

    def at_noise(self, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """loc + scale * epsilon, and the sum of log scale (see the function of the same name)."""
        return self.loc + self.scale * epsilon, self._log_scale(epsilon)

    def noise_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """(z - loc) / scale, and the sum of log scale (see the function of the same name)."""
        return (value - self.loc) / self.scale, self._log_scale(value)

    def _log_scale(self, value: Tensor) -> Tensor:
        return self.scale.log().sum(-1).expand(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))

    def rsample_and_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """z and log q(z), whose density is that of the noise (see the function of the same name)."""
        epsilon = torch.randn(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.loc + self.scale * epsilon, self._log_density(epsilon)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        return self.rsample_and_log_prob(sample_shape)[0]
