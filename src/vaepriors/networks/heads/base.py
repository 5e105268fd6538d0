"""What all heads share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaepriors.distributions import Shape

__all__ = ["Network", "ToEvent", "independent", "single"]

ToEvent = Callable[[int, Shape], nn.Module]
"""(size of the features, event shape) -> a layer from features to one number for each coordinate of the event."""


class Network(nn.Sequential):
    """Layers and a head: a sequence of modules whose call returns a distribution."""

    __call__: Callable[..., Distribution]


def single(h: Tensor) -> Tensor:
    """Convert to at least single precision: autocast must not round a distribution's parameters to bfloat16."""
    return h.to(torch.promote_types(h.dtype, torch.float32))


def independent(each: Distribution, event_dims: int) -> Distribution:
    """Make one event of the last dimensions of a batch, whose coordinates are independent."""
    return Independent(each, event_dims, validate_args=False)
