"""Activity of units against closed forms."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import Distribution, Normal

from reference import Call, LinearGaussian
from vaepriors import check, data, networks
from vaepriors.analysis import (
    ImpliedPosterior,
    Surgery,
    active_units,
    activity,
    angle_regression,
    diagnose,
    divergence_of_units,
    elbo_surgery,
    levels,
    responsibilities,
)
from vaepriors.app.experiment import Experiment, build
from vaepriors.data import Dataset
from vaepriors.distributions import Chain, DiagonalNormal, NormalMixture
from vaepriors.priors import SNIS, Resampled, StandardNormal
from vaepriors.vae import VAE


def test_activity_is_the_variance_of_the_posterior_mean():
    linear = LinearGaussian()
    torch.manual_seed(0)
    x = torch.randn(4000, 5, dtype=torch.float64)
    model = linear.vae()
    exact = model.encoder(x).mean.var(0)
    torch.testing.assert_close(activity(model, x, chunk=1500), exact)


def test_an_activity_that_is_not_a_number_is_no_inactive_unit():
    model = LinearGaussian().vae()
    with pytest.raises(ValueError, match="NaN"):
        active_units(model, torch.full((4, 5), math.nan, dtype=torch.float64))


def test_noise_is_not_activity():
    """Units 0 and 1 follow x, of a chain's second level too; units 2 and 3 are noise of a large variance."""

    def encoder(x):
        first = DiagonalNormal(torch.stack([x, 0 * x], -1), torch.tensor([0.1, 3.0]))
        return Chain(first, lambda a: DiagonalNormal(a * torch.tensor([2.0, 0.0]), torch.tensor([0.1, 3.0])), (2, 2))

    torch.manual_seed(0)
    model, x = VAE(Call(encoder), nn.Identity(), nn.Identity()), torch.randn(20_000)
    variances = activity(model, x, n=8)
    torch.testing.assert_close(variances, torch.tensor([1.0, 0, 4, 0], dtype=torch.float64), rtol=0.05, atol=0.05)
    assert active_units(model, x, threshold=0.5) == 2


class Meanless(DiagonalNormal):
    """A distribution that does not know its mean."""

    mean = Distribution.mean


COLLAPSED = {
    "known mean": lambda x: DiagonalNormal(x.new_zeros(len(x), 400), torch.ones(400)),
    "no mean": lambda x: Meanless(x.new_zeros(len(x), 400), torch.ones(400)),
    "chain": lambda x: Chain(  # the lower level follows the upper one, and neither follows x
        DiagonalNormal(x.new_zeros(len(x), 200), torch.ones(200)),
        lambda a: DiagonalNormal(a, torch.ones(200)),
        (200, 200),
    ),
}


@pytest.mark.parametrize("kind", COLLAPSED)
def test_of_400_collapsed_units_none_is_active_whatever_the_number_of_examples(kind):
    model = VAE(Call(COLLAPSED[kind]), nn.Identity(), nn.Identity())
    torch.manual_seed(0)
    for n in (2, 30, 500):
        assert active_units(model, torch.randn(n)) == 0
    if kind == "known mean":
        assert (activity(model, torch.randn(30)) == 0).all()


def test_one_example_has_no_variance():
    with pytest.raises(ValueError, match="at least 2"):
        activity(LinearGaussian().vae(), torch.zeros(1, 5, dtype=torch.float64))


ANGLES = 2 * math.pi * torch.rand(2000, generator=torch.Generator().manual_seed(0))


def ring(angles, turns=1):
    return torch.stack([(turns * angles).cos(), (turns * angles).sin()], 1)


def test_the_angle_of_a_ring_is_read_wherever_it_lies_and_however_it_turns():
    for turns in (1, -1):
        regression = angle_regression(5 - 3 * ring(ANGLES + 1.2, turns), ANGLES)
        assert regression.winding == turns
        assert regression.error < 0.02  # the mean of 2,000 random points is not quite the centre


def test_noise_in_the_angle_is_its_error():
    noise = 0.1 * torch.randn(2000, generator=torch.Generator().manual_seed(1))
    regression = angle_regression(ring(ANGLES + noise), ANGLES)
    assert regression.error == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.05)  # E|noise|
    assert regression.winding == 1


