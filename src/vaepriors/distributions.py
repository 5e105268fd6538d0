r"""Distributions whose sampler and density are one object.

Nine distributions. Log-densities are in nats and include all constants.

* `DiagonalNormal`: $N(z; \mu, \mathrm{diag}\,\sigma^2)$, one vector an event;
* `NormalMixture`: $\sum_k w_k N(z; \mu_k, \mathrm{diag}\,\sigma_k^2)$;
* `Chain`: $p(a)\, p(b \mid a)$ over the concatenation $[a, b]$;
* `IndependentBernoulli`: bits, each with its own logit;
* `DiscretizedLogistic`: the masses of a logistic density in equal bins of $[0, 1]$;
* `Codes`: torch's `Categorical`, whose values are codes 0, 1, ..., as real numbers;
* `Multinomial`: counts, given their total;
* `Student`: heavy tails around a location;
* `Autoregressive`: $\prod_i p(x_i \mid x_1, \dots, x_{i-1})$ over the pixels of an image.

They do not check the values of their parameters: a check reads the device, and a training step must not.

`at_noise`, `auxiliary`, `completed`, `factors`, `marginal_log_prob`, `noise_of`, `point_estimate`, `residual`,
`rsample_and_log_prob` and `support_of` ask any distribution, also one of torch, for what not every distribution has.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from copy import copy
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal, StudentT, constraints

__all__ = [
    "Autoregressive",
    "Auxiliary",
    "Chain",
    "Codes",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "IndependentBernoulli",
    "Multinomial",
    "NormalMixture",
    "Normalizer",
    "Student",
    "at_noise",
    "auxiliary",
    "completed",
    "factors",
    "marginal_log_prob",
    "naive_pixel_draws",
    "noise_of",
    "point_estimate",
    "residual",
    "rsample_and_log_prob",
    "sampling_progress",
    "support_of",
]

Shape = torch.Size | list[int] | tuple[int, ...]


def rsample_and_log_prob(distribution: Distribution, shape: Shape = ()) -> tuple[Tensor, Tensor]:
    """Draw z with gradients, and log q(z) of the same draw.

    If the distribution has a method of this name (ours and those of zuko do), it is called, as it shares the work of
    the two. Otherwise `rsample` and `log_prob` are called in turn.

    Args:
        distribution: q, with batch shape `batch`.
        shape: Sample shape, put first.

    Returns:
        z of shape `(*shape, *batch, *event)` and log q(z) of shape `(*shape, *batch)`, in nats.

    >>> from torch.distributions import Exponential
    >>> z, log_q = rsample_and_log_prob(Exponential(torch.ones(3)), (2,))
    >>> torch.equal(log_q, -z)
    True
    """
    joint = getattr(distribution, "rsample_and_log_prob", None)
    if joint is not None:
        return joint(shape)
    z = distribution.rsample(torch.Size(shape))
    return z, distribution.log_prob(z)


def point_estimate(distribution: Distribution) -> Tensor:
    """The mean of a distribution, or a draw if the mean has no closed form.

    >>> point_estimate(DiagonalNormal(torch.ones(2), torch.ones(2)))
    tensor([1., 1.])
    """
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample()


def residual(distribution: Distribution, value: Tensor) -> Tensor:
    """The distance of values from the mean, in the units in which the distribution compares its columns.

    They are those of the values, unless the distribution has a method of this name.

    >>> residual(DiagonalNormal(torch.ones(2), torch.ones(2)), torch.zeros(2))
    tensor([-1., -1.])
    """
    method = getattr(distribution, "residual", None)
    return value - distribution.mean if method is None else method(value)


def completed(distribution: Distribution, value: Tensor) -> Tensor:
    """Values with a number of the support in place of missing cells, if the distribution takes them.

    >>> completed(DiagonalNormal(torch.ones(2), torch.ones(2)), torch.zeros(2))
    tensor([0., 0.])
    """
    method = getattr(distribution, "completed", None)
    return value if method is None else method(value)


def support_of(distribution: Distribution) -> constraints.Constraint | None:
    """The support of a distribution, or None if it does not define one.

    >>> support_of(IndependentBernoulli(torch.zeros(4), 1))
    IndependentConstraint(Boolean(), 1)
    """
    try:
        return distribution.support
    except (NotImplementedError, AttributeError):
        return None


def factors(distribution: Distribution, z: Tensor) -> dict[str, tuple[Distribution, Tensor]]:
    """The conditional distributions whose product is p(z), by level, each with its part of z.

    Args:
        distribution: p.
        z: Values, of shape `(*sample, *batch, *event)`.

    Returns:
        p(z2) and p(z1|z2) of a `Chain`, as `z2` and `z1`. Otherwise p itself, as `z`.

    >>> list(factors(DiagonalNormal(torch.zeros(2), torch.ones(2)), torch.zeros(2)))
    ['z']
    """
    method = getattr(distribution, "factors", None)
    return {"z": (distribution, z)} if method is None else method(z)


def marginal_log_prob(distribution: Distribution, z: Tensor) -> Tensor | None:
    r"""Marginal log-density $\log p(z_j)$ of each coordinate.

    Args:
        distribution: p, over vectors.
        z: Values, of shape `(*sample, *batch, D)`.

    Returns:
        Shape `(*sample, *batch, D)`, in nats. None if the marginals are unknown: they are known for `DiagonalNormal`,
        `NormalMixture` and torch's `Independent`.

    >>> from torch.distributions import Independent, Normal
    >>> marginal_log_prob(Independent(Normal(torch.zeros(3), 1.0), 1), torch.zeros(5, 3)).shape
    torch.Size([5, 3])
    """
    method = getattr(distribution, "marginal_log_prob", None)
    if method is not None:
        return method(z)
    if isinstance(distribution, Independent) and len(distribution.event_shape) == 1:  # torch's: it has no such method
        return distribution.base_dist.log_prob(z)
    return None


class Normalizer(NamedTuple):
    """An estimated constant of a density, with its standard error.

    A distribution whose `log_prob` has such a constant has it as `normalizer`, and a method `shifted(errors)`: the same
    distribution with the constant moved by this number of standard errors.
    """

    value: Tensor
    se: Tensor


class Auxiliary(NamedTuple):
    """A distribution p(z) as the marginal of a joint one with u, whose density is known where that of p(z) is not."""

    joint: Distribution  # p(u, z), over [u, z]
    posterior: Callable[[Tensor], Distribution]  # z -> q(u|z)
    size: int  # of u


def auxiliary(distribution: Distribution) -> Auxiliary | None:
    """What a distribution p(z) with an estimated density is the marginal of; None for any other.

    >>> auxiliary(DiagonalNormal(torch.zeros(2), torch.ones(2))) is None
    True
    """
    method = getattr(distribution, "auxiliary", None)
    return None if method is None else method()


def at_noise(distribution: Distribution, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    r"""The value z to which a sampler maps noise $\epsilon$, and $\log |\partial z / \partial \epsilon|$.

    Args:
        distribution: q, a diagonal normal over vectors, for which $z = \mu + \sigma \epsilon$, or a `Chain` of such.
        epsilon: Values in place of draws of N(0, I), of the shape of z.

    Returns:
        z, and the logarithm of the determinant, of the shape of `log_prob`.

    Raises:
        ValueError: If the distribution has no such sampler.

    >>> at_noise(DiagonalNormal(torch.ones(1), torch.ones(1)), torch.tensor([0.5]))
    (tensor([1.5000]), tensor(0.))
    """
    method = getattr(_with_noise(distribution), "at_noise", None)
    return method(epsilon) if method is not None else _refuse_noise(distribution)


def noise_of(distribution: Distribution, z: Tensor) -> tuple[Tensor, Tensor]:
    """The noise that a sampler maps to z, and the logarithm of the determinant there: the inverse of `at_noise`.

    Raises:
        ValueError: As in `at_noise`.
    """
    method = getattr(_with_noise(distribution), "noise_of", None)
    return method(z) if method is not None else _refuse_noise(distribution)


def _with_noise(distribution: Distribution) -> Distribution:
    """The same distribution as one of ours, where torch's has no such methods."""
    if not isinstance(distribution, Independent) or len(distribution.event_shape) != 1:
        return distribution
    each = distribution.base_dist
    return DiagonalNormal(each.loc, each.scale) if isinstance(each, Normal) else distribution


