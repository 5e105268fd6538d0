"""Priors with a learned energy: densities, samplers and gradients against integrals on a line and in the plane."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

from reference import Call, fit_of_samples
from vaepriors import VAE, check, networks
from vaepriors.app.cost import least_memory
from vaepriors.app.experiment import PRIORS, Experiment, build
from vaepriors.data import Dataset
from vaepriors.distributions import DiagonalNormal, NormalMixture
from vaepriors.priors import SNIS, ExemplarPrior, MixtureOfGaussians, Resampled, StandardNormal, TwoLevelPrior

AXIS = torch.linspace(-9, 9, 721, dtype=torch.float64)
STEP = (AXIS[1] - AXIS[0]).item()


def number(z):
    """An energy, or the logit of an acceptance, that is far from constant."""
    return 1.5 * torch.sin(2 * z).sum(-1) - 0.3 * z.square().sum(-1)


class Line(nn.Module):
    """A mixture of two normals on a line, all of it learned."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([[-1.0], [1.5]], dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor([[-0.2], [0.1]], dtype=torch.float64))
        self.logits = nn.Parameter(torch.tensor([0.4, -0.3], dtype=torch.float64))

    def forward(self):
        return NormalMixture(self.loc, self.log_scale.exp(), self.logits)


class Opaque(Line):
    """The same without a path."""

    def forward(self):
        mixture = super().forward()
        return Without(mixture)


class Without(torch.distributions.Distribution):
    def __init__(self, of):
        self.of = of
        super().__init__((), of.event_shape, validate_args=False)

    def log_prob(self, z):
        return self.of.log_prob(z)

    def sample(self, shape=()):
        return self.of.sample(shape)


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([0.3], dtype=torch.float64))
        self.scale = nn.Parameter(torch.tensor([1.2], dtype=torch.float64))

    def forward(self):
        return DiagonalNormal(self.loc, self.scale)


BASES = {"normal": One, "mixture": Line, "without a path": Opaque}


def acceptance_rate(base, logit):
    z = AXIS[:, None]
    return (base().log_prob(z).exp() * logit(z).sigmoid()).sum() * STEP


def density_of_snis(prior, z):
    """E over the proposal of the density with K = 2, integrated."""
    at, u = AXIS[:, None], prior.energy(z)[:, None]
    chance = prior.base().log_prob(at).exp() * STEP
    return prior.base().log_prob(z).exp() * (2 / (1 + (u - prior.energy(at)).exp()) * chance).sum(-1)


def test_snis_of_two_is_its_integral_which_is_a_density():
    torch.manual_seed(0)
    z, n = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None], 1000
    prior = SNIS(Line(), Call(number), 2)
    with torch.no_grad():
        exact = density_of_snis(prior, z)
        p = prior()
        draws = torch.stack([p.log_prob(z).exp() for _ in range(n)])
        assert (density_of_snis(prior, AXIS[:, None]).sum() * STEP).item() == pytest.approx(1, abs=1e-6)
    error = draws.std(0) / math.sqrt(n)
    assert ((draws.mean(0) - exact).abs() < 4.5 * error).all()
    assert (error < 0.05 * exact).all()


@pytest.mark.parametrize("base", BASES)
def test_the_gradient_of_snis_is_that_of_the_integral(base):
    """Of E log_prob over the proposal, with K = 2, in all parameters of the base and in the energy."""
    torch.manual_seed(0)
    size = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    prior = SNIS(BASES[base](), Call(lambda z: size * number(z)), 2)
    parameters = [size, *prior.base.parameters()]
    z, n = torch.tensor([[0.4]], dtype=torch.float64), 500
    at, u = AXIS[:, None], prior.energy(z)
    p = prior.base()
    log_ratio = p.log_prob(z) + math.log(2) - torch.log1p((u - prior.energy(at)).exp())
    exact = torch.autograd.grad((p.log_prob(at).exp() * log_ratio).sum() * STEP, parameters)
    each = [torch.autograd.grad(prior().log_prob(z).sum(), parameters) for _ in range(n)]
    for expected, *drawn in zip(exact, *each, strict=True):
        drawn = torch.stack(drawn)
        error = drawn.std(0) / math.sqrt(n)
        assert ((drawn.mean(0) - expected).abs() <= 4.5 * error + 1e-9).all()