def test_points_that_form_no_ring_do_not_wind_once():
    plane = torch.randn(2000, 2, generator=torch.Generator().manual_seed(2))
    there_and_back = ring(ANGLES.sin())
    assert angle_regression(there_and_back, ANGLES).winding == 0
    assert angle_regression(ring(ANGLES, 2), ANGLES).winding == 2
    assert angle_regression(plane, ANGLES).error > 1


def test_the_error_of_codes_that_are_independent_of_the_angle():
    generator = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(300, 2, generator=generator, dtype=torch.float64)  # noqa: E731
    angles = lambda: 2 * math.pi * torch.rand(300, generator=generator, dtype=torch.float64)  # noqa: E731
    regressions = [angle_regression(noise(), angles()) for _ in range(400)]
    error = torch.tensor([each.error for each in regressions])
    assert error.mean().item() == pytest.approx(1.1, abs=0.05)
    assert error.std().item() == pytest.approx(0.4, abs=0.05)
    assert (error < 0.5).double().mean().item() == pytest.approx(0.05, abs=0.03)
    assert sum(abs(each.winding) == 1 for each in regressions) < 100


def test_an_angle_needs_a_plane():
    with pytest.raises(ValueError, match=r"shape \(5, 3\) and angles \(5,\)"):
        angle_regression(torch.zeros(5, 3), torch.zeros(5))


# ELBO surgery


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("block", [1, 2**22])
def test_surgery_adds_up_and_is_the_sum_over_all_pairs(levels, block):
    linear = LinearGaussian(scale=1.3)
    model = linear.vae() if levels == 1 else linear.hvae()
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen = []
    recording = SimpleNamespace(log_prob=lambda z: seen.append(z) or model.prior().log_prob(z))
    torch.manual_seed(0)
    surgery = elbo_surgery(VAE(model.encoder, model.decoder, Call(lambda: recording)), x, draws=25, block=block)
    (z,) = seen
    assert z.shape == (25, 3 * levels)
    pairs = torch.stack([model.encoder(each).log_prob(z) for each in x])  # (40, 25)
    log_q = pairs.logsumexp(0) - math.log(40)
    torch.manual_seed(0)
    own = pairs[torch.randperm(40)[:25], torch.arange(25)]
    for values, mean, error in (
        (own - log_q, surgery.mutual_information, surgery.mutual_information_se),
        (log_q - model.prior().log_prob(z), surgery.marginal_kl, surgery.marginal_kl_se),
    ):
        assert mean == pytest.approx(values.mean().item(), abs=1e-10)
        assert error == pytest.approx(values.std().item() / 5, rel=1e-9)
    assert surgery.mutual_information + surgery.marginal_kl == pytest.approx(surgery.rate, abs=1e-10)
    assert surgery.log_n == math.log(40)
    assert 0 < surgery.mutual_information < surgery.log_n


def test_surgery_is_of_the_elbo():
    """All draws of many: rate and distortion are those of the model, within five standard errors."""
    linear, x = LinearGaussian(), torch.randn(3000, 5, dtype=torch.float64)
    model = linear.vae()
    surgery = elbo_surgery(model, x)
    exact = linear.log_prob(x).mean().item()  # the posteriors are exact: the ELBO is, too
    assert -surgery.distortion - surgery.rate == pytest.approx(exact, abs=1e-9)
    assert 0 < surgery.mutual_information_se < 0.1
    assert 0 < surgery.marginal_kl_se < 0.2


def test_models_with_the_same_encoder_have_the_same_distortion_and_information():
    """On the same draws, whatever their priors draw: when they are called, or in a density of 1,000 examples."""
    encoder, decoder, base = networks.Encoder((5,), [8], 2), networks.Decoder((5,), [8], 2), StandardNormal(2)
    network, x = networks.scalar(2, [8]), torch.randint(2, (1500, 5)).float()
    parts = []
    for prior in (base, Resampled(base, network, truncation=5), SNIS(base, network, samples=8)):
        torch.manual_seed(0)
        surgery = elbo_surgery(VAE(encoder, decoder, prior), x)
        parts.append((surgery.distortion, surgery.mutual_information))
    assert parts[0] == parts[1] == parts[2]


