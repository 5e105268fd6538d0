"""Models whose every quantity is known in closed form, and a goodness-of-fit test of samplers against densities."""

import math
from collections.abc import Callable

import torch
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, MultivariateNormal, Normal

from vaepriors.data import Dataset
from vaepriors.distributions import Chain, DiagonalNormal
from vaepriors.networks import Encoder
from vaepriors.priors import StandardNormal
from vaepriors.vae import VAE, Marginal

D, L = 5, 3  # sizes of x and of each latent


def independent_pixels(x: Tensor) -> float:
    """The largest mean log-likelihood of binary images that independent pixels can reach, in nats."""
    return -Bernoulli(x.mean(0)).entropy().sum().item()


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def three_reals() -> Dataset:
    """60 points of three independent normals, split 40 / 10 / 10."""
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    return Dataset("gaussian", x[:40], x[40:50], x[50:], "gaussian")


def vae_of_three_reals(prior: Callable[[], nn.Module]) -> VAE:
    """A small VAE with two latent units, a linear decoder and a prior, with the same weights in each call."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 3), Call(lambda loc: Independent(Normal(loc, 1.0), 1)))
    return VAE(Encoder((3,), [8], 2), decoder, prior())


class LinearGaussian:
    """z2 ~ N(0, I), z1 = a z2 + s e, x = W z1 + t e, with the columns of W orthogonal, so that posteriors are diagonal.

    Seen with z1 alone, the prior is N(0, a^2 + s^2). A scale other than 1 makes the posteriors wrong.
    """

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.width = draw(L).abs() + 0.5
        self.W = torch.linalg.qr(draw(D, L)).Q * self.width
        self.a, self.s, self.t = draw(L), 0.7, 0.4
        self.scale = scale
        self.x = draw(7, D)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), exactly."""
        prior = torch.diag(self.a**2 + self.s**2)
        covariance = self.W @ prior @ self.W.T + self.t**2 * torch.eye(D, dtype=torch.float64)
        return MultivariateNormal(torch.zeros(D, dtype=torch.float64), covariance).log_prob(x)

    def likelihood(self, z1: Tensor) -> Distribution:
        return Independent(Normal(z1 @ self.W.T, self.t), 1)

    def _posterior(self, loc: Tensor, var: Tensor, y: Tensor, noise: Tensor) -> DiagonalNormal:
        """That of z with prior N(loc, var) given y = z + N(0, noise)."""
        precision = 1 / var + 1 / noise
        return DiagonalNormal((loc / var + y / noise) / precision, self.scale * precision.rsqrt())

    def _observed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x has the same information on z1 as y = z1 + N(0, noise)."""
        return x @ self.W / self.width**2, (self.t / self.width) ** 2

    def vae(self) -> VAE:
        """One level: z = z1."""
        var = self.a**2 + self.s**2
        prior = DiagonalNormal(torch.zeros_like(var), var.sqrt())
        encoder = Call(lambda x: self._posterior(torch.zeros_like(var), var, *self._observed(x)))
        return VAE(encoder, Call(self.likelihood), Call(lambda: prior))

    def _top(self, y: Tensor, noise: Tensor) -> DiagonalNormal:
        """q(z2|y), where y = a z2 + N(0, s^2 + noise)."""
        one = torch.ones_like(self.a)
        return self._posterior(0 * one, one, y / self.a, (self.s**2 + noise) / self.a**2)

    def hvae(self) -> VAE:
        """Two levels: z = [z2, z1]."""

        def encoder(x: Tensor) -> Chain:
            y, noise = self._observed(x)
            var = torch.full_like(self.a, self.s**2)
            return Chain(self._top(y, noise), lambda z2: self._posterior(self.a * z2, var, y, noise), (L, L))

        def prior() -> Chain:
            scale = torch.full_like(self.a, self.s)
            return Chain(StandardNormal(L).double()(), lambda z2: DiagonalNormal(self.a * z2, scale), (L, L))

        return VAE(Call(encoder), Call(lambda z: self.likelihood(z[..., L:])), Call(prior))

    def vae_with_vae_prior(self, n: int) -> VAE:
        """z = z1, whose prior is a VAE over z1 with the latent z2."""
        scale = torch.full_like(self.a, self.s)
        inner = VAE(
            Call(lambda z1: self._top(z1, torch.zeros_like(z1))),
            Call(lambda z2: DiagonalNormal(self.a * z2, scale)),
            StandardNormal(L).double(),
        )
        outer = self.vae()
        return VAE(outer.encoder, outer.decoder, Call(lambda: Marginal(inner, n, (L,))))


def fit_of_samples(distribution: Distribution, low: float, high: float, n: int = 100_000, cells: int = 12) -> float:
    """p-value of the chi-square test that 2-D samples follow exp(log_prob), integrated over a grid of cells."""
    fine = 25  # midpoints of each cell and axis
    width = (high - low) / cells
    axis = low + width / fine * (torch.arange(cells * fine, dtype=torch.float64) + 0.5)
    points = torch.cartesian_prod(axis, axis)
    density = distribution.log_prob(points).exp().view(cells, fine, cells, fine)
    expected = (density.sum((1, 3)) * (width / fine) ** 2).flatten()
    index = ((distribution.sample((n,)) - low) / width).floor().long()
    inside = ((index >= 0) & (index < cells)).all(-1)
    observed = torch.bincount(index[inside, 0] * cells + index[inside, 1], minlength=cells**2).double()
    often = expected * n > 5
    f_obs = torch.cat([observed[often], (n - observed[often].sum())[None]])
    f_exp = torch.cat([expected[often], (1 - expected[often].sum())[None]]) * n
    assert math.isclose(expected.sum().item(), 1, abs_tol=1e-2), "the grid does not cover it, or it is no density"
    return float(chisquare(f_obs, f_exp).pvalue)
