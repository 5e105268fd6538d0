"""Bits."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaepriors.distributions.shaped import Shape, ShapedDistribution

__all__ = ["IndependentBernoulli"]


class IndependentBernoulli(ShapedDistribution):
    r"""Independent bits, with logits $l$.

    $$\log P(x) = \sum_d x_d l_d - \log(1 + e^{l_d}), \qquad
      \frac{\partial \log P}{\partial l_d} = x_d - \sigma(l_d)$$

    The first term is one product, also if one x meets many logits, and the second does not depend on x. Formula and
    gradient also hold for any real x. For data that are probabilities, the result is a bound.

    Args:
        logits: $l$, of shape `(*batch, *event)`.
        event_dims: Number of dimensions of an event.

    >>> import math
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
        logits = self.logits.reshape(*self.batch_shape, self.event_shape.numel())
        x = value.reshape(*value.shape[: value.dim() - len(self.event_shape)], logits.shape[-1])
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
