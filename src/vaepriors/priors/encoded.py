"""What the priors of encoded inputs share: the checks of their inputs, and of q(z|x) at them.

A `VampPrior` encodes pseudo-inputs, an `ExemplarPrior` training examples.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.batchnorm import _BatchNorm

from vaepriors.agreement import check_distribution
from vaepriors.vae import eval_mode
from vaepriors.words import a_type

__all__ = ["check_events", "component_posteriors", "paired", "posterior_at"]


def check_events(x: Tensor, name: str, least: int = 1, missing: bool = False) -> None:
    """Refuse an argument that is not a tensor of at least `least` finite events, in which cells may be missing."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} is {a_type(x)}: give a tensor of shape (K, *event)")
    if x.dim() < 1 or len(x) < least:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: give (K, *event) with K at least {least}")
    if not x.is_floating_point():
        raise ValueError(f"{name} is {x.dtype}: convert it with {name}.float()")
    if (x.isinf() if missing else ~x.isfinite()).any():
        raise ValueError(_not_finite(name))


def _not_finite(name: str) -> str:
    return f"{name} has values that are not finite: give examples of the data, or noise like them"


def paired(x: Tensor, conditions: Tensor | None, name: str) -> tuple[Tensor, ...]:
    """The inputs of an encoder, with a condition for each if there are some."""
    if conditions is None:
        return (x,)
    if conditions.dim() != 2 or len(conditions) != len(x):
        raise ValueError(
            f"there are {len(x)} {name}, but conditions of shape {tuple(conditions.shape)}: give ({len(x)}, c), one "
            "for each"
        )
    return x, conditions


def component_posteriors(encoder: nn.Module, *inputs: Tensor) -> Distribution:
    """q(z|u), in training by the running statistics of batch norm, as in evaluation.

    These statistics are those of the data: the inputs of the components neither use their own nor change them.
    """
    norms = [part for part in encoder.modules() if isinstance(part, _BatchNorm) and part.training]
    for norm in norms:
        norm.eval()
    try:
        return encoder(*inputs)
    finally:
        for norm in norms:
            norm.train()


@torch.no_grad()
def posterior_at(encoder: nn.Module, inputs: tuple[Tensor, ...], name: str, *moments: str) -> Distribution:
    """q(z|x) of the argument `name`, refused if it is not over one vector for each event or lacks a moment."""
    x = inputs[0]
    try:
        with eval_mode(encoder):
            q: Distribution = encoder(*inputs)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if x.isnan().any():  # torch checks the parameters of its distributions, unless zuko has been imported
            raise ValueError(_not_finite(name)) from error
        shape = tuple(x.shape[1:])
        raise ValueError(f"{name} have event shape {shape}, which the encoder does not take: {error}") from error
    check_distribution("encoder", q)
    if tuple(q.batch_shape) != (len(x),) or len(q.event_shape) != 1:
        raise ValueError(
            f"the encoder of {len(x)} {name} returned a distribution of batch shape {tuple(q.batch_shape)} and event "
            f"shape {tuple(q.event_shape)}, expected ({len(x)},) and (latent,): one vector z for each input"
        )
    values = []
    try:
        for moment in moments:
            values.append(getattr(q, moment))
    except NotImplementedError as error:
        raise ValueError(
            f"the encoder returns {a_type(q)}, which has no {moment} in closed form: give an encoder "
            "of diagonal normals, such as the `top` of a hierarchical encoder"
        ) from error
    if x.isnan().any() and not all(value.isfinite().all() for value in values):  # it does not take missing cells
        raise ValueError(_not_finite(name))
    return q
