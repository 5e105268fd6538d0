"""Posteriors fitted to each x: exact where they can be, unbiased everywhere, and refused where there is no noise."""

import math
from itertools import count

import pytest
import torch
from torch.distributions import Gamma, Independent, MultivariateNormal, Normal

from reference import Call, LinearGaussian
from vaepriors.distributions import Chain, DiagonalNormal, at_noise, noise_of
from vaepriors.likelihood import ImportanceSampling, estimate
from vaepriors.refinement import Refinement, WithNoise
from vaepriors.vae import VAE

MODELS = {"vae": LinearGaussian.vae, "hvae": LinearGaussian.hvae, "vhp": lambda linear: linear.vae_with_vae_prior(4)}


def chain() -> Chain:
    first = DiagonalNormal(torch.randn(3, 2).double(), torch.rand(3, 2).double() + 0.5)
    return Chain(first, lambda a: DiagonalNormal(a.sum(-1, keepdim=True).sin(), a[..., :1].exp()), (2, 1))


def test_noise_and_value_are_inverses_and_give_the_density():
    torch.manual_seed(0)
    for q in (chain(), Independent(Normal(torch.randn(3, 3).double(), 0.3), 1)):
        epsilon = torch.randn(5, 3, 3, dtype=torch.float64)
        z, log_det = at_noise(q, epsilon)
        torch.testing.assert_close(noise_of(q, z), (epsilon, log_det))
        assert log_det.shape == (5, 3)
        standard = Normal(0.0, 1.0).log_prob(epsilon).sum(-1)
        torch.testing.assert_close(standard - log_det, q.log_prob(z))


def test_with_other_noise_density_and_sampler_agree():
    torch.manual_seed(0)
    lower = torch.randn(3, 3, 3).double().tril(-1) + torch.eye(3).double()
    q = WithNoise(chain(), MultivariateNormal(torch.randn(3, 3).double(), scale_tril=lower))
    z, log_q = q.rsample_and_log_prob((4,))
    torch.testing.assert_close(log_q, q.log_prob(z))
    wide = WithNoise(chain(), DiagonalNormal(torch.zeros(3, 3).double(), 2 * torch.ones(3).double()))
    z, log_r = wide.rsample_and_log_prob((20_000,))
    ratio = (wide.posterior.log_prob(z) - log_r).exp()  # E[q / r] = 1
    torch.testing.assert_close(ratio.mean(0), torch.ones(3).double(), rtol=0, atol=0.05)


@pytest.mark.parametrize("name", MODELS)
def test_the_exact_posterior_stays_exact(name):
    linear = LinearGaussian()
    result = estimate(
        MODELS[name](linear), linear.x, ImportanceSampling(100, Refinement(steps=5, inflation=1.0)), chunk=70
    )
    torch.testing.assert_close(result.log_likelihood, linear.log_prob(linear.x), rtol=0, atol=1e-10)
    torch.testing.assert_close(result.effective_samples, torch.full((7,), 100.0, dtype=torch.float64))


@pytest.mark.parametrize("name", ["vae", "hvae"])
def test_a_wrong_posterior_becomes_exact(name):
    linear = LinearGaussian(scale=1.5)
    torch.manual_seed(0)
    plain, refined = (
        estimate(MODELS[name](linear), linear.x, ImportanceSampling(100, posterior))
        for posterior in (None, Refinement(inflation=1.0))
    )
    assert plain.effective_samples.max() < 65
    assert refined.effective_samples.min() > 99.9
    torch.testing.assert_close(refined.log_likelihood, linear.log_prob(linear.x), rtol=0, atol=1e-2)


def test_correlated_posteriors_are_within_reach():
    """z ~ N(0, I), x = A z + e, with a posterior that no diagonal normal fits."""
    torch.manual_seed(0)
    a = torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double()
    x = torch.randn(3, 2, dtype=torch.float64)
    q = Call(lambda x: DiagonalNormal(torch.zeros_like(x), torch.ones_like(x)))
    unit = DiagonalNormal(torch.zeros(2).double(), torch.ones(2).double())
    model = VAE(q, Call(lambda z: DiagonalNormal(z @ a, torch.full((2,), 0.3).double())), Call(lambda: unit))
    result = estimate(model, x, ImportanceSampling(100, Refinement(steps=400, inflation=1.0)))
    truth = MultivariateNormal(torch.zeros(2).double(), a @ a.T + 0.09 * torch.eye(2).double()).log_prob(x)
    torch.testing.assert_close(result.log_likelihood, truth, rtol=0, atol=1e-2)
    assert result.effective_samples.min() > 99


