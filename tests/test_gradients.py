"""Estimators of the encoder's gradient of an importance-weighted bound, on a model with one wrong parameter."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from reference import Call, LinearGaussian
from vaepriors.distributions import Chain, DiagonalNormal
from vaepriors.objectives import IWAE
from vaepriors.vae import VAE

R = 40_000  # independent estimates
X = LinearGaussian().x[:1]


class Shifted(nn.Module):
    """A posterior whose mean is off by a parameter, of which each estimate has a copy of its own."""

    def __init__(self, posterior, shift=0.5, r=R):
        super().__init__()
        self.posterior = posterior
        self.shift = nn.Parameter(torch.full((r, 1), shift, dtype=torch.float64))

    def forward(self, x):
        return self.posterior(x, self.shift)


def one_level(shift: float = 0.5, r: int = R) -> VAE:
    model = LinearGaussian(scale=1.2).vae()

    def posterior(x, shift):
        q = model.encoder(x)
        return DiagonalNormal(q.loc + shift, q.scale)

    return VAE(Shifted(posterior, shift, r), model.decoder, model.prior)


def two_levels() -> VAE:
    model = LinearGaussian(scale=1.2).hvae()

    def posterior(x, shift):
        q = model.encoder(x)
        wide = DiagonalNormal(q.first.loc + shift, q.first.scale)
        lower = lambda z2: DiagonalNormal(q.then(z2).loc + 0.3 * shift * z2, q.then(z2).scale)  # noqa: E731
        return Chain(wide, lower, q.sizes)

    return VAE(Shifted(posterior), model.decoder, model.prior)


def gradients(model: VAE, estimator: str, k: int, groups: int = 1) -> torch.Tensor:
    """Estimates of the gradient of the loss, one for each copy of the shift."""
    torch.manual_seed(k)
    objective, r = IWAE(k, estimator, groups), len(model.encoder.shift)
    loss, _ = objective(model, X.expand(r, -1))
    (gradient,) = torch.autograd.grad(loss * r, model.encoder.shift)
    return gradient.flatten()


def mean_and_error(estimates):
    return estimates.mean().item(), estimates.std().item() / math.sqrt(R)


@pytest.mark.parametrize("model", [one_level, two_levels])
@pytest.mark.parametrize(("k", "groups"), [(1, 1), (2, 1), (8, 1), (3, 2)])
def test_dreg_is_unbiased(model, k, groups):
    plain, dreg = (mean_and_error(gradients(model(), estimator, k, groups)) for estimator in ("plain", "dreg"))
    assert abs(plain[0] - dreg[0]) < 4 * math.hypot(plain[1], dreg[1])
    assert abs(dreg[0]) > 20 * dreg[1]  # there is something to estimate


@pytest.mark.parametrize("model", [one_level, two_levels])
def test_stl_is_unbiased_for_one_draw_and_biased_for_more(model):
    for k, biased in ((1, False), (8, True)):
        plain, stl = (mean_and_error(gradients(model(), estimator, k)) for estimator in ("plain", "stl"))
        assert (abs(plain[0] - stl[0]) > 8 * math.hypot(plain[1], stl[1])) == biased


def test_the_signal_of_dreg_grows_with_the_draws_and_that_of_plain_falls():
    signal = lambda estimates: abs(estimates.mean() / estimates.std()).item()  # noqa: E731
    plain, dreg = (
        [signal(gradients(one_level(0.1, r=R // 8), estimator, k)) for k in (4, 16, 64)]
        for estimator in ("plain", "dreg")
    )
    assert plain[0] > 1.5 * plain[1] > 1.5**2 * plain[2]  # 1 / sqrt(K) is a factor of 2
    assert dreg[2] > 1.5 * dreg[1] > 1.5**2 * dreg[0]


def test_other_parameters_have_the_same_gradient_under_every_estimator():
    """Given the same draws, exactly: only the way through the draws differs."""
    results = []
    for estimator in ("plain", "stl", "dreg"):
        model = one_level()
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        model.decoder = Call(lambda z, decoder=model.decoder, scale=scale: decoder(scale * z))
        torch.manual_seed(0)
        loss, _ = IWAE(5, estimator)(model, X.expand(R, -1))
        results.append((loss.item(), torch.autograd.grad(loss, scale)[0].item()))
    assert results[0] == pytest.approx(results[1], rel=1e-12)
    assert results[0] == pytest.approx(results[2], rel=1e-12)


def test_without_the_score_term_the_values_are_the_same():
    for make in (one_level, two_levels):
        model = make()
        terms = []
        for estimator in ("plain", "stl"):
            torch.manual_seed(0)
            terms.append(IWAE(3, estimator)(model, X.expand(R, -1))[1])
        torch.testing.assert_close(terms[0][:4], terms[1][:4], rtol=0, atol=1e-10)


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_with_dropout_every_estimator_has_the_density_of_the_posterior_that_was_drawn_from(estimator):
    """A second call of the encoder would drop other units: the bound would be far too high."""
    linear, drop = LinearGaussian(), nn.Dropout(0.5)
    model = linear.vae()
    model = VAE(Call(lambda x, encoder=model.encoder: encoder(drop(x))), model.decoder, model.prior)
    losses = []
    for each in ("plain", estimator):
        torch.manual_seed(0)
        losses.append(IWAE(5, each)(model, linear.x)[0].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_bounds_grow_with_the_draws():
    model = one_level()
    with torch.no_grad():
        bounds = [model(X.expand(R, -1), k).bound for k in (1, 2, 4, 8, 16)]
    for fewer, more in pairwise(bounds):
        assert more.mean() - fewer.mean() > 4 * math.hypot(fewer.std().item(), more.std().item()) / math.sqrt(R)
    assert bounds[-1].mean() < LinearGaussian().log_prob(X).item()