def test_a_model_in_double_precision_takes_the_points_of_a_data_set():
    model = VAE(networks.Encoder((5,), [8], 2), networks.Decoder((5,), [8], 2), StandardNormal(2)).double()
    x = torch.randint(2, (50, 5)).float()
    torch.testing.assert_close(activity(model, x), activity(model, x.double()))
    for measure in (divergence_of_units, elbo_surgery):
        values = []
        for each in (x, x.double()):
            torch.manual_seed(0)
            values.append(measure(model, each))
        assert str(values[0]) == str(values[1])
    report = check(model, x, draws=200)
    assert report, report


def test_surgery_refuses_probabilities_and_what_is_no_tensor():
    digits = data.load("digits")
    encoder, decoder = networks.Encoder((1, 8, 8), [8], 2), networks.Decoder((1, 8, 8), [8], 2)
    model = VAE(encoder, decoder, StandardNormal(2))
    with pytest.raises(ValueError, match="outside the support"):
        elbo_surgery(model, digits.train)
    assert elbo_surgery(model, digits.fixed_train().x, 100).distortion > 0
    with pytest.raises(ValueError, match="give a tensor"):
        elbo_surgery(model, range(10))


def codes(loc):
    """A model of x in {0, 1, ...} whose code is N(loc(x), 0.1^2)."""
    encoder = Call(lambda x: DiagonalNormal(loc(x)[..., None], torch.tensor([0.1], dtype=torch.float64)))
    return VAE(encoder, Call(lambda z: Normal(z[..., 0], 1.0)), StandardNormal(1).double())


def test_information_of_codes_that_never_meet_is_log_n_and_of_one_for_all_zero():
    x = torch.arange(30, dtype=torch.float64)
    apart, alike = elbo_surgery(codes(lambda x: 10 * x), x), elbo_surgery(codes(lambda x: 0 * x), x)
    assert apart.mutual_information == pytest.approx(math.log(30), abs=1e-9)
    assert alike.mutual_information == pytest.approx(0, abs=1e-9)
    assert alike.rate == pytest.approx(alike.marginal_kl, abs=1e-9)


def test_the_vampprior_of_all_examples_is_their_aggregated_posterior():
    torch.manual_seed(0)
    x = torch.rand(50, 1, 4, 4).round()
    data = Dataset("bits", x, x, x, "bernoulli")
    model, _ = build(Experiment(prior="vamp-data", components=50, hidden=(8,), latent=3), data)
    surgery = elbo_surgery(model, x)
    assert abs(surgery.marginal_kl) < 1e-5
    assert surgery.mutual_information == pytest.approx(surgery.rate, abs=1e-5)
    with pytest.raises(ValueError, match="1 draws of 50 examples: at least 2"):
        elbo_surgery(model, x, draws=1)


@pytest.mark.parametrize(("n", "limited"), [(100, True), (3000, False)])
def test_with_few_examples_the_marginal_kl_is_not_that_of_the_prior(n, limited):
    """x, z ~ N(0, I) and q(z|x) = N(ax, s^2) with a^2 + s^2 = 1: in the limit the prior is perfect."""
    scale = 0.1 * torch.ones(2, dtype=torch.float64)
    encoder = Call(lambda x: DiagonalNormal((1 - scale**2).sqrt() * x, scale))
    model = VAE(encoder, Call(lambda z: DiagonalNormal(z, scale)), StandardNormal(2).double())
    torch.manual_seed(0)
    surgery = elbo_surgery(model, torch.randn(n, 2, dtype=torch.float64))
    assert surgery.limited_by_n == limited
    assert surgery.marginal_kl >= surgery.rate - surgery.log_n
    assert (surgery.marginal_kl < 0.1) == (not limited)


def test_information_within_3_nats_of_log_n_is_limited_by_it():
    parts = Surgery(80.0, 20.0, 6.1, 2.0, 9.0, 0.1, 0.1)
    assert parts.limited_by_n
    assert not parts._replace(mutual_information=5.9).limited_by_n


# The implied posterior


def toy():
    """p(z) = N(0, 1), p(x|z) = N(z^2, 0.5^2) with two modes, and an encoder that covers both badly."""
    one = torch.ones(1, dtype=torch.float64)
    encoder = Call(lambda x: DiagonalNormal(0.4 + 0 * x[..., None], 1.2 * one))
    return VAE(encoder, Call(lambda z: Normal(z[..., 0] ** 2, 0.5)), Call(lambda: DiagonalNormal(0 * one, one)))


GRID = torch.linspace(-7, 7, 1401, dtype=torch.float64)[:, None]