@pytest.mark.parametrize("base", BASES)
def test_the_gradient_of_a_resampled_prior_is_that_of_the_integral(base):
    """Its log-density in training has an error of order 1 / samples, which many samples make small."""
    torch.manual_seed(0)
    size = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
    prior = Resampled(BASES[base](), Call(lambda z: size * number(z)), 5, samples=400_000)
    parameters = [size, *prior.base.parameters()]
    z = torch.tensor([[0.4]], dtype=torch.float64)
    rate, a = acceptance_rate(prior.base, prior.acceptance), prior.acceptance(z).sigmoid()
    weight = a * (1 - (1 - rate) ** 4) / rate + (1 - rate) ** 4
    exact = prior.base().log_prob(z) + weight.log()
    drawn = prior().log_prob(z)
    torch.testing.assert_close(drawn, exact, rtol=0, atol=5e-3)
    for mine, expected in zip(
        torch.autograd.grad(drawn.sum(), parameters), torch.autograd.grad(exact.sum(), parameters), strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-2)


def in_the_plane():
    torch.manual_seed(1)
    return MixtureOfGaussians(2, 3).double()


@pytest.mark.parametrize("truncation", [1, 2, 50])
def test_samples_of_a_resampled_prior_follow_its_density(truncation):
    """With its estimate of Z, which is right within its error, replaced by the integral."""
    prior = Resampled(in_the_plane(), Call(number), truncation, precise=2**15).eval()
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    plane, cell = torch.cartesian_prod(axis, axis), 0.05**2
    with torch.no_grad():
        p = prior()
        exact = (p.base.log_prob(plane).exp() * number(plane).sigmoid()).sum() * cell
        errors = ((exact - p.normalizer.value) / p.normalizer.se).item()
        assert abs(errors) < 4.5
        assert p.normalizer.se < 0.01 * exact
        p = p.shifted(errors)
        assert (p.log_prob(plane).exp().sum() * cell).item() == pytest.approx(1, abs=1e-6)
        assert fit_of_samples(p, -10, 10, n=20_000, cells=20) > 1e-3


@pytest.mark.parametrize("samples", [1, 2, 20])
def test_samples_of_snis_follow_its_density(samples):
    """The mean density at the midpoints of cells, each integrated, over many sets of proposals."""
    torch.manual_seed(0)
    prior = SNIS(Line(), Call(number), samples)()
    sets, n = 2000, 50_000
    with torch.no_grad():
        density = sum(prior.log_prob(AXIS[:, None]).exp() for _ in range(sets)) / sets
        z = prior.sample((n,)).squeeze(-1)
    assert density.sum().item() * STEP == pytest.approx(1, abs=1e-2)
    assert kstest(z.numpy(), lambda t: np.interp(t, AXIS, (density.cumsum(0) - density / 2) * STEP)).statistic < 0.02


@pytest.mark.parametrize("constant", [-2.0, 0.0, 40.0])
@pytest.mark.parametrize("base", BASES)
def test_a_constant_network_or_one_draw_is_the_base(base, constant):
    torch.manual_seed(0)
    base, z = BASES[base](), torch.linspace(-3, 3, 10, dtype=torch.float64)[:, None]
    same = Call(lambda z: torch.full_like(z[..., 0], constant))
    priors = [
        SNIS(base, same, 20),
        SNIS(base, Call(number), 1),
        Resampled(base, same),
        Resampled(base, Call(number), 1),
    ]
    parameters = list(base.parameters())
    for prior, training in product(priors, (True, False)):
        ours, expected = prior.train(training)().log_prob(z), base().log_prob(z)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
        gradients = (torch.autograd.grad(each.sum(), parameters) for each in (ours, expected))
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


