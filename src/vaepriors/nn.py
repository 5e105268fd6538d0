r"""Layers of the papers' networks, and heads: modules from features to a distribution.

Every layer takes any leading dimensions: dense ones work on the last dimension, convolutions on the last three,
channels, height and width.

Dense weights, heads included, start as normal draws of standard deviation $\sqrt{2 / \text{fan in}}$ (He et al. 2015),
as in the authors' program of Tomczak & Welling 2018; biases and convolutions start at torch's default. The paper's
text names Glorot's law, $\sqrt{2 / (\text{fan in} + \text{fan out})}$; `start_from_glorot` takes that.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaepriors.distributions import DiagonalNormal, DiscretizedLogistic, IndependentBernoulli, Shape

__all__ = [
    "BernoulliHead",
    "Conv",
    "ConvToEvent",
    "DenseToEvent",
    "GatedConv",
    "GatedDense",
    "GaussianHead",
    "LogisticHead",
    "MaskedConv",
    "NormalHead",
    "SoftplusNormalHead",
    "Upsampling",
    "at_least_one",
    "dense",
    "evaluating",
    "gated",
    "over_images",
    "rectified",
    "squashed",
    "start_from_glorot",
]

ToEvent = Callable[[int, Shape], nn.Module]
"""(size of the features, event shape) -> a layer from features to one number for each coordinate of the event."""


def at_least_one(**sizes: int) -> None:
    """Refuse sizes of zero or less.

    Raises:
        ValueError: If one of them is less than 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}: at least 1 is needed")


def dense(in_features: int, out_features: int) -> nn.Linear:
    """Linear layer with the initial weights above."""
    at_least_one(in_features=in_features, out_features=out_features)
    layer = nn.Linear(in_features, out_features)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def start_from_glorot(module: nn.Module) -> None:
    """Draw the weights of all dense layers of a module anew, from the normal law of Glorot & Bengio 2010."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            for matrix in part.weight.data.chunk(2 if isinstance(part, GatedDense) else 1):
                nn.init.xavier_normal_(matrix)


class GatedDense(nn.Linear):
    r"""Gated dense layer, $(A h + a) \odot \sigma(B h + b)$ (Dauphin et al. 2017; Tomczak & Welling 2018).

    A and B are the halves of one matrix, for one product: one parameter tensor also to `optim.normalize_gradients`.

    Several inputs count as their concatenation. Each is multiplied at its own leading shape before they
    broadcast: features of x, shape `(B, ...)`, meet n draws of z, shape `(n, B, ...)`, without being repeated.

    Args:
        in_features: Size of the input, or of all inputs together.
        out_features: Size of the output.

    >>> GatedDense(5, 2)(torch.ones(4, 3), torch.ones(10, 4, 2)).shape
    torch.Size([10, 4, 2])
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        at_least_one(in_features=in_features, out_features=out_features)
        super().__init__(in_features, 2 * out_features)
        nn.init.kaiming_normal_(self.weight)

    def forward(self, *inputs: Tensor) -> Tensor:
        if len(inputs) == 1:
            return F.glu(F.linear(inputs[0], self.weight, self.bias))
        first, *rest = zip(inputs, self.weight.split([h.shape[-1] for h in inputs], dim=1), strict=True)
        total = F.linear(*first, self.bias)
        for h, weight in rest:
            total = total + F.linear(h, weight)
        return F.glu(total)


def gated(*sizes: int) -> nn.Sequential:
    """Gated dense layers of the given sizes: `gated(784, 300, 300)` has two."""
    return nn.Sequential(*(GatedDense(a, b) for a, b in pairwise(sizes)))


def rectified(*sizes: int) -> nn.Sequential:
    """Dense layers of the given sizes, each followed by a ReLU."""
    return nn.Sequential(*(nn.Sequential(dense(a, b), nn.ReLU()) for a, b in pairwise(sizes)))


def squashed(*sizes: int) -> nn.Sequential:
    """Dense layers of the given sizes, each followed by a hyperbolic tangent."""
    return nn.Sequential(*(nn.Sequential(dense(a, b), nn.Tanh()) for a, b in pairwise(sizes)))


