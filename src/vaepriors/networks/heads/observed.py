r"""Heads: modules from features h to a distribution.

| head | distribution | parameters |
|---|---|---|
| `NormalHead` | $N(z; \mu, \mathrm{diag}\,\sigma^2)$ | $\log\sigma^2$ clamped to [-6, 2] |
| `SoftplusNormalHead` | the same | $\sigma = \mathrm{softplus}(\cdot) + 10^{-4}$ |
| `BernoulliHead` | independent bits | logits |
| `LogisticHead` | 256 equal bins of [0, 1] | see `DiscretizedLogistic` |
| `GaussianHead` | $N(x; \mu, \sigma^2 I)$ | one $\sigma$ for all coordinates |
| `StudentHead` | independent, with heavy tails | one scale for all coordinates |
| `CategoricalHead` | independent categories | logits, $-\infty$ for categories that a column does not have |
| `MultinomialHead` | counts, given their total | logits |
| `PoissonHead` | independent counts | $\log$ of the mean, clamped to [-20, 20] |
| `NegativeBinomialHead` | the same, with more variance | the same, and one dispersion for each column |
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints

from vaepriors.distributions import (
    Codes,
    DiagonalNormal,
    DiscretizedLogistic,
    IndependentBernoulli,
    Multinomial,
    NegativeBinomial,
    Poisson,
    Shape,
    ShapedDistribution,
    Student,
)
from vaepriors.networks.layers import DenseToEvent, dense

__all__ = [
    "BernoulliHead",
    "CategoricalHead",
    "Counts",
    "GaussianHead",
    "LogisticHead",
    "MultinomialHead",
    "NegativeBinomialHead",
    "Network",
    "NormalHead",
    "PoissonHead",
    "SoftplusNormalHead",
    "StudentHead",
    "ToEvent",
]


ToEvent = Callable[[int, Shape], nn.Module]
"""(size of the features, event shape) -> a layer from features to one number for each coordinate of the event."""


def _single(h: Tensor) -> Tensor:
    """Convert to at least single precision: autocast must not round a distribution's parameters to bfloat16."""
    return h.to(torch.promote_types(h.dtype, torch.float32))


class Network(nn.Sequential):
    """Layers and a head: a sequence of modules whose call returns a distribution."""

    __call__: Callable[..., Distribution]


class NormalHead(nn.Module):
    """h -> N(z; mean, diag variance), with the log-variance clamped to [-6, 2] as in Tomczak & Welling 2018."""

    __call__: Callable[..., DiagonalNormal]

    def __init__(self, in_features: int, features: int) -> None:
        super().__init__()
        self.loc = dense(in_features, features)
        self.log_var = dense(in_features, features)

    def forward(self, h: Tensor) -> DiagonalNormal:
        log_var = _single(self.log_var(h)).clamp(-6, 2)
        return DiagonalNormal(_single(self.loc(h)), torch.exp(log_var / 2))


class SoftplusNormalHead(nn.Module):
    """h -> N(z; mean, diag scale^2), with scale = softplus(linear(h)) + floor.

    For the networks of Klushyn et al. 2019, who do not say how their scale is bounded (the floor is our choice).

    Args:
        in_features: Size of the features.
        features: Size of z.
        floor: Lower bound of the scale.
        start: The scale where `linear(h)` is at its initial bias, above the floor; by default it is near 0.7.

    Raises:
        ValueError: If `start` is not above the floor.
    """

    __call__: Callable[..., DiagonalNormal]

    def __init__(self, in_features: int, features: int, floor: float = 1e-4, start: float | None = None) -> None:
        super().__init__()
        if start is not None and not start > floor:
            raise ValueError(f"the scale of q(z|x) starts at {start}: more than its lower bound of {floor} is needed")
        self.floor = floor
        self.loc = dense(in_features, features)
        self.raw_scale = dense(in_features, features)
        if start is not None:
            nn.init.constant_(self.raw_scale.bias, math.log(math.expm1(start - floor)))

    def forward(self, h: Tensor) -> DiagonalNormal:
        return DiagonalNormal(_single(self.loc(h)), F.softplus(_single(self.raw_scale(h))) + self.floor)


class BernoulliHead(nn.Module):
    """h -> independent Bernoulli pixels, for x in {0, 1}.

    Args:
        in_features: Size of the features, or their channels.
        event_shape: Shape of one x.
        layer: Class of the layer from features to logits of that shape: `DenseToEvent`, `ConvToEvent` or a custom one.
    """

    __call__: Callable[..., Distribution]

    def __init__(self, in_features: int, event_shape: Shape, layer: ToEvent = DenseToEvent) -> None:
        super().__init__()
        self.event_dims = len(event_shape)
        self.logits = layer(in_features, event_shape)

    def forward(self, h: Tensor) -> Distribution:
        return IndependentBernoulli(_single(self.logits(h)), self.event_dims)


