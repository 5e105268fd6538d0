"""Whether log p(x) is the logarithm of a probability or of a density: bits per dimension need the former."""

import torch

from vaepriors.conditional import AnyVAE, batches
from vaepriors.data import LIKELIHOODS, Dataset
from vaepriors.distributions import outside, support_of
from vaepriors.numerics import keep_generators
from vaepriors.vae import eval_mode

__all__ = ["is_discrete"]


@torch.no_grad()
def is_discrete(model: AnyVAE, dataset: Dataset) -> bool:
    """Whether p(x|z) is a probability.

    The support of a custom decoder's distribution tells; where it does not, the likelihood of the data set. Gray levels
    have an interval as support, but not the whole line.
    """
    named = LIKELIHOODS[dataset.likelihood].discrete
    if dataset.columns:
        return named
    at, one = next(batches(model, dataset.test[:1], dataset.conditions.get("test"), 1))
    with eval_mode(model), keep_generators(one):
        p = at.decoder(at.encoder(one).sample())
    support = support_of(p)
    if support is None:
        return named
    if support.is_discrete or dataset.likelihood != "logistic256":
        return support.is_discrete
    return bool(outside(p, torch.full_like(one, 10)).all())
