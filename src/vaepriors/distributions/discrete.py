"""Categories, and counts with a given total."""

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints

from vaepriors.distributions.shaped import Shape, ShapedDistribution

__all__ = ["Codes", "Multinomial"]


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
