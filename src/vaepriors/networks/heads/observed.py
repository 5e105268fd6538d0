"""Heads of decoders: h -> p(x|z) of bits, levels, real numbers and categories."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from vaepriors.distributions import Codes, DiscretizedLogistic, IndependentBernoulli, Shape, Student
from vaepriors.networks.heads.base import ToEvent, independent, single
from vaepriors.networks.layers import DenseToEvent

__all__ = ["BernoulliHead", "CategoricalHead", "GaussianHead", "LogisticHead", "StudentHead"]


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
        return IndependentBernoulli(single(self.logits(h)), self.event_dims)


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
        loc = torch.sigmoid(single(self.loc(h))).clamp(1 / 512, 1 - 1 / 512)
        log_scale = single(self.log_scale(h)).clamp(-4.5, 0)
        return independent(DiscretizedLogistic(loc, log_scale), self.event_dims)


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
        loc = single(self.loc(h))
        scale = self.scale if self.raw_scale is None else F.softplus(self.raw_scale) + self.floor
        return independent(Normal(loc, scale, validate_args=False), self.event_dims)


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
        return independent(Student(self.df, single(self.loc(h)), scale), self.event_dims)


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
        logits = single(self.logits(h)).unflatten(-self.event_dims, (-1, self.categories))
        logits = logits.movedim(-self.event_dims, -1).masked_fill(self.missing, -math.inf)
        return independent(Codes(logits=logits, validate_args=False), self.event_dims)
