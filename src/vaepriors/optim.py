r"""Adam on normalised gradients (Yu, Lin, Salakhutdinov & Carbonell 2017, arXiv:1707.04822).

Before torch's own Adam sees it, the gradient $g$ of each parameter tensor becomes $g / (\|g\|_2 + \epsilon)$.
Adam forgets a constant factor, so what this changes is how much each step of a long history counts.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["adam", "normalize_gradients"]


@torch.no_grad()
def normalize_gradients(parameters: Iterable[nn.Parameter], eps: float = 1e-7) -> None:
    """Divide each tensor's gradient by its 2-norm plus eps, in place.

    >>> p = nn.Parameter(torch.zeros(2)); p.grad = torch.tensor([3.0, 4.0])
    >>> normalize_gradients([p]); p.grad
    tensor([0.6000, 0.8000])
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    torch._foreach_add_(norms, eps)
    torch._foreach_div_(gradients, norms)


def adam(parameters: Iterable[nn.Parameter], lr: float, normalize: bool = True) -> torch.optim.Adam:
    """torch's Adam (betas 0.9 and 0.999, eps 1e-8), by default on normalised gradients.

    Args:
        parameters: What to train.
        lr: Learning rate.
        normalize: Whether `normalize_gradients` runs before each step.
    """
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    if normalize:

        def before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            normalize_gradients(parameters)

        optimizer.register_step_pre_hook(before_step)
    return optimizer
