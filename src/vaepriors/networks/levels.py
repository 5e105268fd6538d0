r"""Two levels of latent variables, z = [z2, z1] (Tomczak & Welling 2018, section 4, eq. 10 to 15).

    encoder   q(z2|x) q(z1|x, z2)        `ChainEncoder`
    prior     p(z2) p(z1|z2)             `vaepriors.priors.TwoLevelPrior` with `conditional`
    decoder   p(x|z2, z1)                `SplitDecoder`

A network with two inputs has a first layer for each of them, then a joint layer: `Joined`. The dense networks of the
HVAE are here; those with convolutions are in `networks.conv` and `networks.pixelcnn`.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.distributions import Chain, Shape
from vaepriors.networks.dense import Encoder, Features
from vaepriors.networks.heads import BernoulliHead, Network, NormalHead
from vaepriors.networks.layers import GatedDense, gated_layers

__all__ = [
    "ChainEncoder",
    "Joined",
    "SplitDecoder",
    "conditional",
    "first_and_joint",
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

    __call__: Callable[..., Distribution]

    def __init__(self, first: nn.Module, second: nn.Module, joint: nn.Module, *, head: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.joint, self.head = first, second, joint, head

    def forward(self, a: Tensor, b: Tensor) -> Distribution:
        return self.head(self.joint(self.first(a), self.second(b)))


class ChainEncoder(nn.Module):
    """q(z2|x) q(z1|x, z2), with the features of x computed once for all draws of z2.

    Args:
        top: Module, x -> q(z2|x); the one that a VampPrior shares.
        features: Module, x -> h.
        bottom: Module, (h, z2) -> q(z1|x, z2).
        sizes: Sizes of z2 and z1.
    """

    __call__: Callable[..., Chain]

    def __init__(self, top: nn.Module, features: nn.Module, bottom: nn.Module, *, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.top, self.features, self.bottom, self.sizes = top, features, bottom, sizes

    def behind(self, view: nn.Module) -> "ChainEncoder":
        """The same encoder of what a module makes of x."""
        top, features = Network(view, self.top), nn.Sequential(view, self.features)
        return ChainEncoder(top, features, self.bottom, sizes=self.sizes)

    def forward(self, x: Tensor) -> Chain:
        h = self.features(x)
        return Chain(self.top(x), lambda z2: self.bottom(h, z2), self.sizes)


class SplitDecoder(nn.Module):
    """p(x|z2, z1) as a module of z = [z2, z1].

    Args:
        joined: Module, (z1, z2) -> p(x|z2, z1).
        sizes: Sizes of z2 and z1, the latter with a condition y that follows it.
    """

    __call__: Callable[..., Distribution]

    def __init__(self, joined: Joined, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.joined, self.sizes = joined, sizes

    def forward(self, z: Tensor) -> Distribution:
        z2, z1 = z.split(self.sizes, -1)
        return self.joined(z1, z2)


def two_level_encoder(top: nn.Module, features: nn.Module, *, size: int, joint: int, latent: int) -> ChainEncoder:
    """q(z2|x), and q(z1|x, z2) from features of x, a gated layer of z2 of their size, and a gated joint layer.

    Args:
        top: Module, x -> q(z2|x).
        features: Module, x -> h.
        size: Size of h.
        joint: Size of the joint layer.
        latent: Size of each level.
    """
    layer, head = GatedDense(latent, size), NormalHead
    bottom = Joined(nn.Identity(), layer, GatedDense(2 * size, joint), head=head(joint, latent))
    return ChainEncoder(top, features, bottom, sizes=(latent, latent))


def first_and_joint(hidden: Sequence[int]) -> tuple[int, int]:
    """The sizes of the first layers and of the joint one, of one size for both or of two.

    Raises:
        ValueError: If there are others, which the networks would not have.
    """
    if not 1 <= len(hidden) <= 2:
        raise ValueError(f"hidden is {list(hidden)}: give one or two sizes, of the first layers and of the joint one")
    return hidden[0], hidden[-1]


def hierarchical_encoder(event_shape: Shape, hidden: Sequence[int], latent: int) -> ChainEncoder:
    """The dense encoder of the HVAE: both levels of size `latent`.

    Raises:
        ValueError: If `hidden` are not one or two sizes.

    >>> import torch
    >>> encoder = hierarchical_encoder((1, 4, 4), [16, 16], latent=3)
    >>> encoder(torch.zeros(7, 1, 4, 4)).sample((5,)).shape
    torch.Size([5, 7, 6])
    """
    width, joint = first_and_joint(hidden)
    features, top = Features(event_shape, [width]), Encoder(event_shape, hidden, latent)
    return two_level_encoder(top, features, size=width, joint=joint, latent=latent)


def conditional(
    in_features: int,
    hidden: Sequence[int],
    latent: int,
    *,
    head: Callable[[int, int], nn.Module] = NormalHead,
    layers: Callable[..., nn.Sequential] = gated_layers,
) -> Network:
    """p(z1|z2): dense layers and a head, as in `networks.Encoder`."""
    return Network(layers(in_features, *hidden), head([in_features, *hidden][-1], latent))


def hierarchical_decoder(
    event_shape: Shape,
    hidden: Sequence[int],
    latent: int,
    *,
    head: Callable[[int, Shape], nn.Module] = BernoulliHead,
    condition: int = 0,
) -> SplitDecoder:
    """The dense decoder of the HVAE, a module of z = [z2, z1], or of [z2, z1, y] with a condition y of this size.

    Raises:
        ValueError: If `hidden` are not one or two sizes.
    """
    width, last = first_and_joint(hidden)
    joint = GatedDense(2 * width, last)
    first, second = GatedDense(latent + condition, width), GatedDense(latent, width)
    joined = Joined(first, second, joint, head=head(last, event_shape))
    return SplitDecoder(joined, (latent, latent + condition))
