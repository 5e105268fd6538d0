r"""Posteriors fitted to each x, from which the likelihood needs fewer draws than from the encoder's.

An encoder of diagonal normals, or of a `Chain` of them, maps noise to z: $z = g_x(\epsilon)$ with
$\epsilon \sim N(0, I)$. The refined posterior keeps this map and fits the distribution of the noise to each x,

$$\epsilon \sim N(m, L L^\top), \qquad
  \log q'(z|x) = \log N(\epsilon; m, L L^\top) - \log \left| \frac{\partial g_x}{\partial \epsilon} \right|.$$

It starts at q(z|x), with m = 0 and L = I, and maximises the ELBO of each x on its own: nothing is shared among
examples (Cremer, Li & Duvenaud 2018, section 5.1, who fit a mean and a scale). With one level q' is a normal
distribution with any mean and covariance matrix. In a chain L also lets the noise of a level depend on that of the one
before it.

The posterior is fitted with other draws than those that are weighed, so the importance-sampled likelihood stays
unbiased.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, constraints

from vaepriors.distributions import Shape, ShapedDistribution, at_noise, noise_of, rsample_and_log_prob
from vaepriors.limits import at_least_one
from vaepriors.vae import VAE, eval_mode

__all__ = ["Refinement", "WithNoise"]

SMALL_GRADIENT = 0.1  # nats a standard deviation: Adam takes smaller steps below it, and none at the exact posterior


class WithNoise(ShapedDistribution):
    r"""A posterior whose noise follows another distribution r than $N(0, I)$.

    $$\log q'(z) = \log r(\epsilon) - \log |\partial g / \partial \epsilon|, \qquad z = g(\epsilon)$$

    Args:
        posterior: q, which has `at_noise` (see `vaepriors.distributions`).
        noise: r, over vectors of the size of z, of the same batch shape.

    >>> from vaepriors.distributions import DiagonalNormal
    >>> q, z = DiagonalNormal(torch.zeros(1), 2 * torch.ones(1)), torch.ones(1)
    >>> wide = WithNoise(q, DiagonalNormal(torch.ones(1), 3 * torch.ones(1)))
    >>> torch.allclose(wide.log_prob(z), DiagonalNormal(2 * torch.ones(1), 6 * torch.ones(1)).log_prob(z))
    True
    """

    support = constraints.real_vector
    has_rsample = True

    def __init__(self, posterior: Distribution, noise: Distribution) -> None:
        self.posterior, self.noise = posterior, noise
        super().__init__(noise.batch_shape, noise.event_shape)

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "WithNoise":
        shape = torch.Size(batch_shape)
        return WithNoise(self.posterior.expand(shape), self.noise.expand(shape))

    def rsample_and_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """z and log q'(z) (see the function of the same name)."""
        epsilon, log_r = rsample_and_log_prob(self.noise, sample_shape)
        z, log_det = at_noise(self.posterior, epsilon)
        return z, log_r - log_det

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        return self.rsample_and_log_prob(sample_shape)[0]

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "z")
        epsilon, log_det = noise_of(self.posterior, value)
        return self.noise.log_prob(epsilon) - log_det


class _Correlated(MultivariateNormal):
    """torch's normal distribution with any covariance matrix, of a draw and its density at once."""

    def rsample_and_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """z and its log-density, which is exact also where the matrix is nearly singular."""
        e = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        z = self.loc + (self.scale_tril @ e[..., None])[..., 0]
        log_det = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return z, -0.5 * e.square().sum(-1) - 0.5 * math.log(2 * math.pi) * e.shape[-1] - log_det


