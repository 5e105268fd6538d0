"""Check anyone's prior, distribution or model: is the density normalised, and does the sampler follow it?

    assert check(prior)
    assert check(model, x)
    print(check(encoder, x))

Each finding compares a number with the one that theory expects, in standard errors. What the findings see, and which
mistakes they catch, is on the page `docs/check.md`.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.agreement import check_dtype
from vaepriors.checking.conditional import check_distribution
from vaepriors.checking.model import check_model
from vaepriors.checking.report import Finding, Report
from vaepriors.conditional import ConditionalVAE
from vaepriors.numerics import keep_generators
from vaepriors.vae import eval_mode
from vaepriors.words import a_type

__all__ = ["Finding", "Report", "check"]


def check(
    what: Any,
    x: Tensor | None = None,
    *,
    reference: Callable[[Tensor], Tensor] | None = None,
    draws: int = 4000,
    seed: int = 0,
) -> Report:
    r"""Check a prior, a distribution, a conditional module or a model.

    | call | what is checked |
    |---|---|
    | `check(prior)` | the distribution that the module returns |
    | `check(distribution)` | a distribution of torch, or any object with its methods |
    | `check(encoder, x)`, `check(decoder, z)` | the distribution at these inputs |
    | `check(model, x)` | encoder, decoder and prior, and the terms that the model makes of them |

    A distribution is compared with its sampler: $\mathbb{E}_r[p/r] = 1$ for a known density r, and identities that need
    no normaliser. If two calls of `log_prob` differ, as those of a `VHP`, it is taken as an unbiased estimate of p, and
    only means of $p$ itself are compared. During the call modules are in evaluation mode; torch's generators are put
    back after it.

    Args:
        what: A module whose call returns a distribution, a distribution, or a model with `encoder`, `decoder`, `prior`.
        x: Inputs, of shape `(batch, *event)`. The first 4 are used for a conditional module, the first 20 for a model.
        reference: The same log-density, computed in another way, which is compared at the same points: z -> log p(z),
            or x -> log p(x) of a model, exact or an estimate.
        draws: Draws for each comparison. More see smaller mistakes.
        seed: Seed of all draws. Another one repeats the check independently.

    Returns:
        A `Report`, which is true if no finding failed.

    Raises:
        ValueError: If `what` is something else, x is missing or not a tensor of events, or `draws` < 200.

    >>> from torch.distributions import MultivariateNormal
    >>> report = check(MultivariateNormal(torch.zeros(2), torch.eye(2)))
    >>> report.passed, report["normalisation"].expected
    (True, 1.0)
    """
    if draws < 200:
        raise ValueError(f"draws is {draws}: at least 200 are needed for a standard error")
    if x is not None:
        _check_inputs(x)
    module = what if isinstance(what, nn.Module) else None
    if x is not None and module is not None:
        x = x.to(next(module.parameters(), x))
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    mode = nullcontext() if module is None else eval_mode(module)
    with keep_generators(device), torch.inference_mode(False), torch.enable_grad(), mode:
        torch.manual_seed(seed)
        if all(hasattr(what, part) for part in ("encoder", "decoder", "prior")):
            if x is None:
                raise ValueError("a model is checked with data: call check(model, x)")
            if isinstance(what, ConditionalVAE):
                raise ValueError("a ConditionalVAE is checked given one y: call check(model(y), x)")
            return Report(check_model(what, x[:20], reference, draws))
        inputs = () if x is None else (x[:4],)
        return Report(tuple(check_distribution(_maker(what, inputs), module, inputs, reference, draws)))


def _check_inputs(x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.dim() < 1 or len(x) < 1:
        shape = f"of shape {tuple(x.shape)}" if isinstance(x, Tensor) else a_type(x)
        raise ValueError(f"x is {shape}: give a tensor of shape (batch, *event) with at least one event")
    check_dtype(x)


def _maker(what: Any, inputs: tuple[Tensor, ...]) -> Callable[..., Distribution]:
    """Inputs -> the distribution to check."""
    forward = isinstance(what, nn.Module) and type(what).forward is not nn.Module.forward
    maker = forward and not hasattr(what, "event_shape")  # which may have a `log_prob` for convenience
    if hasattr(what, "log_prob") and hasattr(what, "sample") and not maker:
        if inputs:
            raise ValueError(f"{a_type(what)} is a distribution and takes no x: call check(distribution)")
        return lambda: what
    if not callable(what):
        raise ValueError(f"{a_type(what)} cannot be checked: give a distribution, a module or a model")
    return what