def test_inflated_posteriors_are_wider():
    linear = LinearGaussian()
    narrow, wide = (Refinement(steps=0, inflation=each)(linear.vae(), linear.x) for each in (1.0, 2.0))
    torch.manual_seed(0)
    expected = 2 * narrow.noise.rsample()
    torch.manual_seed(0)
    torch.testing.assert_close(wide.noise.rsample(), expected)


def test_a_fit_that_diverges_falls_back_to_the_encoder():
    linear = LinearGaussian(scale=1.5)
    q = Refinement(steps=3, lr=1e4, inflation=1.0)(linear.vae(), linear.x)
    z, log_q = q.rsample_and_log_prob((5,))
    torch.testing.assert_close(log_q, linear.vae().encoder(linear.x).log_prob(z))


def with_nan(linear: LinearGaussian, where) -> VAE:
    """The model with one level, whose decoder returns NaN for some z."""
    model, noise = linear.vae(), torch.full((5,), linear.t).double()
    lost = lambda z: z @ linear.W.T * torch.where(where(z), math.nan, 1.0)  # noqa: E731
    return VAE(model.encoder, Call(lambda z: DiagonalNormal(lost(z), noise)), model.prior)


def test_a_fit_that_is_not_a_number_falls_back_to_the_encoder():
    linear = LinearGaussian(scale=1.5)
    model = with_nan(linear, lambda z: z[..., :1].abs() > 100)
    q = Refinement(steps=3, lr=1e4, inflation=1.0)(model, linear.x)
    assert not q.noise.loc.any()


def test_a_step_without_a_gradient_is_skipped():
    linear, calls = LinearGaussian(scale=1.5), count()
    model = with_nan(linear, lambda z: torch.tensor(next(calls) == 2))
    q = Refinement(steps=100, inflation=1.0)(model, linear.x)
    assert (q.noise.scale_tril.diagonal(dim1=-2, dim2=-1) < 0.9).all()  # on their way to 1 / 1.5


def test_the_step_size_falls_linearly():
    """Each step of Adam is the step size where the gradient is constant, as far from the mode it is."""
    one = torch.ones(1, dtype=torch.float64)
    encoder, prior = Call(lambda x: DiagonalNormal(0 * x, one)), DiagonalNormal(0 * one, one)
    model = VAE(encoder, Call(lambda z: DiagonalNormal(z, one)), Call(lambda: prior))
    torch.manual_seed(0)
    q = Refinement(steps=10, draws=4000, lr=0.01)(model, 1e6 * one[None])
    assert q.noise.loc.item() == pytest.approx(0.01 * sum(1 - 0.09 * step for step in range(10)), rel=1e-4)


def test_the_model_is_left_as_it_was():
    linear = LinearGaussian(scale=1.5)
    model = linear.vae()
    model.free = torch.nn.Parameter(torch.ones(()))
    Refinement(steps=3)(model, linear.x)
    assert model.free.grad is None
    assert model.free.requires_grad
    assert not Refinement(steps=3)(model, linear.x).rsample().requires_grad
    modes, decoder, prior = [], model.decoder, model.prior
    model.decoder = Call(lambda z: modes.append(model.training) or decoder(z))
    model.prior = Call(lambda: modes.append("prior") or prior())
    Refinement(steps=3)(model, linear.x)
    assert True not in modes
    assert modes.count("prior") == 1  # its components cost as much as a step
    assert model.training


def test_posteriors_of_other_kinds_and_wrong_numbers_are_refused():
    linear = LinearGaussian()
    model = linear.vae()
    gamma = Independent(Gamma(torch.ones(7, 3).double(), torch.ones(7, 3).double()), 1)
    with pytest.raises(ValueError, match=r"Independent.*Chain"):
        Refinement(steps=1)(model.given(gamma), linear.x)
    with pytest.raises(ValueError, match="samples is"):
        estimate(model, linear.x, Refinement())  # the posterior instead of a method with it
    for wrong in ({"steps": -1}, {"draws": 0}, {"lr": 0.0}, {"inflation": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Refinement(**wrong)