@dataclass(frozen=True)
class Refinement:
    """Fit a posterior to each x, from the encoder's on (see the module).

    Calling it with a model and x returns the posterior, which `VAE.given` and `ImportanceSampling` take. The
    defaults were chosen by the effective samples of 10 to 20 images of Caltech 101.

    Args:
        steps: Steps of Adam.
        draws: Draws of z for each x in a step.
        lr: Step size of Adam at the start; it falls to 0 linearly.
        inflation: Factor on the standard deviations after the fit. The ELBO fits posteriors that are too narrow, and
            draws from them miss some of the mass.

    Raises:
        ValueError: If `steps` is negative, or `draws`, `lr` or `inflation` is not positive.

    >>> from vaepriors import VAE, networks, priors
    >>> encoder, decoder = networks.Encoder((1, 4, 4), [16], latent=2), networks.Decoder((1, 4, 4), [16], latent=2)
    >>> model, x = VAE(encoder, decoder, priors.StandardNormal(2)), torch.zeros(10, 1, 4, 4)
    >>> q = Refinement(steps=5)(model, x)
    >>> bool((model.given(q)(x, 1000).elbo > model(x, 1000).elbo).all())
    True
    """

    steps: int = 200
    draws: int = 10
    lr: float = 0.2
    inflation: float = 1.05

    def __post_init__(self) -> None:
        at_least_one(draws=self.draws)
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}: it cannot be negative")
        for name in ("lr", "inflation"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: a positive number is needed")

    def __call__(self, model: VAE, x: Tensor) -> WithNoise:
        """The fitted posterior, of batch shape `batch`.

        Args:
            model: The model; its parameters stay as they are.
            x: Data, of shape `(batch, *event)`.

        Raises:
            ValueError: If the encoder's posterior is not a diagonal normal or a `Chain` of such.
        """
        with eval_mode(model), torch.no_grad():
            q = model.encoder(x)
            known, free = model.given(prior=model.prior()), _Free(q, x)
            self._fit(known, q, free, x)
            self._keep_better(known, q, free, x)
        return WithNoise(q, free.noise(self.inflation))

    def _fit(self, model: VAE, q: Distribution, free: "_Free", x: Tensor) -> None:
        optimizer = torch.optim.Adam(free.groups(self.lr), eps=SMALL_GRADIENT)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / max(self.steps, 1), max(self.steps, 1))
        for _ in range(self.steps):
            with torch.enable_grad():
                loss = -self._elbo(model, q, free.noise(), x).sum()
            gradients = torch.autograd.grad(loss, free.parameters)
            for parameter, gradient in zip(free.parameters, gradients, strict=True):
                parameter.grad = gradient.nan_to_num(0)
            optimizer.step()
            decay.step()
        for parameter in free.parameters:
            parameter.requires_grad_(False)

    def _elbo(self, model: VAE, q: Distribution, noise: MultivariateNormal, x: Tensor) -> Tensor:
        """The ELBO of each x, whose gradient vanishes for every draw if q' is exact (Roeder, Wu & Duvenaud 2017)."""
        fixed = MultivariateNormal(noise.loc.detach(), scale_tril=noise.scale_tril.detach(), validate_args=False)
        epsilon = noise.rsample(torch.Size([self.draws]))
        z, log_det = at_noise(q, epsilon)
        return model.weigh(x, z, fixed.log_prob(epsilon) - log_det).elbo

    def _keep_better(self, model: VAE, q: Distribution, free: "_Free", x: Tensor) -> None:
        """Put m and L back to the start for each x whose ELBO has not grown, by other draws."""
        noises = free.noise(), _Free(q, x).noise()
        fitted, before = (
            torch.stack([model.given(WithNoise(q, noise))(x, self.draws).elbo for _ in range(5)]).mean(0)
            for noise in noises
        )
        free.reset(~(fitted >= before))  # also where it is not a number


class _Free:
    """m and L of each x, the parameters of the fit."""

    def __init__(self, q: Distribution, x: Tensor) -> None:
        shape = (*q.batch_shape, *q.event_shape)
        self.loc, self.log_scale = (x.new_zeros(shape).requires_grad_() for _ in range(2))
        self.lower = x.new_zeros(*shape, shape[-1]).requires_grad_()
        self.parameters = [self.loc, self.log_scale, self.lower]

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """For the optimiser. Each number of L has a smaller step: d of them add up in each coordinate."""
        small = lr / self.loc.shape[-1] ** 0.5
        return [{"params": [self.loc, self.log_scale], "lr": lr}, {"params": [self.lower], "lr": small}]

    def reset(self, which: Tensor) -> None:
        """Set the parameters of some x back to the start, where all are 0."""
        for parameter in self.parameters:
            parameter[which] = 0

    def noise(self, inflation: float = 1.0) -> _Correlated:
        diagonal = self.log_scale.clamp(-7, 7).exp()  # finite even if the fit diverges, so that it can be judged
        scale = torch.diag_embed(diagonal) + self.lower.tril(-1)
        return _Correlated(self.loc, scale_tril=inflation * scale, validate_args=False)