def over_images(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of a batch of images, shape `(B, C, H, W)`, to images with any leading dimensions.

    >>> over_images(nn.Conv2d(1, 6, 3), torch.ones(5, 4, 1, 8, 8)).shape
    torch.Size([5, 4, 6, 6, 6])
    """
    images = function(x.reshape(-1, *x.shape[-3:]))
    return images.reshape(*x.shape[:-3], *images.shape[1:])


class Conv(nn.Conv2d):
    """Convolution of odd kernel, padded by (kernel - 1) / 2, for any leading dimensions."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        at_least_one(in_channels=in_channels, out_channels=out_channels, kernel=kernel, stride=stride)
        super().__init__(in_channels, out_channels, kernel, stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return over_images(super().forward, x)


class GatedConv(nn.Module):
    r"""Gated convolution, $(A * h + a) \odot \sigma(B * h + b)$, both convolutions computed as one.

    >>> GatedConv(1, 32, 3, stride=2)(torch.ones(10, 4, 1, 28, 28)).shape
    torch.Size([10, 4, 32, 14, 14])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.value_and_gate = Conv(in_channels, 2 * out_channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.value_and_gate(x), dim=-3)


class MaskedConv(nn.Module):
    r"""Convolution that sees, of each neighbourhood, the pixels before in raster order, with normalised weights.

    $$y_i = b + g \sum_{j} \frac{v_{j - i}}{\|v\|} h_j, \qquad j < i \text{ (type A) or } j \le i \text{ (type B)}$$

    (van den Oord, Kalchbrenner & Kavukcuoglu 2016, section 3.4). Those taps are the first ones of the kernel in raster
    order, and only they exist: no masked weight is multiplied, trained, or counted in a gradient's norm. Weight
    normalisation (Salimans & Kingma 2016) stands in for statistics of the batch, which would show a pixel the others.
    With $g = \sqrt 2$ at the start, this is the initial law of He et al. 2015 at the number of taps there are.

    Args:
        in_channels: Channels of h.
        out_channels: Channels of y.
        kernel: Side of the neighbourhood, odd.
        own: Whether a pixel sees the features at its own place: type B, else type A.

    >>> MaskedConv(1, 8, 3, own=False)(torch.ones(5, 1, 4, 4)).shape
    torch.Size([5, 8, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, own: bool) -> None:
        at_least_one(in_channels=in_channels, out_channels=out_channels, kernel=kernel)
        super().__init__()
        self.reach, self.size = kernel // 2, (kernel // 2 + 1, kernel)  # rows below never count
        self.direction = nn.Parameter(torch.randn(out_channels, in_channels, kernel * self.reach + self.reach + own))
        self.gain = nn.Parameter(torch.full((out_channels,), math.sqrt(2)))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def weight(self) -> Tensor:
        """The kernel, of shape `(out_channels, in_channels, reach + 1, kernel)`, zero where it sees nothing."""
        taps = self.direction * (self.gain / self.direction.flatten(1).norm(dim=1))[:, None, None]
        return F.pad(taps, (0, math.prod(self.size) - taps.shape[-1])).unflatten(-1, self.size)

    def forward(self, x: Tensor) -> Tensor:
        weight, height = self.weight(), x.shape[-2]
        # padded below as above, which gives rows that no pixel has
        return over_images(lambda h: F.conv2d(h, weight, self.bias, padding=self.reach)[..., :height, :], x)


class Upsampling(nn.ConvTranspose2d):
    """Transposed convolution that doubles height and width: the mirror of a `Conv` of stride 2."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        at_least_one(in_channels=in_channels, out_channels=out_channels, kernel=kernel)
        super().__init__(in_channels, out_channels, kernel, stride=2, padding=kernel // 2, output_padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        transposed = super().forward
        return over_images(lambda h: transposed(h, output_size), x)


class DenseToEvent(nn.Linear):
    """Dense layer, features `(..., in_features)` -> `(..., *event_shape)`."""

    def __init__(self, in_features: int, event_shape: Shape) -> None:
        shape = torch.Size(event_shape)
        at_least_one(in_features=in_features, event_size=shape.numel())
        super().__init__(in_features, shape.numel())
        self.event_shape = shape
        nn.init.kaiming_normal_(self.weight)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h).unflatten(-1, self.event_shape)


class ConvToEvent(Conv):
    """1 x 1 convolution, features `(..., in_channels, H, W)` -> `(..., *event_shape)`, for images of that size."""

    def __init__(self, in_channels: int, event_shape: Shape) -> None:
        super().__init__(in_channels, event_shape[0], kernel=1)


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


class SoftplusNormalHead(nn.Module):
    """h -> N(z; mean, diag scale^2), with scale = softplus(linear(h)) + floor: as small as the data ask for.

    For the networks of Klushyn et al. 2019, who do not say how theirs is bounded (the floor is our choice).
    """

    def __init__(self, in_features: int, features: int, floor: float = 1e-4) -> None:
        super().__init__()
        self.floor = floor
        self.loc = dense(in_features, features)
        self.raw_scale = dense(in_features, features)

    def forward(self, h: Tensor) -> DiagonalNormal:
        return DiagonalNormal(_single(self.loc(h)), F.softplus(_single(self.raw_scale(h))) + self.floor)


class BernoulliHead(nn.Module):
    """h -> independent Bernoulli pixels, for x in {0, 1}.

    Args:
        in_features: Size of the features, or their channels.
        event_shape: Shape of one x.
        layer: What turns features into parameters of that shape: `DenseToEvent`, `ConvToEvent`, or your own.
    """

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

    def __init__(self, in_features: int, event_shape: Shape, layer: ToEvent = DenseToEvent) -> None:
        super().__init__()
        self.event_dims = len(event_shape)
        self.loc = layer(in_features, event_shape)
        log_scale: Any = layer(in_features, event_shape)
        if log_scale.bias.numel() < torch.Size(event_shape).numel():
            # a bias that all pixels share may start beyond 0, where the clamp leaves none of them a gradient
            nn.init.constant_(log_scale.bias, -2)
        self.log_scale = log_scale

    def forward(self, h: Tensor) -> Distribution:
        loc = torch.sigmoid(_single(self.loc(h))).clamp(1 / 512, 1 - 1 / 512)
        log_scale = _single(self.log_scale(h)).clamp(-4.5, 0)
        return _independent(DiscretizedLogistic(loc, log_scale), self.event_dims)


class GaussianHead(nn.Module):
    """h -> independent normal coordinates with one standard deviation, for real x.

    Unless that is given, it is learned, and at least `floor`: without one the density of data that lie on a surface has
    no bound. Other arguments as for `BernoulliHead`.
    """

    def __init__(
        self,
        in_features: int,
        event_shape: Shape,
        layer: ToEvent = DenseToEvent,
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


def _independent(law: Distribution, event_dims: int) -> Distribution:
    return Independent(law, event_dims, validate_args=False)


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