def integral(values):
    return torch.trapezoid(values, GRID[:, 0]).item()


def test_the_implied_posterior_of_one_draw_is_the_encoder():
    model, x = toy(), torch.tensor(1.5, dtype=torch.float64)
    torch.testing.assert_close(ImpliedPosterior(model, x, 1).log_prob(GRID), model.encoder(x).log_prob(GRID))
    with pytest.raises(ValueError, match="samples is 0"):
        ImpliedPosterior(model, x, 0)


@pytest.mark.parametrize("samples", [2, 8])
def test_the_implied_posterior_has_mass_one_its_own_draws_and_a_better_elbo(samples):
    """ELBO(q) < bound of K draws < ELBO(q_EW) < log p(x), each by more than its error."""
    torch.manual_seed(0)
    model, x = toy(), torch.tensor(1.5, dtype=torch.float64)
    implied = ImpliedPosterior(model, x, samples)
    log_density = implied.log_prob(GRID, draws=20_000)
    assert integral(log_density.exp()) == pytest.approx(1, abs=0.01)
    log_joint = model.decoder(GRID).log_prob(x) + model.prior().log_prob(GRID)
    log_p = math.log(integral(log_joint.exp()))
    better = integral(log_density.exp() * (log_joint - log_density))
    weights = model(x.expand(200_000), samples).log_weight
    bound, elbo = weights.logsumexp(0).mean().item() - math.log(samples), weights.mean().item()
    assert elbo + 0.1 < bound
    assert bound + 0.02 < better < log_p - 0.02

    draws = implied.sample((200_000,))[:, 0]
    edges = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5], dtype=torch.float64)
    below = torch.stack([(draws < edge).double().mean() for edge in edges])
    cdf = torch.stack([torch.trapezoid((log_density.exp() * (GRID[:, 0] <= edge)), GRID[:, 0]) for edge in edges])
    assert (below - cdf).abs().max() < 0.015
    assert implied.sample((2, 3)).shape == (2, 3, 1)


# Units, one by one


def test_divergence_of_units_is_that_of_normals():
    """Under a prior of independent units the closed form, whose sum is the rate."""
    linear = LinearGaussian(scale=1.3)
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p, q = linear.vae().prior(), linear.vae().encoder(x)
    exact = torch.distributions.kl_divergence(Normal(q.mean, q.stddev), Normal(p.mean, p.stddev)).mean(0)
    torch.manual_seed(0)
    divergence = divergence_of_units(linear.vae(), x, n=400)
    assert list(divergence) == ["z"]
    torch.testing.assert_close(divergence["z"], exact, rtol=0.03, atol=0.01)


def test_divergence_of_the_units_of_two_levels_adds_up_to_the_rate():
    linear = LinearGaussian(scale=1.3)
    model = linear.hvae()
    torch.manual_seed(0)
    divergence = divergence_of_units(model, linear.x, n=2000)
    rate = model(linear.x, 2000).rate.mean()
    assert {name: len(each) for name, each in divergence.items()} == {"z2": 3, "z1": 3}
    assert (divergence["z2"].sum() + divergence["z1"].sum()).item() == pytest.approx(rate.item(), rel=0.05)


def test_units_under_a_mixture_are_compared_with_its_marginals():
    """Two components in a plane; the first coordinate of z says which, the second is the prior's."""
    loc, scale = torch.tensor([[-3.0, 0], [3, 0]]).double(), torch.ones(2, 2).double()
    encoder = Call(lambda x: DiagonalNormal(torch.stack([3 * x, 0 * x], -1), torch.ones(2).double()))
    model = VAE(encoder, nn.Identity(), Call(lambda: NormalMixture(loc, scale)))
    x = torch.tensor([-1.0, 1.0]).double().repeat(500)
    torch.manual_seed(0)
    divergence = divergence_of_units(model, x, n=20)["z"]
    # log 2, less what the overlap of N(-3, 1) and N(3, 1) takes
    z = torch.linspace(-9, 9, 4001).double()
    q = Normal(torch.tensor(3.0).double(), 1).log_prob(z)
    p = torch.logaddexp(q, Normal(torch.tensor(-3.0).double(), 1).log_prob(z)) - math.log(2)
    exact = torch.trapezoid(q.exp() * (q - p), z).item()
    assert divergence[0].item() == pytest.approx(exact, abs=0.005)
    assert divergence[1].item() == pytest.approx(0, abs=1e-12)


