"""Heads of decoders of counts, with size factors or a total."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaepriors.distributions import Multinomial, NegativeBinomial, Poisson, Shape, ShapedDistribution
from vaepriors.networks.heads.base import ToEvent, independent, single
from vaepriors.networks.layers import DenseToEvent

__all__ = ["Counts", "MultinomialHead", "NegativeBinomialHead", "PoissonHead"]


class Counts(ShapedDistribution):
    r"""Counts whose means are proportional to the size factor of the row, $s = \sum_d x_d / \text{total}$.

    $$\log p(x \mid s) = \sum_d \log p(x_d; s\, m_d)$$

    Size factors are given: the density takes that of each row from x itself, whatever it is. A row without counts has
    the factor of a single count, with which the network still learns from it. The masses of all x do not sum to one, as
    each x has its own factor, and `vaepriors.check` does not compare them. Draws, mean and variance are those of s = 1.

    Args:
        log_mean: $\log m$, of shape `(*batch, *event)`.
        event_dims: Number of dimensions of an event.
        total: The total of a row with s = 1.
        log_dispersion: Of negative binomials, of a shape that broadcasts with the mean; None for Poisson distributions.
    """

    given_total = True  # for `vaepriors.check`

    def __init__(self, log_mean: Tensor, event_dims: int, total: float, log_dispersion: Tensor | None = None) -> None:
        self.log_mean, self.total, self.log_dispersion = log_mean, total, log_dispersion
        cut = log_mean.dim() - event_dims
        super().__init__(log_mean.shape[:cut], log_mean.shape[cut:])

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "Counts":
        log_mean = self.log_mean.expand(*batch_shape, *self.event_shape)
        return Counts(log_mean, len(self.event_shape), self.total, self.log_dispersion)

    def given(self, log_factor: Tensor | float = 0.0) -> Distribution:
        """The distribution of x with these logarithms of size factors, which broadcast with the mean."""
        return _counts(self.log_mean + log_factor, len(self.event_shape), self.log_dispersion)

    def as_drawn(self) -> Distribution:
        """The distribution with s = 1 for every row (see the function of the same name)."""
        return self.given()

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.nonnegative_integer, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.given().mean

    @property
    def variance(self) -> Tensor:
        return self.given().variance

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "x")
        return self._of_row(value).log_prob(value)

    def residual(self, value: Tensor) -> Tensor:
        """The distance of counts from their means given the factor of the row (see `distributions.residual`)."""
        return value - self._of_row(value).mean

    def _of_row(self, value: Tensor) -> Distribution:
        """The distribution given the size factor that each row of counts has."""
        event = tuple(range(-len(self.event_shape), 0))
        return self.given((value.sum(event, keepdim=True).clamp(min=1) / self.total).log())

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return self.given().sample(torch.Size(sample_shape))


def _counts(log_mean: Tensor, event_dims: int, log_dispersion: Tensor | None) -> Distribution:
    """Negative binomials, or Poisson distributions without a dispersion."""
    if log_dispersion is None:
        return independent(Poisson(log_mean), event_dims)
    return independent(NegativeBinomial(log_mean, log_dispersion), event_dims)


class PoissonHead(nn.Module):
    """h -> independent counts with the variance of a Poisson distribution, for x in {0, 1, 2, ...}.

    Other arguments as for `BernoulliHead`.

    Args:
        total: The total of a row whose size factor is 1 (see `Counts`); without it, there are no size factors.
    """

    __call__: Callable[..., Distribution]

    def __init__(
        self, in_features: int, event_shape: Shape, layer: ToEvent = DenseToEvent, *, total: float | None = None
    ) -> None:
        super().__init__()
        self.event_dims, self.total = len(event_shape), total
        self.log_mean = layer(in_features, event_shape)

    def forward(self, h: Tensor) -> Distribution:
        log_mean = _log_mean(self.log_mean(h))
        if self.total is not None:
            return Counts(log_mean, self.event_dims, self.total)
        return _counts(log_mean, self.event_dims, None)


class NegativeBinomialHead(nn.Module):
    r"""h -> independent counts with more variance than those of Poisson, for x in {0, 1, 2, ...}.

    With the mean $m$ from the features and one learned dispersion $r$ for each column of a table, or channel of an
    image, the variance is $m + m^2 / r$. The dispersion starts at 1, and its logarithm is clamped to [-7, 7]. Other
    arguments as for `BernoulliHead`.

    Args:
        total: As for `PoissonHead`.
    """

    __call__: Callable[..., Distribution]

    def __init__(
        self, in_features: int, event_shape: Shape, layer: ToEvent = DenseToEvent, *, total: float | None = None
    ) -> None:
        super().__init__()
        self.event_dims, self.total = len(event_shape), total
        self.log_mean = layer(in_features, event_shape)
        self.log_dispersion = nn.Parameter(torch.zeros(event_shape[0], *(1 for _ in event_shape[1:])))

    def forward(self, h: Tensor) -> Distribution:
        log_mean, log_dispersion = _log_mean(self.log_mean(h)), self.log_dispersion.clamp(-7, 7)
        if self.total is not None:
            return Counts(log_mean, self.event_dims, self.total, log_dispersion)
        return _counts(log_mean, self.event_dims, log_dispersion)


class MultinomialHead(nn.Module):
    """h -> counts given their total, for x in {0, 1, 2, ...}.

    Args:
        in_features: Size of the features, or their channels.
        event_shape: Shape of one x, whose numbers share the total.
        layer: As for `BernoulliHead`.
        total: The total of draws, and of the mean.
    """

    __call__: Callable[..., Distribution]

    def __init__(self, in_features: int, event_shape: Shape, layer: ToEvent = DenseToEvent, *, total: int) -> None:
        super().__init__()
        self.event_dims, self.total = len(event_shape), total
        self.logits = layer(in_features, event_shape)

    def forward(self, h: Tensor) -> Distribution:
        return Multinomial(single(self.logits(h)), self.event_dims, self.total)


def _log_mean(h: Tensor) -> Tensor:
    """The logarithm of a mean that neither overflows nor vanishes."""
    return single(h).clamp(-20, 20)
