"""The loss of a batch: rows of the training set -> (loss, rate, distortion)."""

from typing import Any

import torch
from torch import Tensor, nn

from vaepriors.conditional import AnyVAE, given
from vaepriors.objectives import Objective
from vaepriors.vae import Terms

__all__ = ["Losses", "binarize"]


class Losses(nn.Module):
    """Rows of the training set -> (loss, rate, distortion), in one module for DDP, autocast and the compiler.

    The data are selected here because Fabric rounds the floating-point inputs of a module to its precision.

    Args:
        model: The model.
        objective: The objective.
        data: The training set, on the device of the model: `data[rows]` are some of its points.
        dynamic: Whether the data are probabilities, to be binarised anew in each call.
        conditions: The y of each point, for a conditional model.
    """

    def __init__(
        self,
        model: AnyVAE,
        objective: Objective,
        data: Any,
        dynamic: bool = False,
        conditions: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.data, self.dynamic = data, dynamic  # no buffer: it is not saved, and the same on all devices
        self.conditions = conditions

    def forward(self, rows: Tensor) -> Tensor:
        x = self.data[rows]
        model = given(self.model, None if self.conditions is None else self.conditions[rows])
        loss, terms = _checked(self.objective(model.without(rows), binarize(x) if self.dynamic else x))
        return torch.stack([loss, terms.rate.mean(), terms.distortion.mean()])


def _checked(value: Any) -> tuple[Tensor, Terms]:
    """Refuse what a custom objective may return by mistake; a loss without a gradient would train nothing."""
    if not (isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Tensor)):
        raise ValueError("the objective must return a pair: the loss, a tensor, and the terms of the model")
    if value[0].shape:
        raise ValueError(f"the objective returned a loss of shape {tuple(value[0].shape)}: return its mean")
    if not value[0].requires_grad:
        raise ValueError("the objective returned a loss without a gradient: leave out detach, item and no_grad")
    return value


def binarize(probabilities: Tensor) -> Tensor:
    """Independent Bernoulli draws, as numbers 0 and 1 of the same dtype.

    >>> binarize(torch.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    return (torch.rand_like(probabilities) < probabilities).to(probabilities.dtype)