def _refuse_noise(distribution: Distribution) -> Any:
    raise ValueError(
        f"q(z|x) is a {type(distribution).__name__}: an encoder that returns diagonal normals over vectors, or a Chain "
        "of them, is needed here"
    )


class ShapedDistribution(Distribution):
    """What the distributions here share: `repr`, `expand`, and the errors for moments without a closed form."""

    arg_constraints = {}

    def __init__(self, batch_shape: Shape, event_shape: Shape) -> None:
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)})"

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError(f"the mean of {type(self).__name__} has no closed form: average draws")

    @property
    def variance(self) -> Tensor:
        raise NotImplementedError(f"the variance of {type(self).__name__} has no closed form: estimate it from draws")

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "ShapedDistribution":
        """The same distribution at each place of a batch, if no parameter has the batch's shape."""
        expanded = copy(self)
        ShapedDistribution.__init__(expanded, batch_shape, self.event_shape)
        return expanded

    def _check_event(self, value: Tensor, name: str) -> None:
        """Refuse another event shape: a size of 1 would broadcast to a wrong density."""
        if value.shape[max(value.dim() - len(self.event_shape), 0) :] != self.event_shape:
            expected = ", ".join(map(str, ("...", *self.event_shape)))
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected ({expected})")

    def _over_batch(self, log_prob: Tensor) -> Tensor:
        """Log-densities that do not depend on the place in the batch, of the shape that they have with it."""
        if not self.batch_shape:
            return log_prob
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))


