"""Every likelihood: masses, densities of SciPy, draws, extremes, support, and what encoders see."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax
from torch.distributions import Distribution

from vaepriors import check, networks, priors
from vaepriors.app.experiment import OBJECTIVES, Experiment, build
from vaepriors.app.likelihoods import HEADS
from vaepriors.data import LIKELIHOODS, Dataset
from vaepriors.distributions import Multinomial, NegativeBinomial, Poisson, residual
from vaepriors.networks.heads import Counts
from vaepriors.networks.layers import ConvToEvent, DenseToEvent

NEW = ("student", "poisson", "negative_binomial", "multinomial", "categorical")
COUNTS = torch.arange(4000, dtype=torch.float64)


def rows(likelihood: str, number: int = 40, size: int = 3) -> torch.Tensor:
    torch.manual_seed(0)
    return LIKELIHOODS[likelihood].example(torch.rand(number, size))


def dataset(likelihood: str) -> Dataset:
    x = rows(likelihood)
    return Dataset("test", x[:30], x[:5], x[5:10], likelihood)


def distribution(likelihood: str, h: torch.Tensor) -> Distribution:
    """p(x|h) of a head with options at their defaults, in double precision, over rows of 3."""
    torch.manual_seed(1)
    choice = HEADS[likelihood]
    options = HEADS.resolve(choice, dict.fromkeys(HEADS.options()))
    head = choice.build(rows(likelihood), **options)(h.shape[-1], (3,)).double()
    for parameter in head.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return head(h.double())


def features(number: int = 1) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(number, 4)


REFERENCES = {
    "student": lambda p, x: stats.t.logpdf(x, p.df, p.loc, p.scale),
    "poisson": lambda p, x: stats.poisson.logpmf(x, p.mean),
    "negative_binomial": lambda p, x: stats.nbinom.logpmf(x, r := p.log_dispersion.exp(), r / (r + p.mean)),
    "categorical": lambda p, x: np.take_along_axis(log_softmax(p.logits, -1), x.long().numpy()[..., None], -1)[..., 0],
}


@pytest.mark.parametrize("likelihood", REFERENCES)
def test_densities_are_those_of_scipy(likelihood):
    p = distribution(likelihood, features(40))
    x = rows(likelihood).double()
    with torch.no_grad():
        expected = torch.as_tensor(REFERENCES[likelihood](p.base_dist, x)).sum(-1)
        torch.testing.assert_close(p.log_prob(x), expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_masses_of_counts_sum_to_one(likelihood):
    each = distribution(likelihood, features()).base_dist
    masses = each.log_prob(COUNTS[:, None]).exp()
    torch.testing.assert_close(masses.sum(0), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close((COUNTS[:, None] * masses).sum(0), each.mean[0], rtol=1e-8, atol=0)
    squares = (COUNTS[:, None] - each.mean).square()
    torch.testing.assert_close((squares * masses).sum(0), each.variance[0], rtol=1e-8, atol=0)


def test_stirlings_series_is_exact_to_rounding():
    x = torch.arange(30, 60, dtype=torch.float64)
    expected = torch.as_tensor(stats.poisson.logpmf(x, x))
    torch.testing.assert_close(Poisson(x.log()).log_prob(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_draws_of_counts_follow_their_masses(likelihood):
    p = distribution(likelihood, features())
    draws = p.sample((20_000,))[:, 0]
    masses = p.base_dist.log_prob(COUNTS[:, None]).double().exp().detach()
    for column in range(3):
        enough = 20_000 * masses[:, column] > 5
        seen = torch.bincount(draws[:, column].long(), minlength=len(COUNTS))
        observed, expected = seen[enough].double(), 20_000 * masses[enough, column]
        observed, expected = [torch.cat([t, (20_000 - t.sum())[None]]) for t in (observed, expected)]
        assert stats.chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("size", [0.0, 1e3, 1e8])
def test_extreme_features_leave_density_and_gradient_finite(likelihood, size):
    h = size * torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    head = HEADS[likelihood].build(rows(likelihood))(4, (3,))
    p = head(h.requires_grad_())
    log_prob = p.log_prob(rows(likelihood, 20))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert h.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    assert p.sample().isfinite().all()


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
def test_single_precision_is_enough_for_large_counts(size):
    torch.manual_seed(0)
    log_mean = (math.log(size) + torch.randn(500, 3)).double()
    r, at_mean = torch.tensor([0.1, 5.0, 500.0]).double(), torch.distributions.Poisson(log_mean.exp()).sample()
    many = NegativeBinomial(log_mean, r.log()).sample()
    for make, x in (
        (lambda to: Poisson(log_mean.to(to)), at_mean),
        (lambda to: NegativeBinomial(log_mean.to(to), r.log().to(to)), many),
        (lambda to: Multinomial(log_mean.to(to), 1, 10), at_mean),
    ):
        exact, single = make(torch.float64).log_prob(x), make(torch.float32).log_prob(x.float())
        assert (single - exact).abs().max() < 0.01


def test_multinomial_counts_agree_with_scipy_also_where_a_probability_is_zero():
    logits, x = torch.tensor([0.3, -math.inf, 1.0, -2.0]).double(), torch.tensor([3.0, 0.0, 4.0, 1.0]).double()
    expected = stats.multinomial.logpmf(x[[0, 2, 3]].numpy(), 8, logits[[0, 2, 3]].softmax(0).numpy())
    logits.requires_grad_()
    p = Multinomial(logits, 1, 8)
    assert p.log_prob(x).item() == pytest.approx(expected, rel=1e-12)
    p.log_prob(x).backward()
    torch.testing.assert_close(logits.grad, (x - 8 * logits.softmax(0)).detach())
    assert p.log_prob(torch.zeros(4).double()) == 0
    assert p.log_prob(torch.ones(4).double()) == -math.inf


def test_huge_counts_keep_a_finite_density_and_gradient():
    x = torch.tensor([[0.0, 2.0**24, 1e5]])
    for likelihood in ("poisson", "negative_binomial"):
        h = features().requires_grad_()
        log_prob = HEADS[likelihood].build(rows(likelihood))(4, (3,))(h).log_prob(x)
        log_prob.sum().backward()
        assert log_prob.isfinite().all()
        assert h.grad.isfinite().all()
        assert LIKELIHOODS[likelihood].contains(x).all()


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
@pytest.mark.parametrize("value", [-1.0, 0.5, 2.0**24 + 2, math.nan, math.inf])
def test_what_is_no_count_is_refused_with_its_place(likelihood, value):
    assert not LIKELIHOODS[likelihood].contains(torch.tensor(value))
    x = rows(likelihood)
    wrong = x.clone()
    wrong[3, 1] = value
    place = "row 3, column 1" if math.isfinite(value) else "point 3"
    with pytest.raises(ValueError, match=f"test: valid holds .*{place}"):
        Dataset("test", x, wrong, x, likelihood)


def test_draws_with_heavy_tails_follow_their_distribution():
    p = distribution("student", features()).base_dist
    torch.manual_seed(0)
    draws = p.sample((20_000,))[:, 0, 0]
    assert stats.kstest(draws, stats.t(p.df, p.loc[0, 0].item(), p.scale[0, 0].item()).cdf).pvalue > 1e-3
    assert p.expand((2, 1, 3)).log_prob(draws[0]).shape == (2, 1, 3)
    torch.testing.assert_close(p.variance, 2 * p.scale**2)  # of 4 degrees of freedom


def test_degrees_of_freedom_are_an_option_and_need_a_mean():
    data = dataset("student")
    model, _ = build(Experiment(likelihood="student", df=7.0, latent=2, hidden=(4,)), data)
    assert model.decoder.head.df == 7
    with pytest.raises(ValueError, match=r"df is 0\.5"):
        build(Experiment(df=0.5), data)


def test_the_total_of_draws_is_an_option():
    data = dataset("multinomial")
    model, _ = build(Experiment(total=9, latent=2, hidden=(4,)), data)
    assert (model.sample((7,)).sum(1) == 9).all()
    with pytest.raises(ValueError, match="total is 16777217"):
        build(Experiment(total=2**24 + 1), data)


def test_the_dispersion_is_that_of_the_variance():
    head = HEADS["negative_binomial"].build(rows("negative_binomial"))(4, (3,))
    head.log_dispersion.data = torch.tensor([-1.0, 0.0, 2.0])
    each, mean = head(features(5)).base_dist, head.log_mean(features(5)).exp()
    torch.testing.assert_close(each.mean, mean)
    torch.testing.assert_close(each.variance, mean + mean**2 / head.log_dispersion.exp())


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_size_factors_multiply_the_means(likelihood):
    x, h = rows(likelihood), features(40)
    total = x.sum(1).mean().item()
    torch.manual_seed(0)
    sized = HEADS[likelihood].build(x, size_factors="total")(4, (3,))(h)
    torch.manual_seed(0)
    plain = HEADS[likelihood].build(x)(4, (3,))(h)
    torch.testing.assert_close(sized.mean, plain.mean)
    torch.testing.assert_close(sized.variance, plain.variance)
    factor = x.sum(1, keepdim=True).clamp(min=1) / total
    torch.testing.assert_close(sized.given(factor.log()).mean, factor * plain.mean)
    torch.testing.assert_close(sized.log_prob(x), sized.given(factor.log()).log_prob(x))
    usual = torch.tensor([[total, 0, 0]])
    torch.testing.assert_close(sized.log_prob(usual), plain.log_prob(usual))
    assert sized.expand((2, 40)).log_prob(x).shape == (2, 40)
    assert sized.sample((5,)).shape == (5, 40, 3)


def test_the_reconstruction_error_of_counts_is_that_given_the_total_of_the_row():
    """Otherwise REWO and GECO would bound how much the totals differ, which no z explains."""
    share = torch.tensor([[0.2, 0.3, 0.5]])
    x = torch.tensor([[20.0, 30.0, 50.0], [2.0, 3.0, 5.0], [0.0, 0.0, 10.0]])
    poisson = Counts((10 * share).log(), 1, 10.0)
    for p in (poisson, Counts((10 * share).log(), 1, 10.0, torch.zeros(3)), Multinomial(share.log(), 1, total=10)):
        expected = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-2.0, -3.0, 5.0]])
        torch.testing.assert_close(residual(p, x), expected, rtol=0, atol=1e-4)
        assert residual(p.expand((4, 3)), x).shape == (4, 3, 3)
    image = Multinomial(torch.zeros(2, 1, 2, 2), event_dims=3, total=4)
    assert (residual(image, torch.full((2, 1, 2, 2), 5.0)).abs() < 1e-5).all()


def test_size_factors_are_an_option_of_counts():
    data = dataset("poisson")
    model, _ = build(Experiment(size_factors="total", latent=2, hidden=(4,)), data)
    assert model.decoder.head.total == pytest.approx(data.train.sum(1).mean().item())
    assert model(data.train, 3).log_likelihood.isfinite().all()
    with pytest.raises(ValueError, match="size_factors is total"):
        build(Experiment(size_factors="total", latent=2, hidden=(4,)), dataset("gaussian"))


@pytest.mark.parametrize("model", ["vae", "hvae", "mlp"])
def test_encoders_see_counts_as_logarithms_and_pseudo_inputs_too(model):
    data = dataset("poisson")
    torch.manual_seed(0)
    options = {"model": model, "latent": 2, "hidden": (8,), "prior": "vamp", "components": 4}
    counts, _ = build(Experiment(**options), data)
    torch.manual_seed(0)
    plain, _ = build(Experiment(**options), Dataset("test", data.train, data.valid, data.test, "gaussian"))
    name = "top" if model == "hvae" else ""
    seen, top = (vae.encoder.get_submodule(name) for vae in (counts, plain))
    torch.testing.assert_close(seen(data.train).mean, top(data.train.log1p()).mean)
    prior = counts.prior.top if model == "hvae" else counts.prior
    torch.testing.assert_close(prior().loc, top(prior.pseudo_inputs.clamp(0).log1p()).mean)
    assert prior.inputs().min() == 0  # noise around zero counts


# a multinomial has a density for each total, and draws with one of them
@pytest.mark.parametrize("likelihood", sorted(set(LIKELIHOODS) - {"multinomial"}))
def test_density_and_sampler_of_a_decoder_are_one_distribution(likelihood):
    torch.manual_seed(0)
    model, _ = build(Experiment(latent=2, hidden=(8,)), dataset(likelihood))
    report = check(model.decoder, torch.randn(6, 2))
    assert report, report


def test_pseudo_inputs_far_below_zero_are_refused():
    with pytest.raises(ValueError, match="pseudo_inputs span"):
        priors.VampPrior(networks.Encoder((3,), [4], 2), torch.randn(9, 3), bounds=(0, math.inf))


COMPOSITIONS = torch.tensor([[a, b, 4 - a - b] for a in range(5) for b in range(5 - a)], dtype=torch.float64)


def test_counts_given_their_total_have_scipys_masses_and_draws():
    p = distribution("multinomial", features())
    total = round(rows("multinomial").sum(1).mean().item())
    probs = (p.mean[0] / total).detach().numpy()
    masses = p.log_prob(COMPOSITIONS).exp().detach()
    assert abs(masses.sum().item() - 1) < 1e-10
    expected = stats.multinomial.logpmf(COMPOSITIONS.numpy(), 4, probs)
    np.testing.assert_allclose(masses.log(), expected, rtol=1e-12)
    four = HEADS["multinomial"].build(rows("multinomial"), total=4)(4, (3,)).double()(features().double())
    draws = four.sample((20_000,))
    assert (draws.sum(-1) == 4).all()
    assert (p.sample((50,)).sum(-1) == total).all()
    observed = (draws == COMPOSITIONS).all(-1).sum(0)
    assert stats.chisquare(observed, 20_000 * four.log_prob(COMPOSITIONS).exp().detach()).pvalue > 1e-3
    torch.testing.assert_close(draws.var(0)[0], four.variance[0], rtol=0.05, atol=0)


def test_all_pixels_of_an_image_share_the_total():
    p = Multinomial(torch.randn(5, 2, 3, 3), event_dims=3, total=7)
    flat = Multinomial(p.logits.flatten(1), event_dims=1, total=7)
    x = p.sample((4,))
    assert x.shape == (4, 5, 2, 3, 3)
    torch.testing.assert_close(p.log_prob(x), flat.log_prob(x.flatten(2)))
    torch.testing.assert_close(p.mean.flatten(1), flat.mean)
    assert p.expand((4, 5)).log_prob(x).shape == (4, 5)


CODES = torch.tensor([[0.0, 2, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1]])  # 2, 3 and 2 categories


def test_a_column_has_the_categories_of_the_training_set():
    torch.manual_seed(0)
    head = HEADS["categorical"].build(CODES)(4, (3,)).double()
    p = head(features(2).double())
    masses = torch.stack([p.log_prob(x).exp() for x in torch.cartesian_prod(*map(torch.arange, (2, 3, 2)))])
    torch.testing.assert_close(masses.sum(0), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-10)
    draws = p.sample((20_000,))
    assert draws.dtype == torch.float64
    torch.testing.assert_close(draws.mean(0), p.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(draws.var(0), p.variance, rtol=0, atol=0.03)
    assert draws.amax((0, 1)).tolist() == [1, 2, 1]


@pytest.mark.parametrize("layer", [ConvToEvent, DenseToEvent])
def test_channels_of_an_image_have_categories_of_their_own(layer):
    x = torch.zeros(5, 2, 3, 3)
    x[0, 0, 1, 1], x[0, 1] = 3, 1
    h = torch.randn(6, 4, 3, 3) if layer is ConvToEvent else torch.randn(6, 4)
    p = HEADS["categorical"].build(x)(4, (2, 3, 3), layer)(h)
    assert p.sample((2000,)).amax((0, 1, 3, 4)).tolist() == [3, 1]
    seen = LIKELIHOODS["categorical"].view(x)(x)
    assert seen.shape == (5, 8, 3, 3)
    assert seen[0, :, 1, 1].tolist() == [0, 0, 0, 1, 0, 1, 0, 0]
    assert (seen.sum(1) == 2).all()


def test_a_category_that_training_has_not_seen_is_refused_with_its_place():
    known = CODES[:2]
    assert Dataset("ok", CODES, known, known, "categorical")
    for split in ("valid", "test"):
        splits = {"valid": known, "test": known} | {split: torch.tensor([[0.0, 2, 1], [1, 1, 2]])}
        with pytest.raises(ValueError, match=f"{split} has the category 2 in row 1, column 2, which the training set"):
            Dataset("mine", CODES, **splits, likelihood="categorical")


@pytest.mark.parametrize("value", [-1.0, 0.5, 2.0**16, math.nan])
def test_what_is_no_code_is_refused(value):
    assert not LIKELIHOODS["categorical"].contains(torch.tensor(value))


@pytest.mark.parametrize("likelihood", NEW)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_has_a_finite_loss_and_gradient(objective, likelihood):
    needed = {name: 0.5 for name, option in OBJECTIVES[objective].options.items() if name == "kappa"}
    options = {"prior": "mog", "components": 4, "latent": 2, "hidden": (8,), "warmup": 0, "samples": 2}
    experiment = Experiment(objective=objective, **options, **needed)
    data = dataset(likelihood)
    vae, loss = build(experiment, data)
    value, _ = loss(vae, data.train)
    value.backward()
    assert value.isfinite()
    assert all(p.grad.isfinite().all() for p in vae.parameters() if p.grad is not None)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_densities_are_in_single_precision_under_autocast(likelihood):
    head = HEADS[likelihood].build(rows(likelihood))(4, (3,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        p = head(features(20))
        log_prob = p.log_prob(rows(likelihood, 20))
    assert log_prob.dtype == p.sample().dtype == torch.float32
    torch.testing.assert_close(log_prob, p.log_prob(rows(likelihood, 20)), rtol=1e-6, atol=1e-4)
