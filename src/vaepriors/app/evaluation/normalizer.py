"""The estimated normaliser of a prior, and its share in the error of the likelihood."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.conditional import AnyVAE, given
from vaepriors.likelihood import Method, check_sizes, weigh
from vaepriors.numerics import seed_of
from vaepriors.vae import eval_mode

__all__ = ["hold_seeded_prior", "measure_normalizer"]


def hold_seeded_prior(model: AnyVAE, seed: int) -> AnyVAE:
    """The model with the prior of an evaluation: an estimate that it needs follows from the seed, also after a stop."""
    torch.manual_seed(seed_of(seed, "prior"))
    return model.hold_prior()


class _Shifted(nn.Module):
    """A prior whose estimated constant is moved by its standard error."""

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, *y: Tensor) -> Distribution:
        return self.prior(*y).shifted(1)


@torch.no_grad()
def measure_normalizer(
    model: AnyVAE,
    x: Tensor,
    result: dict[str, Any],
    method: Method,
    chunk: int | None,
    condition: Tensor | None = None,
) -> dict[str, Any]:
    """The prior's estimated normaliser, if it has one, and the error of the likelihood with its share.

    The normaliser is moved by its standard error, and log p(x) of at most 100 examples changes by its share on average.
    This share and that of the examples are independent.

    Args:
        result: The evaluation, with `seed` and `nll_se`.
        method: How log p(x) is estimated.
        chunk, condition: As in `estimate`.

    Returns:
        `normalizer`, `normalizer_se` and a new `nll_se`; nothing for a prior without an estimated normaliser.
    """
    with eval_mode(model):
        known, means = hold_seeded_prior(model, result["seed"]), []
        x, y = x[:100], None if condition is None else condition[:100]
        normalizer = getattr(given(known, None if y is None else y[0].to(x)).prior(), "normalizer", None)
        if normalizer is None:
            return {}
        chunk = check_sizes(model, x, method.draws, chunk)
        for each in (known, type(known)(known.encoder, known.decoder, _Shifted(known.prior))):
            torch.manual_seed(seed_of(result["seed"], "normalizer"))
            estimates = weigh(method, each, x, y, chunk, lambda images: None)
            means.append(estimates.log_likelihood.mean().item())
    share, spread = means[1] - means[0], result["nll_se"]
    return {
        "normalizer": normalizer.value.item(),
        "normalizer_se": normalizer.se.item(),
        "nll_se": None if spread is None else math.hypot(spread, share),
    }
