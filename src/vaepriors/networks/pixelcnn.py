r"""PixelHVAE: a decoder that draws the pixels one after another (Tomczak & Welling 2018, section 4.3 and supplement).

$$p(x|z) = \prod_i p(x_i \mid x_1, \dots, x_{i-1}, z)$$

Masked convolutions (van den Oord, Kalchbrenner & Kavukcuoglu 2016) give all factors in one pass. Where this differs
from the authors' program, and why:

* z enters as planes next to the image, and only the image is masked. (There, the planes are masked like the image: the
  first pixel cannot depend on z at all, and no pixel sees z at its own place.)
* Weights are normalised, not the batch. (Batch statistics show a pixel the other images, and later pixels of its own
  image: the model is then not a density.)
* Masked weights do not exist. (There, their gradients count in the norm that gradients are divided by.)

Eight layers of 3 x 3 see eight rows up, but with each row the view widens by one pixel only, which leaves a blind spot
to the upper right. This limits the model, not its correctness: z must encode what the pixels cannot see.
"""

from collections.abc import Callable, Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.distributions import Autoregressive, Shape
from vaepriors.networks.conv import check_images
from vaepriors.networks.heads import BernoulliHead
from vaepriors.networks.layers import Conv, ConvToEvent, GatedDense, MaskedConv
from vaepriors.networks.levels import Joined, SplitDecoder

__all__ = ["PixelCNN", "pixel_hierarchical_decoder"]


class PixelCNN(nn.Module):
    """Features of z -> p(x|z): masked convolutions of 3 x 3 with ReLU (one of type A, then type B), and a head.

    Args:
        event_shape: Channels, height and width of one x.
        head: Class of the head, such as `BernoulliHead`.
        channels: Channels of the hidden layers, and of the features of z.
        layers: Number of masked convolutions.
        view: Module, x -> an image of the same size that the convolutions see instead of x.

    Raises:
        ValueError: If one x is not an image.

    >>> p = PixelCNN((1, 4, 4), channels=8)(torch.zeros(5, 8, 4, 4))
    >>> p.log_prob(torch.zeros(3, 5, 1, 4, 4)).shape, p.sample().shape
    (torch.Size([3, 5]), torch.Size([5, 1, 4, 4]))
    """

    __call__: Callable[..., Autoregressive]

    def __init__(
        self,
        event_shape: Shape,
        *,
        head: Callable[..., nn.Module] = BernoulliHead,
        channels: int = 64,
        layers: int = 8,
        view: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.event_shape = check_images(event_shape)
        self.view = nn.Identity() if view is None else view
        seen = self.view(torch.zeros(self.event_shape, device="cpu")).shape[0]
        self.first = MaskedConv(seen, channels, 3, own=False)
        self.others = nn.ModuleList(MaskedConv(channels, channels, 3, own=True) for _ in range(layers - 1))
        self.head = head(channels, event_shape, ConvToEvent)

    def forward(self, context: Tensor) -> Autoregressive:
        """p(x|z).

        Args:
            context: Features of z, of shape `(*batch, channels, height, width)`.
        """

        def conditionals(x: Tensor) -> Distribution:
            h = F.relu(self.first(self.view(x)) + context)
            for layer in self.others:
                h = F.relu(layer(h))
            return self.head(h)

        draws = lambda shape: self.draws(context, shape)  # noqa: E731
        support = lambda: self.head(context).support  # noqa: E731
        return Autoregressive(conditionals, context.shape[:-3], self.event_shape, draws=draws, support=support)

    @torch.no_grad()
    def draws(self, context: Tensor, shape: Shape) -> Iterator[Tensor]:
        """The pixels of a sample in order, each of shape `(*shape, channels of x)`.

        What a layer computes at a pixel depends only on pixels before it, so it never changes and is kept. A new pixel
        costs each layer one product of the size of its weights. All pixels together cost one pass of `forward`,
        instead of one pass for each pixel.

        Args:
            context: As in `forward`.
            shape: Shape of the sample, which ends in the batch shape of the context.
        """
        layers = [self.first, *self.others]
        weights = [layer.weight().movedim(1, -1).flatten(1) for layer in layers]
        _, height, width = self.event_shape
        # what each layer sees, channels last, with the zeros above, left and right of the image
        maps = [context.new_zeros(*shape, height + 1, width + 2, layer.direction.shape[1]) for layer in layers]
        for row, column in product(range(height), range(width)):
            h = context[..., row, column]
            for number, (layer, weight, seen) in enumerate(zip(layers, weights, maps, strict=True)):
                if number > 0:
                    seen[..., row + 1, column + 1, :] = h
                y = F.linear(seen[..., row : row + 2, column : column + 3, :].flatten(-3), weight, layer.bias)
                h = F.relu(y + h if number == 0 else y)
            pixel = self.head(h[..., None, None]).sample()[..., 0, 0]
            maps[0][..., row + 1, column + 1, :] = self.view(pixel[..., None, None])[..., 0, 0]
            yield pixel


class _Planes(nn.Module):
    """z -> as many features as pixels, as an image: a gated dense layer."""

    def __init__(self, latent: int, event_shape: torch.Size) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.layer = GatedDense(latent, event_shape.numel())

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z).unflatten(-1, self.event_shape)


class _Context(nn.Module):
    """Planes of both levels -> features for the masked convolutions, by one 3 x 3 convolution without a mask."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels, out_channels, 3)

    def forward(self, *planes: Tensor) -> Tensor:
        return self.conv(torch.cat(planes, -3))


def pixel_hierarchical_decoder(
    event_shape: Shape,
    latent: int,
    *,
    head: Callable[..., nn.Module] = BernoulliHead,
    channels: int = 64,
    view: nn.Module | None = None,
    condition: int = 0,
) -> SplitDecoder:
    """The decoder of PixelHVAE, a module of z = [z2, z1], each of which becomes a plane of the size of x.

    Args:
        event_shape: Channels, height and width of one x.
        latent: Size of each level.
        head: Class of the head, such as `BernoulliHead`.
        channels: Channels of the masked convolutions.
        view: What they see instead of x, as in `PixelCNN`.
        condition: Size of a condition y, which follows z; its plane is that of z1.

    Raises:
        ValueError: If one x is not an image.
    """
    shape = check_images(event_shape)
    context = _Context(2 * shape[0], channels)
    pixels = PixelCNN(shape, head=head, channels=channels, view=view)
    joined = Joined(_Planes(latent + condition, shape), _Planes(latent, shape), context, head=pixels)
    return SplitDecoder(joined, (latent, latent + condition))