class LogisticHead(nn.Module):
    """h -> independent 256-level pixels, for x = (level + 1/2) / 256 (see `DiscretizedLogistic`).

    The mean is a sigmoid clamped to [1/512, 1 - 1/512], the log-scale is clamped to [-4.5, 0]. Arguments as for
    `BernoulliHead`; a convolution's log-scale starts near -2.
    """

    __call__: Callable[..., Distribution]

    def __init__(self, in_features: int, event_shape: Shape, layer: ToEvent = DenseToEvent) -> None:
        super().__init__()
        self.event_dims = len(event_shape)
        self.loc = layer(in_features, event_shape)
        log_scale: Any = layer(in_features, event_shape)
        if log_scale.bias.numel() < torch.Size(event_shape).numel():
            # a bias that all pixels share may start above 0, where the clamp would give all of them no gradient
            nn.init.constant_(log_scale.bias, -2)
        self.log_scale = log_scale

    def forward(self, h: Tensor) -> Distribution:
        loc = torch.sigmoid(_single(self.loc(h))).clamp(1 / 512, 1 - 1 / 512)
        log_scale = _single(self.log_scale(h)).clamp(-4.5, 0)
        return _independent(DiscretizedLogistic(loc, log_scale), self.event_dims)


class GaussianHead(nn.Module):
    """h -> independent normal coordinates with one standard deviation, for real x.

    Without `scale`, the standard deviation is learned and at least `floor`: with no floor, the density of data on a
    surface is unbounded. Other arguments as for `BernoulliHead`.
    """

    __call__: Callable[..., Distribution]

    def __init__(
        self,
        in_features: int,
        event_shape: Shape,
        layer: ToEvent = DenseToEvent,
        *,
        scale: float | None = None,
        floor: float = 1e-3,
    ) -> None:
        super().__init__()
        self.event_dims, self.floor = len(event_shape), floor
        self.scale: Any = scale
        self.loc = layer(in_features, event_shape)
        one = torch.tensor(math.log(math.e - 1))  # softplus of it is 1
        self.raw_scale = nn.Parameter(one) if scale is None else None

    def forward(self, h: Tensor) -> Distribution:
        loc = _single(self.loc(h))
        scale = self.scale if self.raw_scale is None else F.softplus(self.raw_scale) + self.floor
        return _independent(Normal(loc, scale, validate_args=False), self.event_dims)


class StudentHead(nn.Module):
    """h -> independent coordinates with heavy tails, for real x with outliers.

    The scale is learned and at least `floor`, as in `GaussianHead`. Other arguments as for `BernoulliHead`.

    Args:
        df: Degrees of freedom of Student's distribution.
    """

    __call__: Callable[..., Distribution]

    def __init__(
        self,
        in_features: int,
        event_shape: Shape,
        layer: ToEvent = DenseToEvent,
        *,
        df: float = 4.0,
        floor: float = 1e-3,
    ) -> None:
        super().__init__()
        self.event_dims, self.df, self.floor = len(event_shape), df, floor
        self.loc = layer(in_features, event_shape)
        self.raw_scale = nn.Parameter(torch.tensor(math.log(math.e - 1)))  # softplus of it is 1

    def forward(self, h: Tensor) -> Distribution:
        scale = F.softplus(self.raw_scale) + self.floor
        return _independent(Student(self.df, _single(self.loc(h)), scale), self.event_dims)


class CategoricalHead(nn.Module):
    """h -> independent categories, for x with codes 0, 1, ...

    Args:
        in_features: Size of the features, or their channels.
        event_shape: Shape of one x.
        layer: As for `BernoulliHead`; its output has K numbers for each column or channel.
        sizes: Categories of each column, of shape `(D,)`, or of each channel, `(C, 1, 1)`. K is the largest of them.
    """

    __call__: Callable[..., Distribution]

    def __init__(self, in_features: int, event_shape: Shape, layer: ToEvent = DenseToEvent, *, sizes: Tensor) -> None:
        super().__init__()
        self.event_dims, self.categories = len(event_shape), int(sizes.max())
        self.logits = layer(in_features, (event_shape[0] * self.categories, *event_shape[1:]))
        self.missing: Tensor
        codes = torch.arange(self.categories, device=sizes.device)
        self.register_buffer("missing", codes >= sizes[..., None], persistent=False)

    def forward(self, h: Tensor) -> Distribution:
        logits = _single(self.logits(h)).unflatten(-self.event_dims, (-1, self.categories))
        logits = logits.movedim(-self.event_dims, -1).masked_fill(self.missing, -math.inf)
        return _independent(Codes(logits=logits, validate_args=False), self.event_dims)


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
        event = tuple(range(-len(self.event_shape), 0))
        return self.given((value.sum(event, keepdim=True).clamp(min=1) / self.total).log()).log_prob(value)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return self.given().sample(torch.Size(sample_shape))


def _counts(log_mean: Tensor, event_dims: int, log_dispersion: Tensor | None) -> Distribution:
    """Negative binomials, or Poisson distributions without a dispersion."""
    if log_dispersion is None:
        return _independent(Poisson(log_mean), event_dims)
    return _independent(NegativeBinomial(log_mean, log_dispersion), event_dims)


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
        return Multinomial(_single(self.logits(h)), self.event_dims, self.total)


def _log_mean(h: Tensor) -> Tensor:
    """The logarithm of a mean that neither overflows nor vanishes."""
    return _single(h).clamp(-20, 20)


def _independent(each: Distribution, event_dims: int) -> Distribution:
    return Independent(each, event_dims, validate_args=False)
