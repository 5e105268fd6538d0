r"""Two levels of latent variables, z = [z2, z1] (Tomczak & Welling 2018, section 4, eq. 10 to 15).

    encoder   q(z2|x) q(z1|x, z2)        `ChainEncoder`
    prior     p(z2) p(z1|z2)             `vaepriors.priors.TwoLevelPrior` with `conditional`
    decoder   p(x|z2, z1)                `SplitDecoder`

Where a network takes two inputs, each has its own first layer and a joint layer follows: `Joined`. The dense networks
of the HVAE stand here; those with convolutions in `networks.conv` and `networks.pixelcnn`.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.distributions import Chain, Shape
from vaepriors.networks.dense import Encoder, Features
from vaepriors.networks.heads import BernoulliHead, NormalHead
from vaepriors.networks.layers import GatedDense, gated_layers

__all__ = [
    "ChainEncoder",
    "Joined",
    "SplitDecoder",
    "conditional",
    "hierarchical_decoder",
    "hierarchical_encoder",
    "two_level_encoder",
]


class Joined(nn.Module):
    """(a, b) -> head(joint(first(a), second(b))), where the leading dimensions of a and b broadcast.

    Args:
        first: Module of a.
        second: Module of b.
        joint: Module of both results, such as `GatedDense`.
        head: Module from features to a distribution.
    """

    def __init__(self, first: nn.Module, second: nn.Module, joint: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.joint, self.head = first, second, joint, head

    def forward(self, a: Tensor, b: Tensor) -> Distribution:
        return self.head(self.joint(self.first(a), self.second(b)))


class ChainEncoder(nn.Module):
    """q(z2|x) q(z1|x, z2), with the features of x computed once for all draws of z2.

    Args:
        top: Module, x -> q(z2|x); the one a VampPrior shares.
        features: Module, x -> h.
        bottom: Module, (h, z2) -> q(z1|x, z2).
        split: Size of z2.
    """

    def __init__(self, top: nn.Module, features: nn.Module, bottom: nn.Module, split: int) -> None:
        super().__init__()
        self.top, self.features, self.bottom, self.split = top, features, bottom, split

    def forward(self, x: Tensor) -> Chain:
        h = self.features(x)
        return Chain(self.top(x), lambda z2: self.bottom(h, z2), self.split)


class SplitDecoder(nn.Module):
    """p(x|z2, z1) as a module of z = [z2, z1].

    Args:
        joined: Module, (z1, z2) -> p(x|z2, z1).
        split: Size of z2.
    """

    def __init__(self, joined: Joined, split: int) -> None:
        super().__init__()
        self.joined, self.split = joined, split

    def forward(self, z: Tensor) -> Distribution:
        return self.joined(z[..., self.split :], z[..., : self.split])


def two_level_encoder(top: nn.Module, features: nn.Module, size: int, joint: int, latent: int) -> ChainEncoder:
    """q(z2|x) and, from features of x and a gated layer of z2 of their size, a gated joint layer and q(z1|x, z2).

    Args:
        top: Module, x -> q(z2|x).
        features: Module, x -> h.
        size: Size of h.
        joint: Size of the joint layer.
        latent: Size of each level.
    """
    bottom = Joined(nn.Identity(), GatedDense(latent, size), GatedDense(2 * size, joint), NormalHead(joint, latent))
    return ChainEncoder(top, features, bottom, latent)


def hierarchical_encoder(event_shape: Shape, hidden: Sequence[int], latent: int) -> ChainEncoder:
    """The dense encoder of the HVAE: both levels of size `latent`.

    >>> import torch
    >>> encoder = hierarchical_encoder((1, 4, 4), [16, 16], latent=3)
    >>> encoder(torch.zeros(7, 1, 4, 4)).sample((5,)).shape
    torch.Size([5, 7, 6])
    """
    features = Features(event_shape, hidden[:1])
    return two_level_encoder(Encoder(event_shape, hidden, latent), features, hidden[0], hidden[-1], latent)


def conditional(
    in_features: int,
    hidden: Sequence[int],
    latent: int,
    layers: Callable[..., nn.Sequential] = gated_layers,
    head: Callable[[int, int], nn.Module] = NormalHead,
) -> nn.Sequential:
    """p(z1|z2): dense layers and a head, as in `networks.Encoder`."""
    return nn.Sequential(layers(in_features, *hidden), head(hidden[-1], latent))


def hierarchical_decoder(
    event_shape: Shape,
    hidden: Sequence[int],
    latent: int,
    head: Callable[[int, Shape], nn.Module] = BernoulliHead,
) -> nn.Module:
    """The dense decoder of the HVAE, a module of z = [z2, z1]."""
    width, last = hidden[0], hidden[-1]
    joint = GatedDense(2 * width, last)
    joined = Joined(GatedDense(latent, width), GatedDense(latent, width), joint, head(last, event_shape))
    return SplitDecoder(joined, latent)