class DiagonalNormal(ShapedDistribution):
    r"""Normal distribution with a diagonal covariance matrix, over vectors.

    $$\log N(z; \mu, \sigma) = -\sum_d \tfrac12 \epsilon_d^2 + \log \sigma_d + \tfrac12 \log 2\pi,
      \qquad \epsilon = (z - \mu) / \sigma$$

    Args:
        loc: Mean $\mu$, of shape `(*batch, D)`.
        scale: Standard deviation $\sigma > 0$, of a shape that broadcasts with it.

    >>> DiagonalNormal(torch.zeros(4, 2), torch.ones(2)).log_prob(torch.zeros(3, 4, 2)).shape
    torch.Size([3, 4])
    """

    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.independent(constraints.positive, 1)}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:])

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "DiagonalNormal":
        shape = (*batch_shape, *self.event_shape)
        return DiagonalNormal(self.loc.expand(shape), self.scale.expand(shape))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    @property
    def stddev(self) -> Tensor:
        return self.scale

    def _log_density(self, epsilon: Tensor) -> Tensor:
        constant = 0.5 * math.log(2 * math.pi) * self.event_shape[0]
        return -0.5 * epsilon.square().sum(-1) - self.scale.log().sum(-1) - constant

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "z")
        return self._log_density((value - self.loc) / self.scale)

    def marginal_log_prob(self, value: Tensor) -> Tensor:
        return Normal(self.loc, self.scale, validate_args=False).log_prob(value)

    def at_noise(self, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """loc + scale * epsilon, and the sum of log scale (see the function of the same name)."""
        return self.loc + self.scale * epsilon, self._log_scale(epsilon)

    def noise_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """(z - loc) / scale, and the sum of log scale (see the function of the same name)."""
        return (value - self.loc) / self.scale, self._log_scale(value)

    def _log_scale(self, value: Tensor) -> Tensor:
        return self.scale.log().sum(-1).expand(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))

    def rsample_and_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """z and log q(z), whose density is that of the noise (see the function of the same name)."""
        epsilon = torch.randn(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.loc + self.scale * epsilon, self._log_density(epsilon)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        return self.rsample_and_log_prob(sample_shape)[0]


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
        if self._log_weights is None:
            return torch.multinomial(weights, shape.numel(), replacement=True).view(shape)
        weights = weights.expand(*self.batch_shape, -1).flatten(0, -2)
        return torch.multinomial(weights, sample_shape.numel(), replacement=True).T.reshape(shape)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw a component by its weight, then z from it: shape `(*sample_shape, *batch, D)`."""
        return self.rsample_and_score(sample_shape)[0]


class Chain(ShapedDistribution):
    r"""Distribution of $[a, b]$, where b is drawn given a: $\log p(a, b) = \log p(a) + \log p(b \mid a)$.

    Args:
        first: p(a), over vectors.
        then: a -> p(b|a), over vectors; it may close over other inputs, such as features of x.
        sizes: The sizes of a and b.

    >>> first = DiagonalNormal(torch.zeros(3, 2), torch.ones(3, 2))
    >>> chain = Chain(first, lambda a: DiagonalNormal(a.sum(-1, keepdim=True), torch.ones(1)), sizes=(2, 1))
    >>> z, log_prob = chain.rsample_and_log_prob((5,))
    >>> z.shape, torch.allclose(log_prob, chain.log_prob(z), atol=1e-5)
    (torch.Size([5, 3, 3]), True)
    """

    support = constraints.real_vector

    def __init__(self, first: Distribution, then: Callable[[Tensor], Distribution], sizes: tuple[int, int]) -> None:
        self.first, self.then, self.sizes = first, then, sizes
        super().__init__(first.batch_shape, (sum(sizes),))

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "Chain":
        return Chain(self.first.expand(torch.Size(batch_shape)), self.then, self.sizes)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.first.has_rsample

    @property
    def normalizer(self) -> Normalizer | None:
        """The estimated constant of p(a), if it has one (see `Normalizer`)."""
        return getattr(self.first, "normalizer", None)

    def shifted(self, errors: float) -> "Chain":
        """The same with the estimated constant of p(a) moved by a number of standard errors."""
        first: Any = self.first
        return Chain(first.shifted(errors), self.then, self.sizes)

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError(
            "the mean of a Chain has no closed form: average draws, or take `first.mean` for the upper level"
        )

    def factors(self, value: Tensor) -> dict[str, tuple[Distribution, Tensor]]:
        """p(a) and p(b|a), as levels `z2` and `z1` (see the function of the same name)."""
        a, b = value.split(self.sizes, -1)
        return {"z2": (self.first, a), "z1": (self.then(a), b)}

    def auxiliary(self) -> Auxiliary | None:
        """The joint distribution of [u, a, b], if a has a u (see the function of the same name)."""
        of_a = auxiliary(self.first)
        if of_a is None:
            return None
        (a, b), u = self.sizes, of_a.size
        joint = Chain(of_a.joint, lambda ua: self.then(ua[..., u:]), (u + a, b))
        return Auxiliary(joint, lambda z: of_a.posterior(z[..., :a]), u)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "z")
        a, b = value.split(self.sizes, -1)
        return self.first.log_prob(a) + self.then(a).log_prob(b)

    def at_noise(self, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """[a, b], where b is at its noise given a (see the function of the same name)."""
        of_a, of_b = epsilon.split(self.sizes, -1)
        a, log_det_a = at_noise(self.first, of_a)
        b, log_det_b = at_noise(self.then(a), of_b)
        return torch.cat([a, b], -1), log_det_a + log_det_b

    def noise_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The noise of a, and that of b given a (see the function of the same name)."""
        a, b = value.split(self.sizes, -1)
        of_a, log_det_a = noise_of(self.first, a)
        of_b, log_det_b = noise_of(self.then(a), b)
        return torch.cat([of_a, of_b], -1), log_det_a + log_det_b

    def rsample_and_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """[a, b] and its log-density, with p(b|a) computed once (see the function of the same name)."""
        a, log_p_a = rsample_and_log_prob(self.first, sample_shape)
        b, log_p_b = rsample_and_log_prob(self.then(a))
        return torch.cat([a, b], -1), log_p_a + log_p_b

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        a = self.first.rsample(torch.Size(sample_shape))
        return torch.cat([a, self.then(a).rsample()], -1)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        a = self.first.sample(torch.Size(sample_shape))
        return torch.cat([a, self.then(a).sample()], -1)


class IndependentBernoulli(ShapedDistribution):
    r"""Independent bits, with logits $l$.

    $$\log P(x) = \sum_d x_d l_d - \log(1 + e^{l_d}), \qquad
      \frac{\partial \log P}{\partial l_d} = x_d - \sigma(l_d)$$

    The first term is one product, also if one x meets many logits, and the second does not depend on x. Formula and
    gradient also hold for any real x. For data that are probabilities, the result is a bound.

    Args:
        logits: $l$, of shape `(*batch, *event)`.
        event_dims: Number of dimensions of an event.

    >>> p = IndependentBernoulli(torch.zeros(4, 28, 28), event_dims=2)
    >>> p.batch_shape, round(p.log_prob(torch.ones(28, 28))[0].item() / math.log(2))
    (torch.Size([4]), -784)
    """

    arg_constraints = {"logits": constraints.real}

    def __init__(self, logits: Tensor, event_dims: int) -> None:
        self.logits = logits
        cut = logits.dim() - event_dims
        super().__init__(logits.shape[:cut], logits.shape[cut:])

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "IndependentBernoulli":
        return IndependentBernoulli(self.logits.expand(*batch_shape, *self.event_shape), len(self.event_shape))

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.boolean, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.logits.sigmoid()

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "x")
        logits = self.logits.reshape(*self.batch_shape, -1)
        x = value.reshape(*value.shape[: value.dim() - len(self.event_shape)], -1)
        with _without_autocast(logits.device):
            return _BernoulliLogProb.apply(logits, x)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        return (uniform < self.mean).to(self.logits.dtype)


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Disable autocast: log-densities are sums of hundreds of terms, too many for half precision."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


