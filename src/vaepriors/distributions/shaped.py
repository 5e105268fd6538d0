"""What the distributions here share."""

from copy import copy

import torch
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["Shape", "ShapedDistribution"]

Shape = torch.Size | list[int] | tuple[int, ...]


class ShapedDistribution(Distribution):
    """What the distributions here share: `repr`, `expand`, and the errors for moments without a closed form."""

    arg_constraints = {}

    def __init__(self, batch_shape: Shape, event_shape: Shape) -> None:
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)})"

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError(f"the mean of {type(self).__name__} has no closed form: average draws")

    @property
    def variance(self) -> Tensor:
        raise NotImplementedError(f"the variance of {type(self).__name__} has no closed form: estimate it from draws")

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "ShapedDistribution":
        """The same distribution at each place of a batch, if no parameter has the batch's shape."""
        expanded = copy(self)
        ShapedDistribution.__init__(expanded, batch_shape, self.event_shape)
        return expanded

    def _check_event(self, value: Tensor, name: str) -> None:
        """Refuse another event shape: a size of 1 would broadcast to a wrong density."""
        if value.shape[max(value.dim() - len(self.event_shape), 0) :] != self.event_shape:
            expected = ", ".join(map(str, ("...", *self.event_shape)))
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected ({expected})")

    def _over_batch(self, log_prob: Tensor) -> Tensor:
        """Log-densities that do not depend on the place in the batch, of the shape that they have with it."""
        if not self.batch_shape:
            return log_prob
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))
