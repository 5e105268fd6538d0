"""Counts."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaepriors.distributions.shaped import Shape, ShapedDistribution

__all__ = ["Multinomial", "NegativeBinomial", "Poisson"]


class Poisson(ShapedDistribution):
    r"""Counts with the variance of their mean m.

    $$\log P(x) = x \log m - m - \log x! = \log P(x; x) - x\, (e^d - 1 - d), \qquad d = \log m - \log x$$

    The terms of the first form are about x log x each, so in single precision their sum errs by nats for counts of a
    million. In the second, only the mass at m = x has such terms, and Stirling's series does not.

    Args:
        log_mean: $\log m$, of any shape. Each count is one event: use `torch.distributions.Independent` for vectors.

    >>> round(Poisson(torch.tensor(0.0)).log_prob(torch.tensor(3.0)).item(), 4)  # -1 - log 3!
    -2.7918
    """

    arg_constraints = {"log_mean": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor) -> None:
        self.log_mean = log_mean
        super().__init__(log_mean.shape, ())

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "Poisson":
        return Poisson(self.log_mean.expand(torch.Size(batch_shape)))

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        log_x = value.clamp(min=1).log()  # 0 for no counts, where e^d = m is all there is
        d = self.log_mean - log_x
        rise = torch.expm1(d)
        return _log_mode(value, log_x) - torch.where(value > 0, value * (rise - d), rise + 1)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return torch.poisson(self.mean.expand(self._extended_shape(torch.Size(sample_shape))))


def _log_mode(x: Tensor, log_x: Tensor) -> Tensor:
    r"""The largest log-mass of x counts, at the mean x: $x \log x - x - \log x!$.

    From 30 on by Stirling's series, whose error is below 1e-13.
    """
    inverse = 1 / x.clamp(min=30)
    square = inverse.square()
    series = -0.5 * (math.log(2 * math.pi) + log_x) - inverse * (1 / 12 - square * (1 / 360 - square / 1260))
    return torch.where(x < 30, x * log_x - x - torch.lgamma(x + 1), series)


class NegativeBinomial(ShapedDistribution):
    r"""Counts with mean m and dispersion r, whose variance is $m + m^2 / r$.

    $$\log P(x) = \log \frac{\Gamma(x + r)}{\Gamma(r)\, x!} - r \log(1 + e^t) - x \log(1 + e^{-t}), \qquad
      t = \log m - \log r$$

    (torch's class computes the first term for each mean, and in single precision, where it errs by nats for counts of a
    million. Here it is in float64, once for each count and dispersion.)

    Args:
        log_mean: $\log m$, of any shape. Each count is one event: use `torch.distributions.Independent` for vectors.
        log_dispersion: $\log r$, of a shape that broadcasts with it.

    >>> p = NegativeBinomial(torch.tensor(0.0), torch.tensor(0.0))  # a geometric distribution
    >>> p.log_prob(torch.arange(3.0)).exp()
    tensor([0.5000, 0.2500, 0.1250])
    """

    arg_constraints = {"log_mean": constraints.real, "log_dispersion": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor, log_dispersion: Tensor) -> None:
        self.log_mean, self.log_dispersion = log_mean, log_dispersion
        super().__init__(torch.broadcast_shapes(log_mean.shape, log_dispersion.shape), ())

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "NegativeBinomial":
        return NegativeBinomial(self.log_mean.expand(torch.Size(batch_shape)), self.log_dispersion)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp().expand(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        return self.mean + self.mean.square() / self.log_dispersion.exp()

    def log_prob(self, value: Tensor) -> Tensor:
        x, r = value.double(), self.log_dispersion.double().exp()
        ways = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
        t = self.log_mean - self.log_dispersion
        return ways.to(t) + self.log_dispersion.exp() * F.logsigmoid(-t) + value * F.logsigmoid(t)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        t = self.log_mean - self.log_dispersion
        reference = torch.distributions.NegativeBinomial(self.log_dispersion.exp(), logits=t, validate_args=False)
        return reference.sample(torch.Size(sample_shape))


class Multinomial(ShapedDistribution):
    r"""Counts given their total $n = \sum_d x_d$, each of them in a category d with the probability $p_d$.

    $$\log P(x \mid n) = \log n! + \sum_d (x_d \log p_d - \log x_d!), \qquad p = \mathrm{softmax}(l)$$

    The density takes each total from x itself, whatever it is. It is computed as that of `Poisson` counts with means
    $n p_d$ given their sum, which is more precise. Draws, mean and variance have one total. (torch's class draws the n
    categories one by one, and holds them all.)

    Args:
        logits: $l$, of shape `(*batch, *event)`.
        event_dims: Number of dimensions of an event, all of which share the total.
        total: The total of draws.

    >>> p = Multinomial(torch.zeros(5, 3), event_dims=1, total=10)
    >>> p.log_prob(torch.tensor([1.0, 0.0, 1.0])).exp()[0], p.sample().sum(-1)
    (tensor(0.2222), tensor([10., 10., 10., 10., 10.]))
    """

    arg_constraints = {"logits": constraints.real}
    given_total = True  # for `vaepriors.check`: the masses of all x do not sum to one

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

    def residual(self, value: Tensor) -> Tensor:
        """The distance of counts from their means given their own total (see `distributions.residual`)."""
        total = value.sum(tuple(range(-len(self.event_shape), 0)), keepdim=True)
        return value - total * self._log_probs().exp().view(self.logits.shape)

    def _log_probs(self) -> Tensor:
        return self.logits.reshape(*self.batch_shape, -1).log_softmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "x")
        x = value.reshape(*value.shape[: value.dim() - len(self.event_shape)], -1)
        log_p, total = self._log_probs(), x.double().sum(-1, keepdim=True)
        of_total = Poisson(total.log()).log_prob(total).squeeze(-1)
        return Poisson(log_p + total.log().to(log_p)).log_prob(x).sum(-1) - of_total.to(log_p)

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
