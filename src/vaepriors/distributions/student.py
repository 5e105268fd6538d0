"""Heavy tails."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, StudentT, constraints

from vaepriors.distributions.shaped import Shape, ShapedDistribution

__all__ = ["Student"]


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
