"""`check` sees the mistakes that published programs have, and passes what is right."""

import json
import math

import pytest
import torch
import zuko
from scipy import stats
from torch import nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Dirichlet,
    Gamma,
    Independent,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Poisson,
    StudentT,
    Uniform,
)

import mistakes
from mistakes import MISTAKES
from reference import Call, LinearGaussian
from vaepriors import VAE, ConditionalVAE, Ignoring, StandardNormal, check, networks
from vaepriors.app.experiment import PRIORS, Experiment, build
from vaepriors.checking import continuous
from vaepriors.checking.report import limit
from vaepriors.checking.subject import RealSubject
from vaepriors.data import Dataset
from vaepriors.distributions import Autoregressive, DiagonalNormal, Multinomial, NormalMixture, naive_pixel_draws
from vaepriors.networks.heads import Counts
from vaepriors.vae import Marginal, Terms


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_seen_and_its_repair_passes(name):
    wrong, right = (side(seed=1) for side in (MISTAKES[name].wrong, MISTAKES[name].right))
    assert {finding.name for finding in wrong.failed} >= set(MISTAKES[name].sees)
    assert right, right


def wide_mixture(kind, k=30, d=40):
    """More dimensions than a known density can follow."""
    generator = torch.Generator().manual_seed(0)
    return kind(torch.randn(k, d, generator=generator), 0.2 + 0.3 * torch.rand(k, d, generator=generator))


@pytest.mark.parametrize(
    "kind", [mistakes.SumOfMarginals, mistakes.VarianceAsDeviation, mistakes.RootTwice, mistakes.StandardDraws]
)
def test_in_many_dimensions_the_identities_without_normaliser_see_a_mistake(kind):
    failed = {finding.name for finding in check(wide_mixture(kind), draws=2000).failed}
    assert failed & {"score", "moves"}
    assert check(wide_mixture(NormalMixture), draws=2000)


def test_components_taken_in_order_are_seen_in_many_dimensions():
    report = check(wide_mixture(mistakes.FirstComponents), draws=2000)
    assert [finding.name for finding in report.failed] == ["order"]


class Sorted(DiagonalNormal):
    def sample(self, sample_shape=()):
        z = super().sample(sample_shape)
        return z.sort(0).values if sample_shape else z


class ShiftedIfFew(DiagonalNormal):
    def sample(self, sample_shape=()):
        z = super().sample(sample_shape)
        return z + 1 if len(z) < 10 else z


@pytest.mark.parametrize("kind", [Sorted, ShiftedIfFew])
def test_draws_that_depend_on_their_place_or_their_number_are_seen(kind):
    failed = {finding.name for finding in check(kind(torch.zeros(2), torch.ones(2)), draws=500).failed}
    assert "order" in failed


def named(name, model="vae"):
    torch.manual_seed(0)
    x = torch.rand(20, 1, 4, 4).round()
    small = {"components": 5, "exemplars": 5, "prior_hidden": (8,)}
    options = {option: value for option, value in small.items() if option in PRIORS[name].options}
    experiment = Experiment(prior=name, model=model, latent=2, hidden=(16,), **options)
    return build(experiment, Dataset("test", x, x, x, "bernoulli"))[0], x


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", PRIORS)
def test_each_prior_of_the_table_passes(name, seed):
    report = check(named(name)[0].prior, draws=1000, seed=seed)
    assert report, report


@pytest.mark.parametrize("name", PRIORS)
def test_a_model_with_each_prior_passes(name):
    model, x = named(name, "hvae")
    report = check(model, x, draws=1000)
    assert report, report


def mixture():
    loc = torch.tensor([[-3.0, 0.0], [2.0, 2.0], [0.0, -1.0]])
    scale = torch.tensor([[0.3, 1.0], [1.0, 0.2], [0.5, 0.5]])
    return MixtureSameFamily(Categorical(torch.tensor([0.2, 0.5, 0.3])), Independent(Normal(loc, scale), 1))


