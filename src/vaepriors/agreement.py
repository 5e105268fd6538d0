"""Whether encoder, decoder and prior fit together: anything else would broadcast, or round, to a wrong density."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.words import a_type

__all__ = [
    "check_distribution",
    "check_dtype",
    "check_event",
    "check_log_prob",
    "check_module",
    "check_posterior",
    "check_prior",
    "leading",
]


def check_dtype(x: Tensor) -> None:
    """Refuse data in which a likelihood cannot be computed.

    Raises:
        ValueError: If x is no tensor, or not float32 or float64.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"x is {a_type(x)}: give a tensor, such as data.test or torch.from_numpy(array)")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x is {x.dtype}: convert it with x.float(), or with x.double() for a model in float64")


def check_module(name: str, part: nn.Module) -> nn.Module:
    """Refuse a part whose parameters nobody would train, move or save."""
    if not isinstance(part, nn.Module):
        raise ValueError(f"{name} is {a_type(part)}: give an nn.Module whose call returns a distribution")
    return part


def check_distribution(part: str, value: Distribution) -> Distribution:
    """Refuse what is not a distribution, such as the mean of one."""
    if not hasattr(value, "log_prob"):
        raise ValueError(
            f"the {part} returned {a_type(value)}: return a torch.distributions.Distribution, such as "
            "Independent(Normal(mean, scale), 1)"
        )
    return value


def check_posterior(q: Distribution) -> Distribution:
    """Refuse a q(z|x) that is not over vectors or has no gradient."""
    check_distribution("encoder", q)
    name, event_shape = a_type(q), getattr(q, "event_shape", (1,))
    if len(event_shape) != 1:
        remedy = "flatten z, and reshape it in the decoder" if event_shape else "wrap it as Independent(q, 1)"
        raise ValueError(f"the encoder returned {name} of event shape {tuple(event_shape)}, not over vectors: {remedy}")
    if not getattr(q, "has_rsample", True):
        raise ValueError(f"the encoder returned {name}, which has no rsample: draws of z need gradients")
    return q


def check_prior(p: Distribution, z: Tensor) -> Distribution:
    """Refuse a p(z) of another event shape than z."""
    event_shape = getattr(check_distribution("prior", p), "event_shape", z.shape[-1:])
    if event_shape != z.shape[-1:]:
        remedy = "give both one size" if event_shape else "wrap it as Independent(p, 1)"
        raise ValueError(
            f"the prior has event shape {tuple(event_shape)}, but z of the encoder is a vector of {z.shape[-1]}: "
            f"{remedy}"
        )
    return p


def check_log_prob(part: str, log_prob: Tensor, shape: torch.Size) -> Tensor:
    """Refuse log-densities of another shape than that of log q(z|x), and those that autocast rounds."""
    if log_prob.shape != shape:
        raise ValueError(
            f"the {part} returned log-densities of shape {tuple(log_prob.shape)}, expected {tuple(shape)}: one number "
            "for each z"
        )
    if log_prob.dtype in (torch.bfloat16, torch.float16):
        raise ValueError(
            f"the {part} returned log-densities in {log_prob.dtype}, too coarse for a likelihood: under autocast, call "
            ".float() on what its network returns, before the distribution is made of it"
        )
    return log_prob


def check_event(x: Tensor, batch: torch.Size, event: torch.Size) -> None:
    """Refuse data of another shape than that of batch and event."""
    if x.shape != batch + event:
        reshape = f"reshape x to (..., {', '.join(map(str, event))}), or change the networks"
        wrap = f"wrap the likelihood as Independent(p, {max(1, x.dim() - len(batch))})"
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but the encoder returns batch shape {tuple(batch)} and the decoder event "
            f"shape {tuple(event)}: {reshape if event else wrap}"
        )


def leading(z: Tensor, what: str) -> str:
    """The error of a decoder that takes only one leading dimension."""
    return (
        f"the decoder must accept any leading dimensions of z, and with z of shape {tuple(z.shape)} it {what}: "
        "reshape with z.shape[:-1] instead of len(z) or -1, also around layers such as BatchNorm1d"
    )