class _BernoulliLogProb(torch.autograd.Function):
    """The formula above over the last dimension, in few passes over the logits, and its gradient.

    log(1 + exp(l)) is max(l, 0) + log(1 + exp(-|l|)), whose logarithm errs by less than its sum does.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> Tensor:
        alike = logits.numel() == x.numel()
        linear = (logits * x).sum(-1) if alike else torch.einsum("...d,...d->...", logits, x)
        return linear - logits.clamp(min=0).sum(-1) - logits.abs().neg_().exp_().add_(1).log_().sum(-1)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[no-untyped-def]
        logits, x = ctx.saved_tensors
        of_logits, of_x = ctx.needs_input_grad
        g = gradient[..., None]
        return (
            ((x - logits.sigmoid()) * g).sum_to_size(logits.shape) if of_logits else None,
            (logits * g).sum_to_size(x.shape) if of_x else None,
        )


class DiscretizedLogistic(ShapedDistribution):
    r"""The masses of a logistic density in L equal bins of [0, 1]; the outer two include the tails.

    With $b = \lfloor L x \rfloor / L$ the bin's lower end, $\delta = 1 / (L s)$ its width in scales,
    $l = (b - \mu) / s$ and $u = l + \delta$,

    $$\log P(x) = \log\big(\sigma(u) - \sigma(l)\big) = \log \sigma(u) + \log \sigma(-l) + \log(1 - e^{-\delta}),$$

    which neither cancels nor underflows. The first bin has the mass $\sigma(u)$, the last one $\sigma(-l)$, so that
    the L masses sum to one. (The program of Tomczak & Welling 2018 leaves out the tails and adds 1e-7 inside
    the logarithm, so its masses do not sum to one.)

    Args:
        loc: $\mu$, of any shape. Each pixel is one event: use `torch.distributions.Independent` for an image.
        log_scale: $\log s$, of a shape that broadcasts with it.
        levels: L.

    Samples are the bins' centres, (level + 1/2) / L.

    >>> p = DiscretizedLogistic(torch.tensor(0.3), torch.tensor(-2.0))
    >>> masses = p.log_prob((torch.arange(256) + 0.5) / 256).exp()
    >>> round(masses.sum().item(), 5)
    1.0
    """

    arg_constraints = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.half_open_interval(0.0, 1.0)

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int = 256) -> None:
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        self.levels = levels
        super().__init__(self.loc.shape, ())

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "DiscretizedLogistic":
        loc, log_scale = (t.expand(torch.Size(batch_shape)) for t in (self.loc, self.log_scale))
        return DiscretizedLogistic(loc, log_scale, self.levels)

    @property
    def mean(self) -> Tensor:
        """E[x] = (1/2 + sum over t = 1 .. L-1 of P(level >= t)) / L."""
        inverse_scale = torch.exp(-self.log_scale)
        total = torch.full_like(self.loc, 0.5)
        for t in range(1, self.levels):  # a tensor of shape (L, ...) would take the memory of L images
            total = total + torch.sigmoid((self.loc - t / self.levels) * inverse_scale)
        return total / self.levels

    def log_prob(self, value: Tensor) -> Tensor:
        level = (value * self.levels).floor().clamp(0, self.levels - 1)
        inverse_scale = torch.exp(-self.log_scale)
        delta = inverse_scale / self.levels
        lower = (level / self.levels - self.loc) * inverse_scale
        log_below_upper = F.logsigmoid(lower + delta)
        log_above_lower = F.logsigmoid(-lower)
        inside = log_below_upper + log_above_lower + torch.log(-torch.expm1(-delta))
        tails = torch.where(level == 0, log_below_upper, log_above_lower)
        return torch.where((level == 0) | (level == self.levels - 1), tails, inside)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        x = self.loc + self.log_scale.exp() * torch.logit(uniform, eps=torch.finfo(uniform.dtype).tiny)
        return ((x * self.levels).floor().clamp(0, self.levels - 1) + 0.5) / self.levels


class Codes(Categorical):
    """Categories as codes 0, 1, ..., K - 1 in the dtype of the logits.

    The mean is that of the code. It is like the data where categories are in order, as grades are.

    >>> p = Codes(logits=torch.tensor([0.5, 0.0, 0.5]).log(), validate_args=False)
    >>> p.mean, p.sample().dtype
    (tensor(1.), torch.float32)
    """

    @property
    def mean(self) -> Tensor:
        return (self.probs * self._codes()).sum(-1)

    @property
    def variance(self) -> Tensor:
        return (self.probs * (self._codes() - self.mean[..., None]).square()).sum(-1)

    def _codes(self) -> Tensor:
        return torch.arange(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return super().sample(torch.Size(sample_shape)).to(self.logits.dtype)


class Multinomial(ShapedDistribution):
    r"""Counts given their total $n = \sum_d x_d$, each of them in a category d with the probability $p_d$.

    $$\log P(x \mid n) = \log n! + \sum_d (x_d \log p_d - \log x_d!), \qquad p = \mathrm{softmax}(l)$$

    The density takes each total from x itself, whatever it is. Draws, mean and variance have one total. (torch's class
    draws the n categories one by one, and holds them all.)

    Args:
        logits: $l$, of shape `(*batch, *event)`.
        event_dims: Number of dimensions of an event, all of which share the total.
        total: The total of draws.

    >>> p = Multinomial(torch.zeros(5, 3), event_dims=1, total=10)
    >>> p.log_prob(torch.tensor([1.0, 0.0, 1.0])).exp()[0], p.sample().sum(-1)
    (tensor(0.2222), tensor([10., 10., 10., 10., 10.]))
    """

    arg_constraints = {"logits": constraints.real}

    def __init__(self, logits: Tensor, event_dims: int, total: int) -> None:
        self.logits, self.total = logits, total
        cut = logits.dim() - event_dims
        super().__init__(logits.shape[:cut], logits.shape[cut:])

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "Multinomial":
        logits = self.logits.expand(*batch_shape, *self.event_shape)
        return Multinomial(logits, len(self.event_shape), self.total)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.nonnegative_integer, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.total * self._log_probs().exp().view(self.logits.shape)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean / self.total)

    def _log_probs(self) -> Tensor:
        return self.logits.reshape(*self.batch_shape, -1).log_softmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "x")
        x = value.reshape(*value.shape[: value.dim() - len(self.event_shape)], -1)
        ways = torch.lgamma(x.sum(-1) + 1) - torch.lgamma(x + 1).sum(-1)
        return ways + (x * self._log_probs()).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Each count given those before it is binomial, of what they left."""
        shape = self._extended_shape(torch.Size(sample_shape))
        log_p = self._log_probs()
        log_rest = log_p.flip(-1).logcumsumexp(-1).flip(-1)
        shares = (log_p - log_rest).exp().clamp(max=1).double().expand(*sample_shape, *log_p.shape)
        left, counts = torch.full_like(shares[..., 0], self.total), []
        for share in shares.unbind(-1):
            counts.append(torch.binomial(left, share))
            left = left - counts[-1]
        return torch.stack(counts, -1).view(shape).to(self.logits.dtype)