def test_a_hierarchical_prior_reports_its_own_units():
    x = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    data = Dataset("bits", x, x, x, "bernoulli")
    for name, expected in (("vae", {"u": 2}), ("hvae", {"u": 2, "z1": 3})):
        model, _ = build(Experiment(model=name, prior="vhp", hidden=(8,), latent=3, prior_latent=2), data)
        divergence = divergence_of_units(model, x)
        assert {level: len(each) for level, each in divergence.items()} == expected
        assert all((each > -0.1).all() for each in divergence.values())


class Opaque(Distribution):
    """A distribution that knows its joint density only, such as a flow."""

    arg_constraints = {}

    def log_prob(self, value):
        return -value.square().sum(-1)


def test_divergence_of_units_under_unknown_marginals_is_nan_and_not_left_out():
    linear = LinearGaussian()
    flow = Opaque(event_shape=torch.Size([3]), validate_args=False)
    one, two = linear.vae(), linear.hvae()
    assert divergence_of_units(one.given(prior=flow), linear.x)["z"].isnan().tolist() == [True] * 3
    bottom = two.prior().then
    top = divergence_of_units(two.given(prior=Chain(flow, bottom, (3, 3))), linear.x)
    assert top["z2"].isnan().all()
    assert top["z1"].isfinite().all()


def test_responsibilities_are_bayes():
    """Two components of weights 1 : 3, at -1 and 1: at z = 0 the posterior is the prior."""
    mixture = NormalMixture(torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1), torch.tensor([0.0, math.log(3)]))
    torch.testing.assert_close(responsibilities(mixture, torch.zeros(3, 1)), torch.tensor([0.25, 0.75]).double())
    odds = 1 / (3 * math.exp(2 * 0.7)) + 0  # N(0.7; -1) / (3 N(0.7; 1))
    weights = responsibilities(mixture, torch.tensor([[0.7]]))
    torch.testing.assert_close(weights, torch.tensor([odds / (1 + odds), 1 / (1 + odds)]).double())
    mean = responsibilities(mixture, torch.tensor([[0.0], [0.7]]), chunk=1)
    torch.testing.assert_close(mean[0].item(), (0.25 + odds / (1 + odds)) / 2)


def test_levels_are_named_from_the_top():
    linear = LinearGaussian()
    assert levels(linear.vae().encoder(linear.x)) == {"z": slice(0, 3)}
    assert levels(linear.hvae().encoder(linear.x)) == {"z2": slice(0, 3), "z1": slice(3, 6)}


def test_a_diagnosis_names_what_has_collapsed_and_is_silent_of_what_is_well():
    alive, dead = torch.ones(4), torch.zeros(4)
    well = Surgery(80.0, 20.0, 6.0, 2.0, 9.0, 0.1, 0.1)
    assert diagnose({"z": alive}, well, 100.0) == []
    (sentence,) = diagnose({"z2": dead, "z1": alive})
    assert sentence == "Level z2 has collapsed: none of its 4 units follows the data."
    (sentence,) = diagnose({"z": torch.tensor([1.0, 0.0, 1.0, 0.009])})
    assert sentence.startswith("2 of 4 units of z have collapsed")
    assert "(units 1, 3)" in sentence
    (sentence,) = diagnose({}, well._replace(marginal_kl=6.0))
    assert "marginal KL is 6.0 nats, of a rate of 20.0" in sentence
    (sentence,) = diagnose({}, well, 9.9)
    assert "9.9 effective samples" in sentence
    assert diagnose({}, well, 10.0) == []


@pytest.mark.parametrize(("examples", "information"), [(50, 3.78), (10_000, 8.6)])
def test_a_diagnosis_says_that_information_is_limited_by_the_number_of_examples(examples, information):
    log_n = math.log(examples)
    near = Surgery(80.0, 20.0, information, 20.0 - information, log_n, 0.1, 0.1)
    (sentence,) = diagnose({}, near)  # and no second one on the marginal KL, which follows from it
    assert f"log N = {log_n:.2f}" in sentence
    assert f"at least the rate less log N, {20 - log_n:.2f}" in sentence
    far = near._replace(mutual_information=log_n - 3.1, marginal_kl=4.0)
    assert diagnose({}, far) == []
