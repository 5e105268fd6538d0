r"""Layers of the papers' networks.

Every layer takes any leading dimensions: dense layers act on the last dimension, convolutions on the last three
(channels, height and width).

    GatedDense, GatedConv   y = (A h + a) * sigmoid(B h + b)
    MaskedConv              y_i depends on h_j for j < i only (type A), or for j <= i (type B)

Dense weights, heads included, start as normal draws of standard deviation $\sqrt{2 / \text{fan in}}$ (He et al. 2015),
as in the program of Tomczak & Welling 2018; biases and convolutions start at torch's default. The text of the paper
names Glorot's distribution, $\sqrt{2 / (\text{fan in} + \text{fan out})}$, as `start_from_glorot` does.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaepriors.distributions import Shape
from vaepriors.limits import at_least_one

__all__ = [
    "Conv",
    "ConvToEvent",
    "DenseToEvent",
    "GatedConv",
    "GatedDense",
    "LogOnePlus",
    "MaskedConv",
    "OneHot",
    "Upsampling",
    "dense",
    "gated_layers",
    "over_images",
    "relu_layers",
    "start_from_glorot",
    "tanh_layers",
]


def dense(in_features: int, out_features: int) -> nn.Linear:
    """Linear layer with the initial weights above."""
    at_least_one(in_features=in_features, out_features=out_features)
    layer = nn.Linear(in_features, out_features)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def start_from_glorot(module: nn.Module) -> None:
    """Draw the weights of all dense layers of a module again, from the normal distribution of Glorot & Bengio 2010.

    A layer of another class, such as those of a flow or the last layer of an energy, keeps its own start.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear) and type(part) in (nn.Linear, GatedDense, DenseToEvent):
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

    __call__: Callable[..., Tensor]

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


def gated_layers(*sizes: int) -> nn.Sequential:
    """Gated dense layers of the given sizes: `gated_layers(784, 300, 300)` has two."""
    return nn.Sequential(*(GatedDense(a, b) for a, b in pairwise(sizes)))


def relu_layers(*sizes: int) -> nn.Sequential:
    """Dense layers of the given sizes, each followed by a ReLU."""
    return nn.Sequential(*(nn.Sequential(dense(a, b), nn.ReLU()) for a, b in pairwise(sizes)))


def tanh_layers(*sizes: int) -> nn.Sequential:
    """Dense layers of the given sizes, each followed by a hyperbolic tangent."""
    return nn.Sequential(*(nn.Sequential(dense(a, b), nn.Tanh()) for a, b in pairwise(sizes)))


class LogOnePlus(nn.Module):
    """x -> log(1 + x), for counts.

    >>> LogOnePlus()(torch.tensor([0.0, math.e - 1]))
    tensor([0., 1.])
    """

    __call__: Callable[..., Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return torch.log1p(x)


class OneHot(nn.Module):
    r"""Codes of categories -> one number for each category, in the place of the columns or channels.

    $$h_c = \max(0, 1 - |x - c|),$$

    which is 1 for the category of a whole x and 0 for others. Between two codes, it is a mixture of the two with a
    gradient in x, which learned pseudo-inputs need.

    Args:
        sizes: Categories of each column, of shape `(D,)`, or of each channel, `(C, 1, 1)`.

    >>> OneHot(torch.tensor([2, 3]))(torch.tensor([[1.0, 0.0], [0.0, 1.5]]))
    tensor([[0.0000, 1.0000, 0.0000, 1.0000, 0.0000, 0.0000],
            [1.0000, 0.0000, 0.0000, 0.0000, 0.5000, 0.5000]])
    """

    __call__: Callable[..., Tensor]

    def __init__(self, sizes: Tensor) -> None:
        super().__init__()
        self.categories = int(sizes.max())
        self.largest: Tensor
        self.register_buffer("largest", sizes - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        place = -self.largest.dim()  # of the columns or channels
        codes = torch.arange(self.categories, dtype=x.dtype, device=x.device)
        distance = (torch.minimum(x, self.largest.to(x))[..., None] - codes).abs()
        return (1 - distance).clamp(min=0).movedim(-1, place).flatten(place - 1, place)


def over_images(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of a batch of images, shape `(B, C, H, W)`, to images with any leading dimensions.

    >>> over_images(nn.Conv2d(1, 6, 3), torch.ones(5, 4, 1, 8, 8)).shape
    torch.Size([5, 4, 6, 6, 6])
    """
    images = function(x.reshape(-1, *x.shape[-3:]))
    return images.reshape(*x.shape[:-3], *images.shape[1:])


class Conv(nn.Conv2d):
    """Convolution of odd kernel, padded by (kernel - 1) / 2, for any leading dimensions."""

    __call__: Callable[..., Tensor]

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        at_least_one(in_channels=in_channels, out_channels=out_channels, kernel=kernel, stride=stride)
        super().__init__(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return over_images(super().forward, x)


class GatedConv(nn.Module):
    r"""Gated convolution, $(A * h + a) \odot \sigma(B * h + b)$, both convolutions computed as one.

    >>> GatedConv(1, 32, 3, stride=2)(torch.ones(10, 4, 1, 28, 28)).shape
    torch.Size([10, 4, 32, 14, 14])
    """

    __call__: Callable[..., Tensor]

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.value_and_gate = Conv(in_channels, 2 * out_channels, kernel, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.value_and_gate(x), dim=-3)


class MaskedConv(nn.Module):
    r"""Convolution over the pixels of a neighbourhood that come first in raster order, with normalised weights.

    $$y_i = b + g \sum_{j} \frac{v_{j - i}}{\|v\|} h_j, \qquad j < i \text{ (type A) or } j \le i \text{ (type B)}$$

    (van den Oord, Kalchbrenner & Kavukcuoglu 2016, section 3.4). These taps are the first ones of the kernel in raster
    order, and only they exist: no masked weight is multiplied, trained, or counted in a gradient's norm. Weight
    normalisation (Salimans & Kingma 2016) replaces batch statistics, which would show a pixel the others. With
    $g = \sqrt 2$ at the start, initial weights follow the distribution of He et al. 2015 for this number of taps.

    Args:
        in_channels: Channels of h.
        out_channels: Channels of y.
        kernel: Side of the neighbourhood, odd.
        own: Whether a pixel sees the features at its own place (type B) or not (type A).

    >>> MaskedConv(1, 8, 3, own=False)(torch.ones(5, 1, 4, 4)).shape
    torch.Size([5, 8, 4, 4])
    """

    __call__: Callable[..., Tensor]

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, own: bool) -> None:
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
        # padding below adds rows that no pixel has
        return over_images(lambda h: F.conv2d(h, weight, self.bias, padding=self.reach)[..., :height, :], x)


class Upsampling(nn.ConvTranspose2d):
    """Transposed convolution that doubles height and width: the mirror of a `Conv` of stride 2."""

    __call__: Callable[..., Tensor]

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        at_least_one(in_channels=in_channels, out_channels=out_channels, kernel=kernel)
        super().__init__(in_channels, out_channels, kernel, stride=2, padding=kernel // 2, output_padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        transposed = super().forward
        return over_images(lambda h: transposed(h, output_size), x)


class DenseToEvent(nn.Linear):
    """Dense layer, features `(..., in_features)` -> `(..., *event_shape)`."""

    __call__: Callable[..., Tensor]

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
