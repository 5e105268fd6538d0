r"""Convolutional networks.

* Gated convolutions: the ConvHVAE of Tomczak & Welling 2018, supplement, and the one-level image networks of Klushyn et
  al. 2019, Table 3 (MNIST, Fashion-MNIST, OMNIGLOT), which have the same layers.
* Convolutions with ReLU and strides, for the 64 x 64 images of Klushyn et al. 2019, Table 3 (faces, chairs). The
  decoder has the encoder's layers in reverse order, with a transposed convolution for each stride.

A layer is written (channels, kernel, stride).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from vaepriors.distributions import Shape
from vaepriors.networks.dense import first_event_dim
from vaepriors.networks.heads import BernoulliHead, Network, NormalHead, SoftplusNormalHead
from vaepriors.networks.layers import Conv, ConvToEvent, GatedConv, GatedDense, Upsampling, gated_layers, relu_layers
from vaepriors.networks.levels import ChainEncoder, Joined, SplitDecoder, first_and_joint, two_level_encoder

__all__ = [
    "ConvFeatures",
    "conv_decoder",
    "conv_encoder",
    "conv_hierarchical_decoder",
    "conv_hierarchical_encoder",
    "strided_decoder",
    "strided_encoder",
]

Layer = tuple[int, int, int]
TOP: tuple[Layer, ...] = ((32, 7, 1), (32, 3, 2), (64, 5, 1), (64, 3, 2), (6, 3, 1))
BOTTOM: tuple[Layer, ...] = ((32, 3, 1), (32, 3, 2), (64, 3, 1), (64, 3, 2), (6, 3, 1))
STRIDED: tuple[Layer, ...] = (
    (32, 5, 2), (32, 3, 1), (48, 5, 2), (48, 3, 1), (64, 5, 2), (64, 3, 1), (96, 5, 2), (96, 3, 1),
)  # fmt: skip


def relu_conv(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> nn.Module:
    return nn.Sequential(Conv(in_channels, out_channels, kernel, stride=stride), nn.ReLU())


def check_images(event_shape: Shape) -> torch.Size:
    """Check that one x is an image, and return its shape.

    Raises:
        ValueError: If `event_shape` does not have three dimensions.
    """
    if len(event_shape) != 3:
        raise ValueError(
            f"a model with convolutions needs images (channels, height, width), but one x has shape "
            f"{tuple(event_shape)}: choose a dense model such as vae, or reshape the data"
        )
    return torch.Size(event_shape)


class ConvFeatures(nn.Module):
    """Convolutions of an image, their output flattened to h.

    Args:
        event_shape: Channels, height and width of one x.
        layers: (channels, kernel, stride) of each.
        layer: (channels in, channels out, kernel, stride=stride) -> one of them.

    Attributes:
        out_features: Size of h.

    >>> features = ConvFeatures((1, 28, 28), TOP)
    >>> features.out_features, features(torch.zeros(5, 4, 1, 28, 28)).shape
    (294, torch.Size([5, 4, 294]))
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self, event_shape: Shape, layers: Sequence[Layer], layer: Callable[..., nn.Module] = GatedConv
    ) -> None:
        super().__init__()
        self.event_shape = check_images(event_shape)
        channels, height, width = self.event_shape
        parts = []
        for out_channels, kernel, stride in layers:
            parts.append(layer(channels, out_channels, kernel, stride=stride))
            channels, height, width = out_channels, -(-height // stride), -(-width // stride)
        self.layers = nn.Sequential(*parts)
        self.out_features = channels * height * width

    def forward(self, x: Tensor) -> Tensor:
        first_event_dim(x, self.event_shape)
        return self.layers(x).flatten(-3)


def conv_encoder(
    event_shape: Shape,
    hidden: Sequence[int],
    latent: int,
    *,
    head: Callable[[int, int], nn.Module] = SoftplusNormalHead,
) -> Network:
    """q(z|x): five gated convolutions, gated dense layers if any, and a head.

    Args:
        event_shape: Channels, height and width of one x.
        hidden: Sizes of the dense layers; the papers have none here.
        latent: Size of z.
        head: (size of the features, size of z) -> a module from features to a normal distribution.

    Raises:
        ValueError: If one x is not an image.
    """
    features = ConvFeatures(event_shape, TOP)
    sizes = [features.out_features, *hidden]
    return Network(features, *gated_layers(*sizes), head(sizes[-1], latent))


def conv_decoder(
    event_shape: Shape,
    hidden: Sequence[int],
    latent: int,
    *,
    head: Callable[..., nn.Module] = BernoulliHead,
) -> Network:
    """p(x|z): gated dense layers up to the size of x, four gated convolutions of 64 channels, a 1 x 1 convolution.

    Args:
        event_shape: Channels, height and width of one x.
        hidden: Sizes of the dense layers before the one of the size of x; the papers have none.
        latent: Size of z.
        head: Class of the head, such as `BernoulliHead`.

    Raises:
        ValueError: If one x is not an image.
    """
    size = check_images(event_shape).numel()
    return Network(*gated_layers(latent, *hidden, size), _from_plane(event_shape, head))


def _from_plane(event_shape: Shape, head: Callable[..., nn.Module]) -> Network:
    """As many features as pixels, as an image -> p(x|z)."""
    layers = [GatedConv(a, b, 3) for a, b in pairwise([event_shape[0], 64, 64, 64, 64])]
    return Network(nn.Unflatten(-1, tuple(event_shape)), *layers, head(64, event_shape, ConvToEvent))


def conv_hierarchical_encoder(event_shape: Shape, hidden: Sequence[int], latent: int) -> ChainEncoder:
    """The encoder of ConvHVAE: q(z2|x) and the features of x in q(z1|x, z2) are five gated convolutions each.

    >>> encoder = conv_hierarchical_encoder((1, 8, 8), [16, 16], latent=3)
    >>> encoder(torch.zeros(7, 1, 8, 8)).sample((5,)).shape
    torch.Size([5, 7, 6])
    """
    _, joint = first_and_joint(hidden)
    top, features = conv_encoder(event_shape, (), latent, head=NormalHead), ConvFeatures(event_shape, BOTTOM)
    return two_level_encoder(top, features, size=features.out_features, joint=joint, latent=latent)


def conv_hierarchical_decoder(
    event_shape: Shape,
    hidden: Sequence[int],
    latent: int,
    *,
    head: Callable[..., nn.Module] = BernoulliHead,
    condition: int = 0,
) -> SplitDecoder:
    """The decoder of ConvHVAE, a module of z = [z2, z1], or of [z2, z1, y] with a condition y of this size.

    The first layer of each level has the width `hidden[0]`.
    """
    (width, _), size = first_and_joint(hidden), check_images(event_shape).numel()
    joint = GatedDense(2 * width, size)
    first, second = GatedDense(latent + condition, width), GatedDense(latent, width)
    joined = Joined(first, second, joint, head=_from_plane(event_shape, head))
    return SplitDecoder(joined, (latent, latent + condition))


def strided_encoder(event_shape: Shape, hidden: Sequence[int], latent: int) -> Network:
    """q(z|x): eight convolutions with ReLU, every other one of stride 2, dense layers with ReLU, and a head.

    Args:
        event_shape: Channels, height and width of one x, the latter two multiples of 16.
        hidden: Sizes of the dense layers; 256 in the paper.
        latent: Size of z.

    Raises:
        ValueError: If one x is not an image of such a size.
    """
    _strided_size(event_shape)
    features = ConvFeatures(event_shape, STRIDED, relu_conv)
    sizes = [features.out_features, *hidden]
    return Network(features, *relu_layers(*sizes), SoftplusNormalHead(sizes[-1], latent))


def strided_decoder(
    event_shape: Shape,
    hidden: Sequence[int],
    latent: int,
    *,
    head: Callable[..., nn.Module] = BernoulliHead,
) -> Network:
    """p(x|z): the layers of `strided_encoder` backwards; the last transposed convolution is the pixels' head.

    >>> strided_decoder((3, 32, 32), [16], latent=2)(torch.zeros(4, 2)).mean.shape
    torch.Size([4, 3, 32, 32])
    """
    height, width = _strided_size(event_shape)
    start = (STRIDED[-1][0], height, width)
    layers: list[nn.Module] = [*relu_layers(latent, *reversed(hidden), math.prod(start)), nn.Unflatten(-1, start)]
    for (after, kernel, stride), (before, _, _) in pairwise(reversed(STRIDED)):
        layers += [Upsampling(after, before, kernel) if stride == 2 else Conv(after, before, kernel), nn.ReLU()]
    channels, kernel, _ = STRIDED[0]
    return Network(*layers, head(channels, event_shape, lambda c, shape: Upsampling(c, shape[0], kernel)))


def _strided_size(event_shape: Shape) -> tuple[int, int]:
    """Height and width after all strides.

    Raises:
        ValueError: If one x is not an image whose size the strides divide.
    """
    _, height, width = check_images(event_shape)
    factor = math.prod(stride for _, _, stride in STRIDED)
    if height % factor or width % factor:
        raise ValueError(
            f"images of {height} x {width} do not fit the convolutions with strides: height and width must be "
            f"multiples of {factor}; pad the images, or choose the model conv"
        )
    return height // factor, width // factor
