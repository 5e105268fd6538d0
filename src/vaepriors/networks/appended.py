"""Networks that also see a condition y: it is appended to their first input."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["Appended"]


class Appended(nn.Module):
    """(x, y) -> network([x, y]), for a network that has room for y: an encoder, or a decoder of z.

    To vectors, y is concatenated; an image gets a constant channel for each number of y.

    Args:
        network: Module of [x, y]: of vectors with `size` more numbers than x, or images with `size` more channels.
        size: c, the size of y.
        view: What the network sees of x before y is appended, such as `nn.Flatten(-3)` for dense layers of images.
        images: Whether the network takes images instead of vectors.

    >>> from vaepriors.networks import Encoder, conv_encoder
    >>> x, y = torch.zeros(5, 1, 8, 8), torch.zeros(5, 10)
    >>> Appended(Encoder((64 + 10,), [16], latent=2), 10, view=nn.Flatten(-3))(x, y).batch_shape
    torch.Size([5])
    >>> Appended(conv_encoder((1 + 10, 8, 8), [], latent=2), 10, images=True)(x, y).batch_shape
    torch.Size([5])
    """

    __call__: Callable[..., Distribution]

    def __init__(self, network: nn.Module, size: int, *, view: nn.Module | None = None, images: bool = False) -> None:
        super().__init__()
        self.network, self.view, self.size, self.event_dims = network, view, size, 3 if images else 1

    def part(self, name: str) -> "Appended":
        """A part of the network, such as the `top` of a `ChainEncoder`, that sees the same."""
        return Appended(self.network.get_submodule(name), self.size, view=self.view, images=self.event_dims == 3)

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        if y.shape[-1:] != (self.size,):
            raise ValueError(f"y has shape {tuple(y.shape)}, but the network takes {self.size} numbers for each y")
        h = x if self.view is None else self.view(x)
        d = self.event_dims
        y = y.view(*y.shape, *(1 for _ in range(d - 1)))  # of an image: a constant channel each
        of_h, of_y = h.shape[:-d], y.shape[:-d]
        if any(m != n and 1 not in (m, n) for m, n in zip(of_h[::-1], of_y[::-1], strict=False)):
            raise ValueError(
                f"x or z has {tuple(of_h)} points, but y {tuple(of_y)}: give the y of each point, or one for all"
            )
        batch = torch.broadcast_shapes(of_h, of_y)
        parts: Any = (h.expand(*batch, *h.shape[-d:]), y.expand(*batch, self.size, *h.shape[h.dim() - d + 1 :]))
        return self.network(torch.cat(parts, -d))
