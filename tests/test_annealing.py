"""Annealed importance sampling: exact densities stay invariant, weights are unbiased, and two bounds meet."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from reference import Call, LinearGaussian
from vaepriors.annealing import Annealing, Bounds, bidirectional, simulate
from vaepriors.annealing.path import AnnealingPath
from vaepriors.distributions import Chain, DiagonalNormal, IndependentBernoulli
from vaepriors.likelihood import ImportanceSampling, estimate
from vaepriors.networks.heads import Counts
from vaepriors.priors import StandardNormal
from vaepriors.refinement import Refinement
from vaepriors.vae import VAE, Marginal

MODELS = {"vae": LinearGaussian.vae, "hvae": LinearGaussian.hvae, "vhp": lambda linear: linear.vae_with_vae_prior(4)}
SHORT = Annealing(chains=8, temperatures=10, leapfrogs=2)


class Bits:
    """z ~ N(0, 1), x of three bits whose logits bend in z, and a posterior that is too narrow and off the mark."""

    def __init__(self) -> None:
        self.x = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0]]).double()
        q = Call(lambda x: DiagonalNormal(0.5 * x.sum(-1, keepdim=True), x.new_full((1,), 0.6)))
        slopes = torch.tensor([3.0, -2.0, 1.0]).double()
        decoder = Call(lambda z: IndependentBernoulli(slopes * z + (2 * z).sin(), 1))
        self.model = VAE(q, decoder, StandardNormal(1).double())

    def log_prob(self) -> torch.Tensor:
        """log p(x) by quadrature."""
        z = torch.linspace(-10, 10, 4001, dtype=torch.float64)[:, None, None]
        joint = self.model.decoder(z).log_prob(self.x) + self.model.prior().log_prob(z)
        return joint.logsumexp(0) + math.log(20 / 4000)


@pytest.mark.parametrize("name", MODELS)
def test_from_the_exact_posterior_every_weight_is_exact(name):
    linear = LinearGaussian()
    result = estimate(MODELS[name](linear), linear.x, SHORT, chunk=24)
    truth = linear.log_prob(linear.x)
    torch.testing.assert_close(result.log_likelihood, truth, rtol=0, atol=1e-9)
    torch.testing.assert_close(result.elbo, truth, rtol=0, atol=1e-9)
    torch.testing.assert_close(result.effective_samples, torch.full((7,), 8.0, dtype=torch.float64))


@pytest.mark.parametrize("name", MODELS)
def test_from_a_wrong_posterior_the_estimate_is_near_and_has_more_effective_draws(name):
    linear = LinearGaussian(scale=1.5)
    torch.manual_seed(0)
    few, many = (estimate(MODELS[name](linear), linear.x, Annealing(50, t)) for t in (1, 50))
    torch.testing.assert_close(many.log_likelihood, linear.log_prob(linear.x), rtol=0, atol=0.25)
    assert many.effective_samples.mean() > 1.3 * few.effective_samples.mean()


def test_rate_and_distortion_are_those_of_the_first_draws():
    linear = LinearGaussian(scale=1.5)
    model, x = linear.vae(), linear.x
    q, p = (Normal(each.loc, each.scale) for each in (model.encoder(x), model.prior()))
    torch.manual_seed(0)
    result = estimate(model, x, Annealing(4000, 3, 2), chunk=10**5)
    spread = (linear.W.square().sum(0) * q.scale.square()).sum(-1) / (2 * linear.t**2)
    distortion = spread - model.decoder(q.loc).log_prob(x)
    torch.testing.assert_close(result.rate, kl_divergence(q, p).sum(-1), rtol=0, atol=0.1)
    torch.testing.assert_close(result.distortion, distortion, rtol=0, atol=0.1)
    torch.testing.assert_close(result.elbo, -result.rate - result.distortion)


@pytest.mark.parametrize(
    "method",
    [Annealing(3, 4, 2), Annealing(3, 4, 2, Refinement(3, 2)), ImportanceSampling(10, Refinement(20, 2))],
    ids=["annealed", "annealed from refined", "refined"],
)
def test_the_exponential_of_the_estimate_is_unbiased(method):
    bits, runs = Bits(), 2000
    torch.manual_seed(0)
    x = bits.x.repeat(runs, 1)
    result = estimate(bits.model, x, method, chunk=10**6).log_likelihood.view(runs, -1)
    ratio = (result - bits.log_prob()).exp()
    error = ratio.std(0) / math.sqrt(runs)
    assert error.max() < 0.05
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all()


def test_transitions_leave_the_density_invariant():
    """Exact draws in; moments of the same distribution out, although the trajectories are coarse."""
    linear = LinearGaussian(scale=1.5)
    exact = LinearGaussian().vae().encoder(linear.x)
    model = linear.vae()
    path = AnnealingPath(model.decoder, model.encoder(linear.x), model.prior(), linear.x)
    torch.manual_seed(0)
    chain = path.at(exact.sample((10_000,)))
    for _ in range(2):
        chain, accepted = path.move(chain, 1.0, torch.full((7, 1), 0.9).double(), leapfrogs=3)
    assert 0.3 < accepted.min() < accepted.max() < 0.98
    standard = (chain.z - exact.loc) / exact.scale
    torch.testing.assert_close(standard.mean(0), torch.zeros(7, 3).double(), rtol=0, atol=0.05)
    torch.testing.assert_close(standard.var(0), torch.ones(7, 3).double(), rtol=0, atol=0.07)


def path_of_a_normal() -> AnnealingPath:
    one = torch.ones(1, 1, dtype=torch.float64)
    unit = DiagonalNormal(0 * one, one)
    return AnnealingPath(lambda z: DiagonalNormal(z, one), unit, unit, one)


def test_step_sizes_vary_so_that_no_trajectory_is_periodic():
    """Two steps of sqrt(2) take each z of N(0, 1) to -z."""
    torch.manual_seed(0)
    path = path_of_a_normal()
    chain = path.start(100)
    moved, _ = path.move(chain, 0.0, math.sqrt(2) / path.spread, leapfrogs=2)
    assert ((moved.z.abs() - chain.z.abs()).abs() > 1e-3).double().mean() > 0.5


def test_a_trajectory_that_leaves_the_finite_numbers_is_not_accepted():
    path = path_of_a_normal()
    chain = path.start(10)
    moved, probability = path.move(chain, 0.0, torch.tensor([[1e200]]).double(), leapfrogs=3)
    assert probability.item() == 0
    assert torch.equal(moved.z, chain.z)


@pytest.mark.parametrize("name", MODELS)
def test_on_data_of_the_model_the_bounds_are_on_both_sides(name):
    linear = LinearGaussian(scale=1.5)
    model = MODELS[name](linear)
    torch.manual_seed(0)
    far, near = (bidirectional(model, 200, method) for method in (Annealing(1, 2, 1), Annealing(4, 20, 2)))
    assert far.lower.shape == far.upper.shape == (200,)
    assert 0 < near.gap < far.gap / 3


def test_the_gap_is_negative_where_the_bounds_have_crossed():
    assert Bounds(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1.0])).gap == -0.5


def test_the_truth_lies_between_the_bounds():
    linear = LinearGaussian(scale=1.5)
    torch.manual_seed(0)
    model, method = linear.vae(), Annealing(1, 3, 1)
    simulated = simulate(model, 1000)
    truth = linear.log_prob(simulated.x)
    lower, upper = method.bounds(model, simulated, chunk=1000)
    for below, above in ((lower, truth), (truth, upper)):
        difference = above - below
        assert difference.mean() > 3 * difference.std() / math.sqrt(1000)
    inverse = (truth - upper).exp()  # E[1 / w] = 1 / p(x)
    assert abs(inverse.mean() - 1) < 4 * inverse.std() / math.sqrt(1000)


def test_bounds_of_counts_with_size_factors_are_of_the_distribution_that_draws_them():
    """The density takes the factor of each row from x, so z is no draw of the posterior that this density has."""
    encoder = Call(lambda x: DiagonalNormal(x.new_zeros(*x.shape[:-1], 1), x.new_ones(1)))
    log_mean = lambda z: torch.cat([z, 2 - z / 2], -1)  # noqa: E731
    prior, method = StandardNormal(1).double(), Annealing(4, 5)
    torch.manual_seed(0)
    counts = VAE(encoder, Call(lambda z: Counts(log_mean(z), 1, 5.0)), prior)
    simulated = simulate(counts, 500)
    lower, upper = method.bounds(counts, simulated, chunk=2000)
    z = torch.linspace(-8, 8, 2001, dtype=torch.float64)[:, None, None]
    drawn = Independent(torch.distributions.Poisson(log_mean(z).exp()), 1).log_prob(simulated.x)
    truth = (drawn + prior().log_prob(z)).logsumexp(0) + math.log(16 / 2000)
    for below, above in ((lower, truth), (truth, upper)):
        difference = above - below
        assert difference.mean() > 3 * difference.std() / math.sqrt(500)


def test_the_u_of_a_hierarchy_is_that_of_its_upper_level():
    torch.manual_seed(0)
    first, z = LinearGaussian().vae_with_vae_prior(4).prior(), torch.randn(5, 7, dtype=torch.float64)
    chain = Chain(first, lambda a: DiagonalNormal(a[..., :1], torch.ones(1).double()), (3, 1))
    upper, both = first.auxiliary(), chain.auxiliary()
    torch.testing.assert_close(both.posterior(z[:, 3:]).loc, upper.posterior(z[:, 3:6]).loc)
    below = Normal(z[:, 3], 1.0).log_prob(z[:, 6])
    torch.testing.assert_close(both.joint.log_prob(z), upper.joint.log_prob(z[:, :6]) + below)


def test_chains_run_in_the_u_of_all_levels_of_a_prior():
    """z3 ~ N(0, I), and z2 = 0.6 z3 + 0.8 e is N(0, I) as before; all posteriors are exact."""
    linear = LinearGaussian()
    model = linear.vae_with_vae_prior(4)
    step = Call(lambda z: DiagonalNormal(0.6 * z, torch.full((3,), 0.8, dtype=torch.float64)))
    above = VAE(step, step, StandardNormal(3).double())
    model.prior().model.prior = Call(lambda: Marginal(above, 4, (3,)))
    result = estimate(model, linear.x, SHORT)
    torch.testing.assert_close(result.log_likelihood, linear.log_prob(linear.x), rtol=0, atol=1e-9)


def test_estimates_do_not_depend_on_how_the_chains_are_split():
    linear = LinearGaussian()
    for chunk in (3, 20, 1000):
        seen = []
        result = estimate(linear.vae(), linear.x, Annealing(8, 3, 1), chunk=chunk, progress=seen.append)
        torch.testing.assert_close(result.log_likelihood, linear.log_prob(linear.x), rtol=0, atol=1e-9)
        assert sum(seen) == 7


def test_random_densities_and_those_without_a_gradient_are_refused():
    linear = LinearGaussian(scale=1.5)
    model = linear.vae()
    inner = linear.vae_with_vae_prior(4).prior()
    random = Marginal(inner.model, 4, (3,))
    random.auxiliary = lambda: None  # an estimated density that says nothing about its u
    flat = DiagonalNormal(torch.zeros(3).double(), torch.ones(3).double())
    flat.log_prob = lambda z: torch.zeros(z.shape[:-1]).double()
    for prior, words in ((random, r"p\(z\).*Marginal.*random"), (flat, r"p\(z\).*gradient")):
        with pytest.raises(ValueError, match=words):
            estimate(model.given(prior=prior), linear.x, SHORT)


def test_wrong_numbers_are_refused():
    for wrong in ({"chains": 0}, {"temperatures": 0}, {"leapfrogs": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Annealing(**wrong)
    with pytest.raises(ValueError, match="n is 0"):
        bidirectional(LinearGaussian().vae(), 0)
