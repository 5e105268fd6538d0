"""Gated dense networks of one level (Tomczak & Welling 2018, section 5; the sizes there are 300 and 300)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.distributions import DiagonalNormal, Shape
from vaepriors.nn import BernoulliHead, NormalHead, gated

__all__ = ["Decoder", "Encoder", "Features"]


class Features(nn.Module):
    """Gated dense layers over the flattened event, x -> h.

    Args:
        event_shape: Shape of one x.
        hidden: Sizes of the layers.
    """

    def __init__(self, event_shape: Shape, hidden: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.layers = gated(self.event_shape.numel(), *hidden)

    def forward(self, x: Tensor) -> Tensor:
        start = x.dim() - len(self.event_shape)
        if x.shape[max(start, 0) :] != self.event_shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, the encoder expects events of shape {tuple(self.event_shape)} "
                "behind any leading dimensions: reshape the data"
            )
        return self.layers(x.flatten(start) if self.event_shape else x[..., None])


class Encoder(nn.Module):
    """q(z|x): gated dense layers and a `NormalHead`.

    Args:
        event_shape: Shape of one x.
        hidden: Sizes of the layers.
        latent: Size of z.

    >>> Encoder((1, 28, 28), [300, 300], latent=40)(torch.zeros(100, 1, 28, 28)).batch_shape
    torch.Size([100])
    """

    def __init__(self, event_shape: Shape, hidden: Sequence[int], latent: int) -> None:
        super().__init__()
        self.features = Features(event_shape, hidden)
        self.head = NormalHead(hidden[-1], latent)

    def forward(self, x: Tensor) -> DiagonalNormal:
        return self.head(self.features(x))


class Decoder(nn.Module):
    """p(x|z): gated dense layers and a head for the pixels.

    Args:
        event_shape: Shape of one x.
        hidden: Sizes of the layers.
        latent: Size of z.
        head: Class of the head, by the likelihood.

    >>> Decoder((1, 28, 28), [300, 300], latent=40)(torch.zeros(5, 100, 40)).mean.shape
    torch.Size([5, 100, 1, 28, 28])
    """

    def __init__(
        self,
        event_shape: Shape,
        hidden: Sequence[int],
        latent: int,
        head: Callable[[int, Shape], nn.Module] = BernoulliHead,
    ) -> None:
        super().__init__()
        self.layers = gated(latent, *hidden)
        self.head = head(hidden[-1], event_shape)

    def forward(self, z: Tensor) -> Distribution:
        return self.head(self.layers(z))