class Student(ShapedDistribution):
    r"""Student's distribution around a location, with one number of degrees of freedom for all coordinates.

    $$\log p(x) = -\frac{\nu + 1}{2} \log\Big(1 + \frac{y^2}{\nu}\Big) - \log s
      - \log \frac{\Gamma(\nu / 2) \sqrt{\pi \nu}}{\Gamma((\nu + 1) / 2)}, \qquad y = \frac{x - \mu}{s}$$

    (torch's class computes the last term at each coordinate, and checks the values of its parameters.)

    Args:
        df: Degrees of freedom $\nu$, above 1, so that there is a mean.
        loc: $\mu$, of any shape. Each coordinate is one event: use `torch.distributions.Independent` for vectors.
        scale: $s$, of a shape that broadcasts with it.

    >>> p = Student(4.0, torch.zeros(3), torch.tensor(2.0))
    >>> torch.allclose(p.log_prob(torch.ones(3)), torch.distributions.StudentT(4.0, 0.0, 2.0).log_prob(torch.ones(3)))
    True
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(self, df: float, loc: Tensor, scale: Tensor) -> None:
        self.df = df
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, ())

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "Student":
        return Student(self.df, *(t.expand(torch.Size(batch_shape)) for t in (self.loc, self.scale)))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Infinite for df of at most 2."""
        return self.scale.square() * (self.df / (self.df - 2) if self.df > 2 else math.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        half = (self.df + 1) / 2
        constant = math.lgamma(half) - math.lgamma(self.df / 2) - 0.5 * math.log(math.pi * self.df)
        y = (value - self.loc) / self.scale
        return constant - half * torch.log1p(y.square() / self.df) - self.scale.log()

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        reference = StudentT(self.df, self.loc, self.scale, validate_args=False)
        return reference.sample(torch.Size(sample_shape))


_progress: ContextVar[Callable[[int, int], None] | None] = ContextVar("progress", default=None)


@contextmanager
def sampling_progress(progress: Callable[[int, int], None]) -> Iterator[None]:
    """Within this block, report the progress of each `Autoregressive.sample`: pixels done, and pixels in all.

    >>> from torch.distributions import Bernoulli
    >>> with sampling_progress(print):
    ...     _ = Autoregressive(lambda x: Bernoulli(x), (), (1, 1, 2), draws=lambda shape: torch.zeros(2, 1)).sample()
    1 2
    2 2
    """
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


class Autoregressive(ShapedDistribution):
    r"""Distribution of an image whose pixels are drawn one after another, row by row from the left.

    $$\log p(x) = \sum_i \log p(x_i \mid x_1, \dots, x_{i-1})$$

    (van den Oord, Kalchbrenner & Kavukcuoglu 2016, eq. 1). The channels of a pixel are drawn together. The mean has no
    closed form.

    Args:
        conditionals: x -> a distribution over images in which pixel i is independent of all others and depends only on
            the pixels of x before i. One call gives the density of all pixels.
        batch_shape: Shape of the batch.
        event_shape: Channels, height and width.
        draws: Shape of the sample -> the pixels in order, each of shape `(*shape, channels)`. `naive_pixel_draws` gets
            them from `conditionals` alone; a network that keeps what it has computed is faster by about the number of
            pixels.
        support: () -> the support of x, if known; called when asked for.
    """

    def __init__(
        self,
        conditionals: Callable[[Tensor], Distribution],
        batch_shape: Shape,
        event_shape: Shape,
        *,
        draws: Callable[[torch.Size], Iterable[Tensor]],
        support: Callable[[], constraints.Constraint] | None = None,
    ) -> None:
        self.conditionals, self.draws, self._support = conditionals, draws, support
        super().__init__(batch_shape, event_shape)

    @property
    def support(self) -> constraints.Constraint:
        if self._support is None:
            raise NotImplementedError("this Autoregressive was made without a support: pass support=lambda: ...")
        return self._support()

    def log_prob(self, value: Tensor) -> Tensor:
        return self._over_batch(self.conditionals(value).log_prob(value))

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Images, of shape `(*sample_shape, *batch, *event)`, pixel by pixel (see `sampling_progress`)."""
        _, height, width = self.event_shape
        progress, pixels = _progress.get(), []
        for pixel in self.draws(torch.Size(sample_shape) + self.batch_shape):
            pixels.append(pixel)
            if progress is not None:
                progress(len(pixels), height * width)
        return torch.stack(pixels, -1).unflatten(-1, (height, width))


def naive_pixel_draws(conditionals: Callable[[Tensor], Distribution], blank: Tensor) -> Iterator[Tensor]:
    """Draw the pixels of an `Autoregressive` by the plain loop: one pass over the whole image for each pixel.

    Args:
        conditionals: As in `Autoregressive`.
        blank: Any images of the shape of the sample, `(*shape, channels, height, width)`.
    """
    x = blank.clone()
    for row, column in product(range(x.shape[-2]), range(x.shape[-1])):
        x[..., row, column] = conditionals(x).sample()[..., row, column]
        yield x[..., row, column]