RIGHT = {
    "normal": lambda: Normal(torch.zeros(2, 3), 2.0),
    "multivariate": lambda: MultivariateNormal(torch.ones(3), torch.eye(3) + 0.9),
    "mixture": mixture,
    "student": lambda: Independent(StudentT(torch.full((2,), 3.0)), 1),
    "gamma": lambda: Gamma(torch.tensor(0.5), 1.0),
    "gamma of numbers that round to 0": lambda: Gamma(torch.tensor(0.05), 1.0),
    "log-normal of numbers that overflow": lambda: LogNormal(torch.zeros(2), 20.0),
    "beta": lambda: Independent(Beta(torch.tensor([0.5, 3.0]), 2.0), 1),
    "dirichlet": lambda: Dirichlet(torch.ones(3)),
    "uniform": lambda: Uniform(0.0, 1.0),
    "bernoulli": lambda: Independent(Bernoulli(torch.linspace(0.01, 0.9, 6).reshape(2, 3)), 1),
    "poisson": lambda: Poisson(3.0),
    "binomial": lambda: Independent(Binomial(torch.tensor([20.0, 900.0, 30.0]), torch.tensor([0.3, 0.1, 0.9])), 1),
    "far from 0": lambda: Independent(Normal(torch.full((2,), 100.0), 0.001), 1),
    "rounded": lambda: Independent(Normal(torch.full((1,), 1e4), 0.003), 1),
    "one hot": lambda: OneHotCategorical(torch.tensor([0.2, 0.8])),
    "spline flow": lambda: zuko.flows.NSF(2, transforms=1, hidden_features=(8,)),
    "affine flow": lambda: zuko.flows.MAF(3, transforms=2, hidden_features=(8,)),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", RIGHT)
def test_distributions_of_other_libraries_pass(name, seed):
    torch.manual_seed(0)
    report = check(RIGHT[name](), draws=1000, seed=seed)
    assert report, report


@pytest.mark.parametrize("seed", range(3))
def test_counts_given_their_total_have_no_sum_of_masses(seed):
    torch.manual_seed(seed)
    logits = torch.randn(3)
    for p in (Multinomial(logits, 1, 5), torch.distributions.Multinomial(5, logits=logits), Counts(logits, 1, 4.0)):
        assert [finding.name for finding in check(p, seed=seed).undecided] == ["masses"]
        assert check(p, seed=seed)


def test_rounding_of_a_draw_far_from_0_is_no_mistake():
    joint = check(DiagonalNormal(torch.full((3,), 1e4), torch.full((3,), 0.1)))["joint draw"]
    assert joint.passed, joint


A, S = torch.tensor([1.0, -2.0]), 0.5


def estimated(constant=0.0):
    """N(0, A A' + S^2) as the marginal of a VAE whose posterior is too wide, times exp(constant)."""
    variance = 1 / (1 + A.square().sum() / S**2)
    encoder = Call(lambda z: DiagonalNormal((z @ A)[..., None] * variance / S**2, 1.5 * variance.sqrt()))
    decoder = Call(lambda u: DiagonalNormal(u * A, torch.full_like(A, S)))

    class Scaled(Marginal):
        def log_prob(self, value):
            return super().log_prob(value) + constant

    return Scaled(VAE(encoder, decoder, StandardNormal(1)), 4, (2,))


class SharedNoise(DiagonalNormal):
    """N(0, I) times a number of mean 1 that all values of a call share."""

    def log_prob(self, value):
        return super().log_prob(value) + 0.3 * torch.randn(()) - 0.045


@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_an_estimated_density_counts_its_calls(seed):
    exact = DiagonalNormal(torch.zeros(2), torch.ones(2))
    report = check(SharedNoise(exact.loc, exact.scale), reference=exact, draws=1000, seed=seed)
    assert report, report
    assert report["reference"].error == pytest.approx(0.3 / 40**0.5, rel=0.4)  # of 40 calls


class OwnNoise(DiagonalNormal):
    """N(0, I) times a number of mean 1, another one for each value."""

    def log_prob(self, value):
        log_prob = super().log_prob(value)
        return log_prob + 0.7 * torch.randn_like(log_prob) - 0.245


def test_calls_of_an_estimated_density_are_averaged_as_densities():
    report = check(OwnNoise(torch.zeros(2), torch.ones(2)), draws=1000)
    assert report["normalisation"].passed
    assert report["normalisation"].error < 0.04  # the mean of the logarithms would be too low by 0.245 nats


def test_calls_that_differ_at_a_tenth_of_the_values_decide_nothing():
    class PartlyLost(DiagonalNormal):
        def log_prob(self, value):
            log_prob = super().log_prob(value)
            return log_prob + torch.where(value[..., 0] > 0.8, 3 * torch.randn_like(log_prob) - 4.5, 0.0)

    assert check(PartlyLost(torch.zeros(2), torch.ones(2)), draws=500)["agreement"].passed is None


def weighted_one(of_r, of_p):
    """The mean weight p / r of 10,000 draws of r, its error, and whether too few of them decide it."""
    zero = torch.zeros(10_000, 1, dtype=torch.float64)
    at_r, at_p = (torch.zeros_like(zero) + each.log()[:, None] for each in (of_r, of_p))
    draws = continuous.Draws(zero, zero, zero, at_p, zero, at_r, zero, zero)
    return (each.item() for each in continuous._weighted_mean(draws, 1 + zero[..., None], 1 + zero[..., None]))


def test_a_mean_that_few_weights_decide_is_not_trusted():
    one = torch.ones(10_000, dtype=torch.float64)
    number, error, blind = weighted_one(one, one)
    assert (number, error, blind) == (1, pytest.approx(0.01), False)  # the draws of p say E_r[(p / r)^2] = 1
    first = torch.arange(10_000) < 1
    assert list(weighted_one(torch.where(first, 600.0, one), one))[2]  # 6 % of the sum, of 300 effective draws
    few = torch.where(torch.arange(10_000) < 100, 100.0, 0 * one)
    assert list(weighted_one(few, 100 * one))[2]  # 100 effective draws
    many = torch.where(torch.arange(10_000) < 400, 25.0, 0 * one)
    assert not list(weighted_one(many, 25 * one))[2]


def test_the_density_over_the_reals_has_the_volume_and_vanishes_where_numbers_are_rounded_away():
    """Of Gamma(1, 1) at z = exp(y), log p(z) + y = y - z; in single precision exp(-200) is 0, the support's edge."""
    y = torch.tensor([1.0, 0.0, -200.0], dtype=torch.float64)
    density = RealSubject(Gamma(torch.tensor(1.0), 1.0)).log_density(y.view(3, 1, 1), torch.float32)
    expected = torch.tensor([[1 - math.e], [-1.0], [-math.inf]], dtype=torch.float64)
    torch.testing.assert_close(density, expected, rtol=0, atol=1e-6)


def test_of_an_estimated_density_the_mean_is_compared():
    exact = MultivariateNormal(torch.zeros(2), A.outer(A) + S**2 * torch.eye(2))
    report = check(estimated(), reference=exact)
    assert report["normalisation"].passed
    assert report["regions"].passed
    assert report["reference"].passed
    assert not any(finding.name in ("score", "moves", "bridge") for finding in report)
    wrong = check(estimated(0.2), reference=exact)
    assert [finding.name for finding in wrong.failed] == ["normalisation", "reference"]
    assert wrong["normalisation"].number == pytest.approx(math.exp(0.2), rel=0.05)


def test_the_bridge_has_the_log_of_the_integral():
    class Scaled(MultivariateNormal):
        def log_prob(self, value):
            return super().log_prob(value) - 3.0

    report = check(Scaled(torch.zeros(20), torch.eye(20)))
    assert report["bridge"].number == pytest.approx(-3.0, abs=0.1)
    assert [finding.name for finding in report.failed] == ["normalisation", "bridge"]


def test_a_linear_gaussian_model_has_its_exact_likelihood():
    linear = LinearGaussian(scale=1.1)
    report = check(linear.vae(), linear.x, reference=linear.log_prob, draws=500)
    assert report, report
    assert not check(linear.vae(), linear.x, reference=lambda x: linear.log_prob(x) + 0.5, draws=500)


def test_the_noise_of_a_reference_counts_as_its_error():
    linear = LinearGaussian(scale=1.1)
    noisy = lambda x: linear.log_prob(x) + 0.5 * torch.randn(len(x))  # noqa: E731
    report = check(linear.vae(), linear.x, reference=noisy, draws=500)
    assert report["log-likelihood"].passed
    assert report["log-likelihood"].error > 0.02


def test_a_likelihood_of_few_effective_draws_decides_nothing():
    linear = LinearGaussian()
    far = Call(lambda x: DiagonalNormal(torch.full((len(x), 3), 4.0).double(), torch.full((3,), 0.1).double()))
    model = VAE(far, linear.vae().decoder, linear.vae().prior)
    assert check(model, linear.x, reference=linear.log_prob, draws=500)["log-likelihood"].passed is None


def test_a_density_that_single_precision_rounds_is_seen():
    class Rounded(DiagonalNormal):
        def log_prob(self, value):
            return super().log_prob(value + 1e6 - 1e6)

    class Rough(StandardNormal):
        def forward(self):
            return Rounded(self.loc, self.scale)

    assert check(Rough(2), draws=500)["precision"].passed is False


class WithoutEntropy(VAE):
    def forward(self, x, n=1):
        terms = super().forward(x, n)
        return Terms(terms.log_likelihood, 0 * terms.log_q, terms.log_p, terms.z, terms.likelihood)


def test_terms_are_compared_with_the_parts_of_the_model():
    right, x = mistakes.model()
    wrong = WithoutEntropy(right.encoder, right.decoder, right.prior)
    assert not check(wrong, x, draws=500)["log-weights"].passed


class Sums(Terms):
    @property
    def bound(self):
        return self.log_weight.logsumexp(0)


class WithoutMean(VAE):
    def forward(self, x, n=1):
        return Sums(*super().forward(x, n))


def test_a_bound_that_is_the_log_of_a_sum_is_seen():
    right, x = mistakes.model()
    wrong = check(WithoutMean(right.encoder, right.decoder, right.prior), x, draws=500)
    assert [finding.name for finding in wrong.failed] == ["bound"]
    assert wrong["bound"].number == pytest.approx(math.log(4), abs=1e-4)


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_recurrent_decoder_that_runs_over_examples_or_draws_is_seen(batch_first):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.GRU(2, 8, batch_first=batch_first)

        def forward(self, z):
            return Independent(Normal(self.layer(z)[0], 1.0), 1)

    torch.manual_seed(0)
    model = VAE(networks.Encoder((8,), [8], 2), Recurrent(), StandardNormal(2))
    assert not check(model, torch.randn(5, 8), draws=200)["alone"].passed


def test_a_decoder_without_tails_is_named_in_its_model():
    encoder = networks.Encoder((8, 8), [8], latent=2)
    decoder = Call(lambda z: mistakes.image(mistakes.WithoutTails, z.shape[:-1]))
    report = check(VAE(encoder, decoder, StandardNormal(2)), torch.rand(3, 8, 8))
    assert {"decoder: masses", "decoder: levels"} <= {finding.name for finding in report.failed}


def tiny_images(sharpness, height=2, width=3):
    """Binary pixels that follow the one before by so much."""

    def conditionals(x):
        before = nn.functional.pad(x, (1, 0))[..., :-1]
        return Independent(Bernoulli(logits=sharpness * (before - 0.5)), 3)

    blank = lambda shape: torch.zeros(*shape, 1, height, width)  # noqa: E731
    draws = lambda shape: naive_pixel_draws(conditionals, blank(shape))  # noqa: E731
    support = lambda: Independent(Bernoulli(torch.zeros(1, height, width)), 3).support  # noqa: E731
    return Autoregressive(conditionals, (), (1, height, width), draws=draws, support=support)


def test_masses_of_pixels_that_depend_on_each_other_are_summed_over_all_images():
    report = check(tiny_images(4.0), draws=1000)
    assert report, report
    assert report["masses"].passed
    assert abs(report["masses"].number) < 1e-4


def test_masses_of_many_pixels_that_depend_on_each_other_are_not_summed():
    assert check(tiny_images(4.0, 4, 4), draws=200)["masses"].passed is None


def test_a_highest_value_that_is_too_rare_is_seen_where_all_moves_are_alike():
    class Lowered(Categorical):
        def sample(self, sample_shape=()):
            x = super().sample(sample_shape)
            return torch.where((x == 4) & (torch.rand(x.shape) < 0.5), 3, x)

    assert [finding.name for finding in check(Lowered(torch.ones(5))).failed] == ["levels"]


def test_masses_of_independent_pixels_follow_from_single_changes():
    """Without torch's `Independent`, the sum is that over single pixels, and agrees with it."""
    inner = mistakes.image(mistakes.WithoutTails)
    foreign = Autoregressive(lambda x: inner, (), (8, 8), draws=None, support=lambda: inner.support)
    foreign.sample = inner.sample
    report = check(foreign, draws=1000)
    assert report["masses"].number == pytest.approx(check(inner, draws=1000)["masses"].number, rel=1e-3)


def test_shapes_that_would_broadcast_are_named():
    class Summed(DiagonalNormal):
        def log_prob(self, value):
            return super().log_prob(value)[..., None]

    report = check(Summed(torch.zeros(2), torch.ones(2)))
    assert "(3, 1)" in report["shapes"].meaning
    assert not report


class WrongPath(DiagonalNormal):
    def sample(self, sample_shape=()):
        return super().rsample(sample_shape)

    def rsample(self, sample_shape=()):
        return super().rsample(sample_shape) + 0.5


class WrongJoint(DiagonalNormal):
    def rsample_and_log_prob(self, sample_shape=()):
        z, log_prob = super().rsample_and_log_prob(sample_shape)
        return z, log_prob + 0.1


@pytest.mark.parametrize(("kind", "name"), [(WrongPath, "rsample"), (WrongJoint, "joint draw")])
def test_draws_with_gradients_are_compared_with_the_others(kind, name):
    report = check(kind(torch.zeros(2), torch.ones(2)), draws=500)
    assert [finding.name for finding in report.failed] == [name]


def test_draws_fewer_than_asked_for_are_named():
    class AllComponents(NormalMixture):
        def sample(self, shape=()):
            return super().sample(shape)[:50]

    assert (
        "1500 were asked for"
        in check(AllComponents(torch.zeros(50, 2), torch.ones(50, 2)), draws=1000)["values"].meaning
    )


def test_gradients_that_do_not_arrive_are_named():
    class Detached(StandardNormal):
        def __init__(self):
            super().__init__(2)
            self.shift = nn.Parameter(torch.zeros(2))

        def forward(self):
            return DiagonalNormal(self.shift.detach(), self.scale)

    report = check(Detached(), draws=500)
    assert report["gradients"].passed is None
    assert "shift" in report["gradients"].meaning


def test_the_largest_of_many_right_comparisons_is_within_the_limit():
    for comparisons in (1, 100, 10**6):
        assert 1e-7 < 2 * comparisons * stats.norm.sf(limit(comparisons)) < 1e-6


def test_a_report_is_a_test_and_a_table():
    right, wrong = check(mistakes.mixture()), check(mistakes.mixture(mistakes.RootTwice))
    assert right
    right.raise_if_failed()
    assert len(str(right).splitlines()) == len(right.findings) + 1
    assert not wrong.passed
    with pytest.raises(AssertionError, match="Stein"):
        wrong.raise_if_failed()
    assert "score is 0." in repr(wrong)
    assert len(repr(wrong)) < 240  # what pytest shows of it
    with pytest.raises(KeyError, match="normalisation"):
        right["normalization"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_check_takes_gradients_where_they_are_off(mode):
    prior = mixture()
    with mode():
        assert check(prior)["score"].passed


def test_a_module_with_methods_of_a_distribution_is_called_as_a_model_calls_it():
    class Prior(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(2))

        def forward(self):
            return Independent(Normal(self.loc, 1.0), 1)

        def log_prob(self, z):
            return self().log_prob(z)

        def sample(self, shape=()):
            return self().sample(shape)

    report = check(Prior(), draws=200)
    assert report, report


def test_nothing_outside_changes():
    model, x = mistakes.model()
    model.train()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch.no_grad():
        first = check(model, x, draws=200)
    assert torch.equal(torch.rand(2), expected)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert str(first) == str(check(model, x, draws=200))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: check(mistakes.model()[0]), r"check\(model, x\)"),
        (lambda: check(ConditionalVAE(*[Ignoring(nn.Identity())] * 3), torch.zeros(2, 2)), r"check\(model\(y\), x\)"),
        (lambda: check(mixture(), torch.zeros(2, 2)), "takes no x"),
        (lambda: check(mixture(), draws=10), "draws is 10"),
        (lambda: check(3), "int"),
        (lambda: check(lambda: 3), "int has no log_prob"),
        (lambda: check(mistakes.model()[0], torch.zeros(0, 16)), r"\(0, 16\)"),
        (lambda: check(mistakes.model()[0], [1.0]), "list"),
    ],
)
def test_a_users_mistake_is_one_clear_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_page_shows_the_recorded_output():
    page, recorded = mistakes.PAGE.read_text(), json.loads(mistakes.RECORDED.read_text())
    assert mistakes.rendered(page, recorded) == page
    assert set(recorded["mistakes"]) == set(MISTAKES)
    assert all(f"<!-- mistake {name}: begin -->" in page for name in MISTAKES)


def test_values_outside_of_a_support_are_named_where_torch_does_not_check_them():
    encoder, decoder = networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2)
    x = torch.rand(8, 4).round()
    assert check(VAE(encoder, decoder, StandardNormal(2)), x)["terms"].passed
    report = check(VAE(encoder, decoder, StandardNormal(2)), 255 * x)
    assert "some x is outside" in report["terms"].meaning
    bits = Call(lambda: OneHotCategorical(torch.ones(2), validate_args=False))
    assert "some z of the encoder is outside" in check(VAE(encoder, decoder, bits), x)["terms"].meaning
