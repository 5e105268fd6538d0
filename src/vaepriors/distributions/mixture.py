"""Mixtures of normal distributions over vectors."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, constraints

from vaepriors.distributions.shaped import Shape, ShapedDistribution

__all__ = ["NormalMixture"]


class NormalMixture(ShapedDistribution):
    r"""Mixture of normal distributions with diagonal covariance matrices, over vectors.

    Expanding the square turns the K exponents into one matrix product with inner size 2D, so that one value needs
    memory K instead of K x D:

    $$\log w_k N(z; \mu_k, \sigma_k) = c_k + \langle z, \mu_k / \sigma_k^2 \rangle
      - \tfrac12 \langle z^2, 1 / \sigma_k^2 \rangle$$

    The terms cancel: in single precision the error is about $2^{-24} \sum_d z_d^2 / \sigma_d^2$, tenths of a nat
    for small variances. This product and its inputs are therefore in float64 for any dtype of z (autocast does not
    change float64). The result is as exact as the dtype of z allows.

    Args:
        loc: Means $\mu_k$, of shape `(K, D)`.
        scale: Standard deviations $\sigma_k > 0$, of shape `(K, D)`.
        logits: Log-weights up to a constant, of shape `(K,)`, or `(*batch, K)` for other weights at each place of a
            batch. A component whose log-weight is -inf is left out. Equal weights by default.

    >>> mixture = NormalMixture(torch.tensor([[-3.0], [3.0]]), torch.ones(2, 1))
    >>> round(mixture.log_prob(torch.tensor([3.0])).exp().item(), 4)  # half of N(0; 0, 1)
    0.1995
    """

    support = constraints.real_vector
    block = 2**25  # numbers in memory at a time, in densities under many components without gradients

    def __init__(self, loc: Tensor, scale: Tensor, logits: Tensor | None = None) -> None:
        self.loc, self.scale = loc, scale
        self.logits = loc.new_zeros(loc.shape[0]) if logits is None else logits
        log_weights = self.logits.double().log_softmax(-1)
        self._log_weights = log_weights if log_weights.dim() > 1 else None  # a batch of them is no part of the product
        precision = scale.double().pow(-2)
        linear = loc.double() * precision
        constant = (
            (log_weights if self._log_weights is None else 0.0)
            + 0.5 * precision.log().sum(-1)
            - 0.5 * (linear * loc).sum(-1)
            - 0.5 * math.log(2 * math.pi) * loc.shape[-1]
        )
        self._weights = torch.cat([linear, -0.5 * precision, constant[:, None]], -1)  # (K, 2D + 1)
        super().__init__(self.logits.shape[:-1], loc.shape[-1:])

    @property
    def mean(self) -> Tensor:
        return (self.logits.softmax(-1) @ self.loc).expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        weights = self.logits.softmax(-1)
        spread = self.scale.square() + (self.loc - (weights @ self.loc)[..., None, :]).square()
        return (weights[..., None, :] @ spread).squeeze(-2).expand(self._extended_shape())

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "z")
        z = value.double()
        one = z.new_ones(()).expand(*z.shape[:-1], 1)  # a bias would first be copied to every row of the result
        features = torch.cat([z, z * z, one], -1)

        def joint(k: slice) -> Tensor:  # (..., K): log w_k N_k(z)
            log_joint = F.linear(features, self._weights[k])
            return (log_joint if self._log_weights is None else log_joint + self._log_weights[..., k]).to(value.dtype)

        return self._over_batch(self._sum(joint, -1, features[..., 0].numel()))

    def marginal_log_prob(self, value: Tensor) -> Tensor:
        log_weights = self.logits.log_softmax(-1)

        def joint(k: slice) -> Tensor:  # (..., K, D)
            each = Normal(self.loc[k], self.scale[k], validate_args=False).log_prob(value[..., None, :])
            return each + log_weights[..., k, None]

        return self._sum(joint, -2, value.numel())

    def _sum(self, joint: Callable[[slice], Tensor], dim: int, size: int) -> Tensor:
        """Log of the sum over components, of `size` numbers each; without gradients, in blocks."""
        number = len(self.loc)
        block = number if torch.is_grad_enabled() else max(1, self.block // max(1, size))
        if block >= number:
            return joint(slice(None)).logsumexp(dim)
        starts = range(0, number, block)
        return torch.stack([joint(slice(k, k + block)).logsumexp(dim) for k in starts]).logsumexp(0)

    def rsample_and_score(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        r"""z, with gradients in the mean and scale of its component, and $\log w_k$ of that component.

        The choice of k has no path. Its gradient in the weights is that of $\log w_k$ times what is averaged over z.
        """
        k = self._choose(torch.Size(sample_shape))
        loc, log_weights = self.loc[k], self.logits.log_softmax(-1)
        if self._log_weights is None:
            log_weight = log_weights[k]
        else:
            log_weight = log_weights.expand(*k.shape, -1).gather(-1, k[..., None])[..., 0]
        return loc + self.scale[k] * torch.randn_like(loc), log_weight

    @torch.no_grad()
    def _choose(self, sample_shape: torch.Size) -> Tensor:
        """The numbers of components, drawn by their weights: shape `(*sample_shape, *batch)`."""
        shape, weights = sample_shape + self.batch_shape, self.logits.softmax(-1)
        if not shape.numel():  # which torch.multinomial refuses
            return torch.zeros(shape, dtype=torch.int64, device=weights.device)
        if self._log_weights is None:
            return torch.multinomial(weights, shape.numel(), replacement=True).view(shape)
        weights = weights.expand(*self.batch_shape, -1).flatten(0, -2)
        return torch.multinomial(weights, sample_shape.numel(), replacement=True).T.reshape(shape)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw a component by its weight, then z from it: shape `(*sample_shape, *batch, D)`."""
        return self.rsample_and_score(sample_shape)[0]
