r"""Layers of the papers' networks, and heads: modules from features to a distribution.

Dense weights, heads included, start as normal draws of standard deviation $\sqrt{2 / \text{fan in}}$ (He et al. 2015),
as in the authors' program of Tomczak & Welling 2018, and biases at torch's default. The paper's text names Glorot's
law, $\sqrt{2 / (\text{fan in} + \text{fan out})}$; `start_from_glorot` draws from that.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from vaepriors.distributions import DiagonalNormal, DiscretizedLogistic, Shape

__all__ = [
    "BernoulliHead",
    "GatedDense",
    "GaussianHead",
    "LogisticHead",
    "NormalHead",
    "dense",
    "evaluating",
    "gated",
    "start_from_glorot",
]


def dense(in_features: int, out_features: int) -> nn.Linear:
    """Linear layer with the initial weights above."""
    layer = nn.Linear(in_features, out_features)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def start_from_glorot(module: nn.Module) -> None:
    """Draw the weights of all dense layers of a module anew, from the normal law of Glorot & Bengio 2010."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)


class GatedDense(nn.Module):
    r"""Gated dense layer, $(A h + a) \odot \sigma(B h + b)$ (Dauphin et al. 2017; Tomczak & Welling 2018).

    Several inputs count as their concatenation. Each is multiplied at its own leading shape before they
    broadcast: features of x, shape `(B, ...)`, meet n draws of z, shape `(n, B, ...)`, without being repeated.

    Args:
        in_features: Size of the input, or of all inputs together.
        out_features: Size of the output.

    >>> GatedDense(5, 2)(torch.ones(4, 3), torch.ones(10, 4, 2)).shape
    torch.Size([10, 4, 2])
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.value = dense(in_features, out_features)
        self.gate = dense(in_features, out_features)

    def forward(self, *inputs: Tensor) -> Tensor:
        return _joint(self.value, inputs) * torch.sigmoid(_joint(self.gate, inputs))


def _joint(layer: nn.Linear, inputs: Sequence[Tensor]) -> Tensor:
    """layer(cat(inputs)) as the sum of the inputs' own products."""
    first, *rest = inputs
    weights = layer.weight.split([h.shape[-1] for h in inputs], dim=1)
    total = F.linear(first, weights[0], layer.bias)
    for h, weight in zip(rest, weights[1:], strict=True):
        total = total + F.linear(h, weight)
    return total


def gated(*sizes: int) -> nn.Sequential:
    """Gated dense layers of the given sizes: `gated(784, 300, 300)` has two."""
    return nn.Sequential(*(GatedDense(a, b) for a, b in pairwise(sizes)))


def _single(h: Tensor) -> Tensor:
    """At least single precision: a distribution's parameters are not to be rounded to bfloat16 by autocast."""
    return h.to(torch.promote_types(h.dtype, torch.float32))


class NormalHead(nn.Module):
    """h -> N(z; mean, diag variance), with the log-variance clamped to [-6, 2] as in Tomczak & Welling 2018."""

    def __init__(self, in_features: int, features: int) -> None:
        super().__init__()
        self.loc = dense(in_features, features)
        self.log_var = dense(in_features, features)

    def forward(self, h: Tensor) -> DiagonalNormal:
        log_var = _single(self.log_var(h)).clamp(-6, 2)
        return DiagonalNormal(_single(self.loc(h)), torch.exp(log_var / 2))


class BernoulliHead(nn.Module):
    """h -> independent Bernoulli pixels, for x in {0, 1}."""

    def __init__(self, in_features: int, event_shape: Shape) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.logits = dense(in_features, self.event_shape.numel())

    def forward(self, h: Tensor) -> Distribution:
        logits = _single(self.logits(h)).unflatten(-1, self.event_shape)
        return _independent(Bernoulli(logits=logits, validate_args=False), self.event_shape)


class LogisticHead(nn.Module):
    """h -> independent 256-level pixels, for x = (level + 1/2) / 256 (see `DiscretizedLogistic`).

    The mean is a sigmoid clamped to [1/512, 1 - 1/512], the log-scale is clamped to [-4.5, 0].
    """

    def __init__(self, in_features: int, event_shape: Shape) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.loc = dense(in_features, self.event_shape.numel())
        self.log_scale = dense(in_features, self.event_shape.numel())

    def forward(self, h: Tensor) -> Distribution:
        loc = torch.sigmoid(_single(self.loc(h))).clamp(1 / 512, 1 - 1 / 512)
        log_scale = _single(self.log_scale(h)).clamp(-4.5, 0)
        law = DiscretizedLogistic(loc.unflatten(-1, self.event_shape), log_scale.unflatten(-1, self.event_shape))
        return _independent(law, self.event_shape)


class GaussianHead(nn.Module):
    """h -> independent normal coordinates with one learned standard deviation, at least `floor`, for real x.

    Without a floor the density of data that lie on a surface has no bound.
    """

    def __init__(self, in_features: int, event_shape: Shape, floor: float = 1e-3) -> None:
        super().__init__()
        self.event_shape, self.floor = torch.Size(event_shape), floor
        self.loc = dense(in_features, self.event_shape.numel())
        self.raw_scale = nn.Parameter(torch.tensor(math.log(math.e - 1)))  # softplus of it is 1

    def forward(self, h: Tensor) -> Distribution:
        loc = _single(self.loc(h)).unflatten(-1, self.event_shape)
        return _independent(Normal(loc, F.softplus(self.raw_scale) + self.floor, validate_args=False), self.event_shape)


def _independent(law: Distribution, event_shape: torch.Size) -> Distribution:
    return Independent(law, len(event_shape), validate_args=False)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put the module in evaluation mode, and every part of it back as it was afterwards."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode
