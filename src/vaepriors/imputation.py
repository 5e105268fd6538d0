r"""Missing cells of a row, from the model: their distribution given the observed ones.

With draws $z_k \sim q(z|x_o)$ and normalised importance weights,

$$\tilde w_k \propto p(x_o|z_k)\, p(z_k) / q(z_k|x_o), \qquad
  p(x_m|x_o) \approx \sum_k \tilde w_k\, p(x_m|z_k),$$

which is exact for infinitely many draws (Mattei & Frellsen 2019, MIWAE). Its mean is a single imputation. Multiple ones
draw k by the weights, and then $x_m$ from $p(x_m|z_k)$. A conditional model has y throughout: $p(x_m|x_o, y)$.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaepriors.agreement import check_dtype
from vaepriors.conditional import AnyVAE, check_condition, given
from vaepriors.distributions import rsample_and_log_prob
from vaepriors.likelihood import check_sizes
from vaepriors.limits import at_least_one
from vaepriors.vae import VAE, at_device_of, eval_mode
from vaepriors.words import a_type

__all__ = ["Imputed", "impute"]


class Imputed(NamedTuple):
    """Rows without missing cells.

    Attributes:
        x: Single imputations, of shape `(N, D)`: means of numbers, rounded for counts; the most probable bits and
            categories.
        draws: Multiple imputations, of shape `(draws, N, D)`.
        effective_samples: Of the weights of each row that misses cells, of shape `(M,)`.
    """

    x: Tensor
    draws: Tensor
    effective_samples: Tensor


@torch.no_grad()
def impute(
    model: AnyVAE,
    x: Tensor,
    samples: int = 1000,
    draws: int = 0,
    *,
    chunk: int | None = None,
    condition: Tensor | None = None,
) -> Imputed:
    """Fill the missing cells of rows; the observed ones stay as they are.

    Args:
        model: A model whose decoder returns a `Mixed`.
        x: Rows, of shape `(N, D)`, with NaN for missing cells, on any device; what is returned is on that of the model.
        samples: Draws of z for each row.
        draws: Multiple imputations of each row.
        chunk: Pairs of a row and a draw that are decoded at a time.
        condition: The y of each row, of shape `(N, c)`, for a `ConditionalVAE`.

    Raises:
        ValueError: If `samples` is less than 1, `draws` is negative, conditions are missing or not those of the model,
            x is no table of real numbers, or the decoder returns another distribution.
    """
    at_least_one(samples=samples)
    check_condition(model, condition, len(x))
    if draws < 0:
        raise ValueError(f"draws is {draws}: it cannot be negative")
    check_dtype(x)
    if x.dim() != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}: only rows of a table, of shape (N, D), have missing cells")
    x = at_device_of(model, x)
    incomplete = x.isnan().any(1).nonzero().flatten()
    filled, drawn, effective = x.clone(), x.expand(draws, *x.shape).clone(), [x.new_zeros(0)]
    y = None if condition is None else condition.to(x)
    size = max(1, check_sizes(model, x, samples, chunk) // samples)
    with eval_mode(model):
        model = model.hold_prior()
        for rows in incomplete.split(size):
            at = given(model, None if y is None else y[rows])
            filled[rows], drawn[:, rows], ess = _impute(at, x[rows], samples, draws)
            effective.append(ess)
    return Imputed(filled, drawn, torch.cat(effective))


def _impute(model: VAE, x: Tensor, samples: int, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    z, log_q = rsample_and_log_prob(model.encoder(x), (samples,))
    terms = model.weigh(x, z, log_q)
    p: Any = terms.likelihood
    if not hasattr(p, "expected"):
        raise ValueError(f"the decoder returns {a_type(p)}: only the likelihood mixed takes missing cells")
    p = p.given(x)
    weight = terms.log_weight.double().softmax(0).to(x)
    means = [(weight.view(*weight.shape, *[1] * (each.dim() - 2)) * each).sum(0) for each in p.expected()]
    chosen = torch.multinomial(weight.T, draws, replacement=True).T if draws else weight.new_zeros(0, len(x)).long()
    of_chosen: Any = model.decoder(z[chosen, torch.arange(len(x), device=x.device)])
    imputed = of_chosen.given(x).sample()
    missing, single = x.isnan(), p.whole(p.point(means))
    return torch.where(missing, single, x), torch.where(missing, imputed, x), 1 / weight.square().sum(0)
