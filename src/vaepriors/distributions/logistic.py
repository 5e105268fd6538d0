"""Gray levels."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaepriors.distributions.shaped import Shape, ShapedDistribution

__all__ = ["DiscretizedLogistic"]


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
    support = constraints.unit_interval

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
