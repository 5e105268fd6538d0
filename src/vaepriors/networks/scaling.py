r"""Real columns on scales of their own: networks compute with standardised values, and model the data as given.

$$u_j = (x_j - m_j) / s_j, \qquad \log p(x) = \log p(u) - \sum_j \log s_j$$

Encoders see u, a head returns p(u|z) as a distribution over x, and a VampPrior learns its pseudo-inputs as u. So
likelihoods, draws and reconstructions are in the units of the data, with and without standardisation.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaepriors.distributions import Shape, ShapedDistribution
from vaepriors.networks.layers import DenseToEvent

__all__ = ["Moments", "Standardize", "Standardized", "StandardizedHead", "moments"]

Moments = tuple[Tensor, Tensor]
"""Mean and standard deviation of each column."""
ROWS = 10_000  # converted to double precision at a time


def moments(x: Tensor) -> Moments:
    """Mean and standard deviation of each column over the rows where it is not NaN, in the precision of x.

    The standard deviation of a constant column, or of one without values, counts as 1. The sums are in double
    precision. The mean is rounded to the precision of x, so that x - mean is exact for x near it.

    >>> mean, scale = moments(torch.tensor([[1.0, 5.0], [3.0, 5.0], [torch.nan, 5.0]]))
    >>> mean.tolist(), scale.tolist()
    ([2.0, 5.0], [1.0, 1.0])
    """
    blocks = x.split(ROWS)
    number = sum((~b.isnan()).sum(0) for b in blocks).clamp(min=1)
    mean: Tensor = sum(b.double().nansum(0) for b in blocks) / number
    mean = mean.to(x.dtype).double()
    squares = sum((b.double() - mean).square().nansum(0) for b in blocks)
    scale = (squares / number).sqrt()
    constant = scale <= 1e-9 * mean.abs()  # less is rounding
    return mean.to(x.dtype), torch.where(constant, 1.0, scale).to(x.dtype)


class Standardize(nn.Module):
    """x -> u = (x - mean) / scale, of each column.

    Args:
        mean: Of shape `(D,)`.
        scale: Positive, of the same shape.

    >>> scaling = Standardize(torch.tensor([4000.0]), torch.tensor([2.0]))
    >>> scaling(torch.tensor([[4001.0]])), scaling.inverse(torch.tensor([[0.5]]))
    (tensor([[0.5000]]), tensor([[4001.]]))
    """

    __call__: Callable[..., Tensor]

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale

    def inverse(self, u: Tensor) -> Tensor:
        """u -> x."""
        return self.mean + self.scale * u


class Standardized(ShapedDistribution):
    r"""The distribution of x for which u = (x - mean) / scale has the distribution `base`.

    $$\log p(x) = \log p(u) - \sum_j \log s_j$$

    Args:
        base: p(u), over vectors of D numbers, or over one number at each of D places that end its batch shape.
        scaling: From x to u.
    """

    def __init__(self, base: Distribution, scaling: Standardize) -> None:
        self.base, self.scaling = base, scaling
        super().__init__(base.batch_shape, base.event_shape)

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "Standardized":
        return Standardized(self.base.expand(torch.Size(batch_shape)), self.scaling)

    @property
    def support(self) -> constraints.Constraint | None:
        return self.base.support

    @property
    def mean(self) -> Tensor:
        return self.scaling.inverse(self.base.mean)

    @property
    def variance(self) -> Tensor:
        return self.scaling.scale.square() * self.base.variance

    def residual(self, value: Tensor) -> Tensor:
        """u minus its mean (see `distributions.residual`)."""
        return self.scaling(value) - self.base.mean

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "x")
        log_scale = self.scaling.scale.log()
        return self.base.log_prob(self.scaling(value)) - (log_scale.sum() if self.event_shape else log_scale)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return self.scaling.inverse(self.base.sample(torch.Size(sample_shape)))


class StandardizedHead(nn.Module):
    """h -> p(x|z), from a head for u.

    Args:
        in_features: Size of the features.
        event_shape: Shape of one x, `(D,)`.
        layer: As for `BernoulliHead`.
        head: (in_features, event_shape, layer) -> a module from h to p(u|z).
        scaling: From x to u.
    """

    __call__: Callable[..., Standardized]

    def __init__(
        self,
        in_features: int,
        event_shape: Shape,
        layer: Any = DenseToEvent,
        *,
        head: Callable[..., nn.Module],
        scaling: Standardize,
    ) -> None:
        super().__init__()
        self.head, self.scaling = head(in_features, event_shape, layer), scaling

    def forward(self, h: Tensor) -> Standardized:
        return Standardized(self.head(h), self.scaling)