@pytest.mark.parametrize("constant", [-16.0, -12.0, -8.0])
@pytest.mark.parametrize("base", [StandardNormal(2), MixtureOfGaussians(2, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_a_constant_acceptance_is_the_base_in_single_precision_whatever_the_truncation(training, base, constant):
    z = torch.zeros(2)
    same = Call(lambda z: torch.full_like(z[..., 0], constant))
    log_prob = Resampled(base, same, 10**6).train(training)().log_prob(z)
    torch.testing.assert_close(log_prob, base().log_prob(z), rtol=0, atol=1e-5)


def test_acceptances_near_zero_and_one_have_finite_densities_and_gradients():
    for logit in (-300.0, 300.0):
        level = torch.tensor(logit, requires_grad=True)
        p = Resampled(StandardNormal(1), Call(lambda z, level=level: level + z[..., 0]))()
        log_prob = p.log_prob(torch.zeros(3, 1))
        assert log_prob.isfinite().all()
        assert torch.autograd.grad(log_prob.sum(), level)[0].isfinite()


def test_no_draws_are_empty():
    for prior in (SNIS(StandardNormal(2), Call(number), 4), Resampled(StandardNormal(2), Call(number))):
        assert prior().sample((0, 3)).shape == (0, 3, 2)


def test_a_proposal_with_all_the_weight_leaves_density_and_gradient_finite():
    torch.manual_seed(0)
    base = Line()
    log_prob = SNIS(base, Call(lambda z: 1000 * z[..., 0]), 3)().log_prob(torch.full((1, 1), 3.0).double())
    gradients = torch.autograd.grad(log_prob.sum(), list(base.parameters()))
    assert all(each.isfinite().all() for each in (log_prob, *gradients))


def test_an_acceptance_moved_by_many_errors_stays_a_probability():
    torch.manual_seed(0)
    p = Resampled(StandardNormal(1), Call(lambda z: 9 * z[..., 0] + 9), precise=50).eval()()
    for errors in (-100, 100):
        moved = p.shifted(errors)
        assert 0 < moved.normalizer.value < 1
        assert moved.log_prob(torch.zeros(3, 1)).isfinite().all()


def test_an_energy_prior_is_the_top_of_a_hierarchy_with_its_normaliser():
    bottom = networks.conditional(2, [8], 3)
    for top in (SNIS(StandardNormal(2), Call(number), 8), Resampled(StandardNormal(2), Call(number)).eval()):
        chain = TwoLevelPrior(top, bottom, (2, 3))()
        z = chain.sample((4, 5))
        assert z.shape == (4, 5, 5)
        assert chain.log_prob(z).shape == (4, 5)
        assert chain.expand((5,)).log_prob(z).shape == (4, 5)
    moved = chain.shifted(2).first.normalizer
    assert moved.value.item() == pytest.approx((chain.normalizer.value + 2 * chain.normalizer.se).item(), rel=1e-5)
    assert TwoLevelPrior(StandardNormal(2), bottom, (2, 3))().normalizer is None


def test_a_check_counts_the_error_of_the_normaliser_but_no_more():
    """Its copy in double precision estimates Z anew, which is no mistake. Z that is off by 30 errors is one."""
    prior = Resampled(StandardNormal(2), Call(lambda z: 3 - 4 * (z - 1).square().sum(-1)), precise=2**14).eval()
    encoder, decoder = networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2)
    for seed in range(4):
        assert check(prior, seed=seed)
        assert check(VAE(encoder, decoder, prior), torch.zeros(5, 4), seed=seed)
    rough = Resampled(prior.base, prior.acceptance, precise=2**8).eval()
    torch.manual_seed(0)
    assert check(rough().shifted(2))  # which is off by much more than the draws of the check err
    failed = {finding.name for finding in check(prior().shifted(30)).failed}
    assert {"normalisation", "bridge"} <= failed


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="samples is 0"):
        SNIS(StandardNormal(2), Call(number), 0)
    with pytest.raises(ValueError, match="truncation is 0"):
        Resampled(StandardNormal(2), Call(number), 0)
    exemplars = ExemplarPrior(networks.Encoder((4,), [8], 2), torch.rand(5, 4), 2)
    for make in (lambda: SNIS(exemplars, Call(number), 4), lambda: Resampled(exemplars, Call(number))):
        with pytest.raises(ValueError, match="ExemplarPrior are training examples"):
            make()
    for prior in (SNIS(StandardNormal(2), nn.Linear(2, 1), 4), Resampled(StandardNormal(2), nn.Linear(2, 1))):
        with pytest.raises(ValueError, match=r"shape \(.*, 1\)"):
            prior().log_prob(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"batch shape \(3,\)"):
        SNIS(Call(lambda: DiagonalNormal(torch.zeros(3, 2), torch.ones(2))), Call(number), 4)()


FLOWS = [{"flow": "nsf", "bins": 4}, {"flow": "maf"}]


@pytest.mark.parametrize("latent", [1, 2])
@pytest.mark.parametrize("options", FLOWS, ids=["nsf", "maf"])
def test_samples_of_a_flow_follow_its_density(options, latent):
    x = torch.rand(20, 4).round()
    torch.manual_seed(0)
    experiment = Experiment(prior="flow", latent=latent, hidden=(8,), prior_hidden=(8,), **options)
    prior = build(experiment, Dataset("test", x, x, x, "bernoulli"))[0].prior.double()
    with torch.no_grad():
        if latent == 2:
            assert fit_of_samples(prior(), -12, 12, n=20_000, cells=20) > 1e-3
            return
        for p in prior.parameters():
            p *= 0.3  # on a line, zuko's start is steeper than the grid is fine
        chance = prior().log_prob(AXIS[:, None]).exp() * STEP
        below = chance.cumsum(0) - chance / 2
        assert chance.sum().item() == pytest.approx(1, abs=1e-3)
        assert kstest(prior().sample((5000,))[:, 0].numpy(), lambda t: np.interp(t, AXIS, below)).pvalue > 1e-3


def test_bins_belong_to_splines():
    assert Experiment(prior="flow").bins == 8
    assert Experiment(prior="flow", flow="maf").bins is None
    for prior in ({"prior": "flow"}, {"prior": "snis", "base": "flow"}):
        with pytest.raises(ValueError, match=r"bins is 4.* maf.*nsf"):
            Experiment(flow="maf", bins=4, **prior)


def test_options_of_a_base_come_with_it():
    experiment = Experiment(prior="snis", base="vamp", components=7)
    assert (experiment.components, experiment.pseudo_inputs, experiment.proposals) == (7, "auto", 1024)
    assert experiment.given() == {"prior": "snis", "base": "vamp", "components": 7}
    assert Experiment.read(vars(experiment)) == experiment
    with pytest.raises(ValueError, match=r"components is 7.* base standard.* base mog or vamp"):
        Experiment(prior="snis", components=7)


@pytest.mark.parametrize("model", ["vae", "hvae"])
@pytest.mark.parametrize("base", ["mog", "vamp", "flow"])
@pytest.mark.parametrize("prior", ["snis", "resampled"])
def test_every_base_trains_and_is_counted(prior, base, model):
    x = torch.rand(20, 1, 4, 4).round()
    small = {"components": 3, "proposals": 8}
    entries = (PRIORS[prior], PRIORS[base])
    options = {name: value for name, value in small.items() if any(name in each.options for each in entries)}
    dataset = Dataset("test", x, x, x, "bernoulli", pseudo=(0.5, 0.1))
    experiment = Experiment(model=model, prior=prior, base=base, latent=3, hidden=(8,), prior_hidden=(8,), **options)
    vae, objective = build(experiment, dataset)
    objective(vae, x)[0].backward()
    assert all(p.grad is not None and p.grad.any() for p in vae.parameters())
    assert vae.sample((2,)).shape == (2, 1, 4, 4)
    memory = least_memory(experiment, dataset)
    assert memory.networks + memory.components == 5 * 4 * sum(p.numel() for p in vae.parameters())
