"""Images drawn pixel by pixel."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaepriors.distributions.shaped import Shape, ShapedDistribution

__all__ = ["Autoregressive", "naive_pixel_draws", "sampling_progress"]

_progress: ContextVar[Callable[[int, int], None] | None] = ContextVar("progress", default=None)


@contextmanager
def sampling_progress(progress: Callable[[int, int], None]) -> Iterator[None]:
    """Within this block, report the progress of each `Autoregressive.sample`: pixels done, and pixels in all.

    >>> from torch.distributions import Bernoulli
    >>> with sampling_progress(print):
    ...     _ = Autoregressive(lambda x: Bernoulli(x), (), (1, 1, 2), draws=lambda shape: torch.zeros(2, 1)).sample()
    1 2
    2 2
    """
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


class Autoregressive(ShapedDistribution):
    r"""Distribution of an image whose pixels are drawn one after another, row by row from the left.

    $$\log p(x) = \sum_i \log p(x_i \mid x_1, \dots, x_{i-1})$$

    (van den Oord, Kalchbrenner & Kavukcuoglu 2016, eq. 1). The channels of a pixel are drawn together. The mean has no
    closed form.

    Args:
        conditionals: x -> a distribution over images in which pixel i is independent of all others and depends only on
            the pixels of x before i. One call gives the density of all pixels.
        batch_shape: Shape of the batch.
        event_shape: Channels, height and width.
        draws: Shape of the sample -> the pixels in order, each of shape `(*shape, channels)`. `naive_pixel_draws` gets
            them from `conditionals` alone; a network that keeps what it has computed is faster by about the number of
            pixels.
        support: () -> the support of x, if known; called when asked for.
    """

    def __init__(
        self,
        conditionals: Callable[[Tensor], Distribution],
        batch_shape: Shape,
        event_shape: Shape,
        *,
        draws: Callable[[torch.Size], Iterable[Tensor]],
        support: Callable[[], constraints.Constraint] | None = None,
    ) -> None:
        self.conditionals, self.draws, self._support = conditionals, draws, support
        super().__init__(batch_shape, event_shape)

    @property
    def support(self) -> constraints.Constraint:
        if self._support is None:
            raise NotImplementedError("this Autoregressive was made without a support: pass support=lambda: ...")
        return self._support()

    def log_prob(self, value: Tensor) -> Tensor:
        return self._over_batch(self.conditionals(value).log_prob(value))

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Images, of shape `(*sample_shape, *batch, *event)`, pixel by pixel (see `sampling_progress`)."""
        _, height, width = self.event_shape
        progress, pixels = _progress.get(), []
        for pixel in self.draws(torch.Size(sample_shape) + self.batch_shape):
            pixels.append(pixel)
            if progress is not None:
                progress(len(pixels), height * width)
        return torch.stack(pixels, -1).unflatten(-1, (height, width))


def naive_pixel_draws(conditionals: Callable[[Tensor], Distribution], blank: Tensor) -> Iterator[Tensor]:
    """Draw the pixels of an `Autoregressive` by the plain loop: one pass over the whole image for each pixel.

    Args:
        conditionals: As in `Autoregressive`.
        blank: Any images of the shape of the sample, `(*shape, channels, height, width)`.
    """
    x = blank.clone()
    for row, column in product(range(x.shape[-2]), range(x.shape[-1])):
        x[..., row, column] = conditionals(x).sample()[..., row, column]
        yield x[..., row, column]
