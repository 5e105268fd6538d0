r"""Adam on normalised gradients (Yu, Lin, Salakhutdinov & Carbonell 2017, arXiv:1707.04822).

Before Adam's step, the gradient $g$ of each parameter tensor becomes $g / (\|g\|_2 + \epsilon)$. Adam ignores a
constant factor, so this changes only how much each step of the history counts.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vaepriors.objectives import Objective
from vaepriors.vae import Parts

__all__ = ["adam", "gated_adam", "normalize_gradients", "staged_rate", "trained_parameters"]


@torch.no_grad()
def normalize_gradients(parameters: Iterable[nn.Parameter], eps: float = 1e-7) -> None:
    """Divide each tensor's gradient by its 2-norm plus eps, in place.

    >>> p = nn.Parameter(torch.zeros(2)); p.grad = torch.tensor([3.0, 4.0])
    >>> normalize_gradients([p]); p.grad
    tensor([0.6000, 0.8000])
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        norms = torch.stack(torch._foreach_norm(gradients)) + eps
        torch._foreach_div_(gradients, norms.unbind())


def adam(
    model: Parts,
    objective: Objective,
    lr: float = 5e-4,
    *,
    normalize: bool = True,
    eps: float = 1e-8,
    capturable: bool = False,
) -> torch.optim.Adam:
    """Adam for a model and an objective, whose gate may freeze the prior for a while (see `gated_adam`).

    Args:
        model: The model to train.
        objective: The objective, whose `trained` decides which parameters are trained, and whose `prior_gate` decides
            in which steps the prior's own are.
        lr, normalize, eps, capturable: As for `gated_adam`.

    Raises:
        ValueError: If the objective trains no parameter of this model, or all that it trains are frozen.

    >>> from vaepriors import VAE, networks, objectives, priors
    >>> model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), priors.StandardNormal(2))
    >>> optimizer = adam(model, objectives.ELBO(), lr=1e-3)
    """
    trained, gated, gate = trained_parameters(model, objective), model.prior_parameters(), objective.prior_gate()
    return gated_adam(trained, lr, normalize=normalize, gated=gated, gate=gate, eps=eps, capturable=capturable)


def trained_parameters(model: Parts, objective: Objective) -> list[nn.Parameter]:
    """The parameters that an objective trains, frozen ones among them.

    Raises:
        ValueError: If it trains none, or all that it trains are frozen.
    """
    trained = objective.trained(model)
    if not trained:
        raise ValueError("the prior has no parameters of its own to train: choose another one, such as a mixture")
    if not any(p.requires_grad for p in trained):
        raise ValueError("all parameters to train are frozen: call requires_grad_(True) on the parts to train")
    return trained


def gated_adam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    *,
    normalize: bool = True,
    gated: Iterable[nn.Parameter] = (),
    gate: Tensor | None = None,
    eps: float = 1e-8,
    capturable: bool = False,
) -> torch.optim.Adam:
    """torch's Adam (betas 0.9 and 0.999), by default on normalised gradients, with a gate for some parameters.

    Args:
        parameters: The parameters to train.
        lr: Learning rate.
        normalize: Whether `normalize_gradients` runs before each step.
        gated: Parameters that do not change while the gate is 0, and are then still new to Adam. (With zero gradients
            alone, Adam would count these steps, and its first real steps would be several times too long.)
        gate: A scalar, 0 or 1, on the device of the parameters; read in each step.
        eps: Constant added to the root of the second moment.
        capturable: Whether a CUDA graph can capture its steps; the learning rate is then on the device.
    """
    parameters, gated = list(parameters), list(gated)
    rate = torch.tensor(lr, device=parameters[0].device) if capturable else lr
    optimizer = torch.optim.Adam(parameters, lr=rate, eps=eps, fused=True, capturable=capturable)

    def before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if normalize:
            normalize_gradients(parameters)
        if gate is not None and gated:
            torch._foreach_mul_([p.grad for p in gated if p.grad is not None], gate)

    def after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if gate is not None and gated:
            torch._foreach_mul_([optimizer.state[p]["step"] for p in gated if p.grad is not None], gate)

    optimizer.register_step_pre_hook(before_step)
    optimizer.register_step_post_hook(after_step)
    return optimizer


def staged_rate(lr: float, epoch: int, stages: int) -> float:
    r"""The learning rate of an epoch, $\text{lr} \cdot 10^{-i / (n - 1)}$ in stage $i < n$, which has $3^i$ epochs.

    Epochs are counted from 1, and those after the last stage have its rate. With one stage the rate is constant. The
    schedule of Burda, Grosse & Salakhutdinov 2016 has 8 stages, 3,280 epochs, from 1e-3 down to 1e-4.

    >>> [round(staged_rate(1e-3, epoch, 3), 6) for epoch in (1, 2, 4, 5, 13, 14)]
    [0.001, 0.000316, 0.000316, 0.0001, 0.0001, 0.0001]
    """
    stage = 0
    while stage < stages - 1 and epoch > (3 ** (stage + 1) - 1) // 2:
        stage += 1
    return lr * 10 ** (-stage / max(stages - 1, 1))
