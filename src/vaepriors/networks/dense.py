"""Dense networks of one level.

Tomczak & Welling 2018, section 5, use two gated layers of 300 units. Klushyn et al. 2019, Table 3, use four ReLU layers
of 256 units, for vectors and for the images of a pendulum.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.distributions import DiagonalNormal, Shape
from vaepriors.networks.heads import BernoulliHead, NormalHead
from vaepriors.networks.layers import gated_layers, tanh_layers

__all__ = ["Decoder", "Encoder", "Features", "first_event_dim", "scalar"]

Layers = Callable[..., nn.Sequential]


def first_event_dim(x: Tensor, event_shape: torch.Size) -> int:
    """Where the event of x begins.

    Raises:
        ValueError: If x does not end in the event shape.
    """
    start = x.dim() - len(event_shape)
    if x.shape[max(start, 0) :] != event_shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, the encoder expects events of shape {tuple(event_shape)} "
            "after any leading dimensions: reshape the data"
        )
    return start


class Features(nn.Module):
    """Dense layers over the flattened event, x -> h.

    Args:
        event_shape: Shape of one x.
        hidden: Sizes of the layers.
        layers: Sizes -> the layers: `gated_layers`, `relu_layers` or `tanh_layers`.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, event_shape: Shape, hidden: Sequence[int], layers: Layers = gated_layers) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.layers = layers(self.event_shape.numel(), *hidden)

    def forward(self, x: Tensor) -> Tensor:
        start = first_event_dim(x, self.event_shape)
        return self.layers(x.flatten(start) if self.event_shape else x[..., None])


class Encoder(nn.Module):
    """q(z|x): dense layers and a head.

    Args:
        event_shape: Shape of one x.
        hidden: Sizes of the layers; none for the head alone.
        latent: Size of z.
        head: (size of the features, size of z) -> a module from features to a normal distribution.
        layers: Sizes -> the layers: `gated_layers`, `relu_layers` or `tanh_layers`.

    >>> Encoder((1, 28, 28), [300, 300], latent=40)(torch.zeros(100, 1, 28, 28)).batch_shape
    torch.Size([100])
    """

    __call__: Callable[..., DiagonalNormal]

    def __init__(
        self,
        event_shape: Shape,
        hidden: Sequence[int],
        latent: int,
        *,
        head: Callable[[int, int], nn.Module] = NormalHead,
        layers: Layers = gated_layers,
    ) -> None:
        super().__init__()
        self.features = Features(event_shape, hidden, layers)
        self.head = head([self.features.event_shape.numel(), *hidden][-1], latent)

    def forward(self, x: Tensor) -> DiagonalNormal:
        return self.head(self.features(x))


class Decoder(nn.Module):
    """p(x|z): dense layers and a head for the pixels.

    Args:
        event_shape: Shape of one x.
        hidden: Sizes of the layers; none for the head alone.
        latent: Size of z.
        head: (size of the features, event shape) -> a module from features to p(x|z).
        layers: Sizes -> the layers: `gated_layers`, `relu_layers` or `tanh_layers`.

    >>> Decoder((1, 28, 28), [300, 300], latent=40)(torch.zeros(5, 100, 40)).mean.shape
    torch.Size([5, 100, 1, 28, 28])
    """

    __call__: Callable[..., Distribution]

    def __init__(
        self,
        event_shape: Shape,
        hidden: Sequence[int],
        latent: int,
        *,
        head: Callable[[int, Shape], nn.Module] = BernoulliHead,
        layers: Layers = gated_layers,
    ) -> None:
        super().__init__()
        self.layers = layers(latent, *hidden)
        self.head = head([latent, *hidden][-1], event_shape)

    def forward(self, z: Tensor) -> Distribution:
        return self.head(self.layers(z))


class _ToScalar(nn.Linear):
    """Linear layer to one number, shape `(..., in_features)` -> `(...)`, whose weights start near zero."""

    def __init__(self, in_features: int, *, bias: bool) -> None:
        super().__init__(in_features, 1, bias=bias)
        nn.init.normal_(self.weight, std=0.1 / in_features**0.5)
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h).squeeze(-1)


def scalar(features: int, hidden: Sequence[int], *, bias: bool = True, layers: Layers = tanh_layers) -> nn.Sequential:
    """One number for each z, shape `(..., features)` -> `(...)`: an energy, or the logit of a probability.

    The last layer starts near zero, and so the numbers near a constant (our choice).

    Args:
        features: Size of z.
        hidden: Sizes of the layers.
        bias: Whether the last layer has a bias. An energy needs none: a constant changes nothing.
        layers: Sizes -> the layers: `gated_layers`, `relu_layers` or `tanh_layers`.

    >>> scalar(40, [100, 100])(torch.zeros(5, 7, 40)).shape
    torch.Size([5, 7])
    """
    return nn.Sequential(layers(features, *hidden), _ToScalar([features, *hidden][-1], bias=bias))
