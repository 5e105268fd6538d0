r"""The parts of the ELBO (Hoffman & Johnson 2016, "ELBO surgery").

With the aggregated posterior $q(z) = \frac1N \sum_n q(z|x_n)$, the divergence of the ELBO has two parts, the mutual
information of an example's number and its code, and the divergence of q(z) from the prior:

$$\frac1N \sum_n KL(q(z|x_n) \,\|\, p(z)) = I(n; z) + KL(q(z) \,\|\, p(z)), \qquad 0 \le I \le \log N$$
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaepriors.agreement import check_dtype
from vaepriors.conditional import AnyVAE, batches
from vaepriors.distributions import DiagonalNormal, NormalMixture, check_support, outside
from vaepriors.vae import eval_mode

__all__ = ["Surgery", "aggregated_log_prob", "elbo_surgery"]


class Surgery(NamedTuple):
    """The parts of the ELBO of a data set, in nats, with the standard errors of the last two over the draws.

    `-elbo = distortion + rate`, and `rate = mutual_information + marginal_kl` on the same draws.
    """

    distortion: float  # - E[log p(x|z)]
    rate: float  # E[log q(z|x) - log p(z)]
    mutual_information: float  # I(n; z), of an example's number and its code
    marginal_kl: float  # KL(q(z) || p(z))
    log_n: float  # the upper limit of I
    mutual_information_se: float
    marginal_kl_se: float
    draws: int = 0  # examples that z is drawn for, once each

    @property
    def limited_by_n(self) -> bool:
        """Whether I is within 3 nats of log N. Then the marginal KL would be smaller with more examples.

        It is at least the rate less log N, whatever the prior. With standard normal aggregated posterior and prior, a
        true KL of 0, the estimate is 0.1 to 0.3 nats at this threshold, and below 0.1 two nats further away.
        """
        return self.log_n - self.mutual_information < 3


@torch.no_grad()
def elbo_surgery(
    model: AnyVAE,
    x: Tensor,
    draws: int = 10_000,
    *,
    block: int = 2**22,
    condition: Tensor | None = None,
    groups: Tensor | None = None,
) -> Surgery:
    r"""Split the ELBO of N examples (see above), with the sum over all N in the aggregated posterior.

    With examples $n_s$ drawn without replacement and $z_s \sim q(z|x_{n_s})$,

    $$\log q(z_s) = \log \frac1N \sum_m q(z_s|x_m), \qquad
      I \approx \text{mean} \log \frac{q(z_s|x_{n_s})}{q(z_s)}, \qquad
      KL(q \| p) \approx \text{mean} \log \frac{q(z_s)}{p(z_s)}$$

    which is unbiased for these N examples; sums over a batch instead of all N are not. The standard errors are those of
    independent examples, so they are too large if most of the N are drawn. Both parts depend on N: as
    $I \le \log N$, the marginal KL is at least the rate minus log N. It is what a better prior could gain only if I is
    well below log N (see `Surgery.limited_by_n`), so give many examples, such as the training set. If the density of
    the prior is an estimate (`VHP`), rate and marginal KL are upper bounds on average.

    One level costs a matrix product. For two levels q(z1|x_m, z2) must be computed for every pair of a draw and an
    example: give some hundred draws, or fewer examples.

    Args:
        model: The model.
        x: The N examples, of shape `(N, *event)`; of a data set, `data.fixed_train().x`, in which probabilities are
            pixels.
        draws: Number of $z_s$; at most N.
        block: Numbers in memory at a time.
        condition: The y of each x, for a `ConditionalVAE`.
        groups: The class of each x, whole numbers of shape `(N,)`. The parts are then those given the class: the
            aggregated posterior of an example is that of its class, and log N the mean of its logarithms.

    Raises:
        ValueError: If there are fewer than two draws or examples, or x is not a tensor or has values outside of the
            support of p(x|z).
    """
    check_dtype(x)
    x, draws = x.to(next(model.parameters(), x)), min(draws, len(x))
    if draws < 2:
        raise ValueError(f"{draws} draws of {len(x)} examples: at least 2 are needed")
    condition, groups = (None if each is None else each.to(x.device) for each in (condition, groups))
    with eval_mode(model):
        rows = torch.randperm(len(x), device=x.device)[:draws]
        chosen = x[rows], None if condition is None else condition[rows], 1000
        posteriors = [at.encoder(some) for at, some in batches(model, *chosen)]
        drawn, parts = [q.sample() for q in posteriors], []  # before a prior draws: the same for all with this encoder
        for (at, some), q, z in zip(batches(model.hold_prior(), *chosen), posteriors, drawn, strict=True):
            p = at.decoder(z)
            check_support(p, some, outside(p, some))
            parts.append((z, p.log_prob(some), q.log_prob(z), at.prior().log_prob(z)))
        z, log_likelihood, own, log_p = map(torch.cat, zip(*parts, strict=True))
        log_likelihood, own, log_p = log_likelihood.double(), own.double(), log_p.double()
        log_q, log_n = _aggregated_by_group(model, x, condition, groups, rows, z, block)
    information, marginal = own - log_q, log_q - log_p
    return Surgery(
        distortion=-log_likelihood.mean().item(),
        rate=(own - log_p).mean().item(),
        mutual_information=information.mean().item(),
        marginal_kl=marginal.mean().item(),
        log_n=log_n,
        mutual_information_se=information.std().item() / math.sqrt(draws),
        marginal_kl_se=marginal.std().item() / math.sqrt(draws),
        draws=draws,
    )


def _aggregated_by_group(
    model: AnyVAE, x: Tensor, y: Tensor | None, groups: Tensor | None, rows: Tensor, z: Tensor, block: int
) -> tuple[Tensor, float]:
    """log q(z) of draws z of the examples `rows`, each under the aggregated posterior of its group, and mean log N."""
    if groups is None:
        return aggregated_log_prob(model, x, z, y, block=block), math.log(len(x))
    log_q, log_n = z.new_zeros(len(z), dtype=torch.float64), 0.0
    for group in groups.unique():
        members, drawn = groups == group, groups[rows] == group
        condition = None if y is None else y[members]
        log_q[drawn] = aggregated_log_prob(model, x[members], z[drawn], condition, block=block)
        log_n += math.log(int(members.sum())) * int(members.sum()) / len(x)
    return log_q, log_n


def aggregated_log_prob(
    model: AnyVAE, x: Tensor, z: Tensor, condition: Tensor | None = None, *, block: int = 2**22
) -> Tensor:
    """log q(z) of draws z, shape `(S, latent)`, under the aggregated posterior of all x: shape `(S,)`, in float64.

    Args:
        model: The model.
        x: Examples, of shape `(N, *event)`.
        z: Draws.
        condition: The y of each x, for a `ConditionalVAE`.
        block: Numbers in memory at a time.
    """
    posteriors = [at.encoder(some) for at, some in batches(model, x, condition, 1000)]
    normals = [q for q in posteriors if isinstance(q, DiagonalNormal)]
    if len(normals) == len(posteriors):
        mixture = NormalMixture(torch.cat([q.loc for q in normals]).double(), torch.cat([q.scale for q in normals]))
        return torch.cat([mixture.log_prob(zs.double()) for zs in z.split(max(1, block // len(x)))])
    total = torch.full((len(z),), -math.inf, dtype=torch.float64, device=z.device)
    for q, some in zip(posteriors, x.split(1000), strict=True):
        each = max(1, block // (len(some) * 1000))  # features of a pair, some hundred numbers
        pairs = [q.log_prob(zs[:, None].expand(-1, len(some), -1)).double().logsumexp(1) for zs in z.split(each)]
        total = torch.logaddexp(total, torch.cat(pairs))
    return total - math.log(len(x))
