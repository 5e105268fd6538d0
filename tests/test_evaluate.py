"""Streamed estimates: every draw counted once, whatever the chunks."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.distributions import Gamma, HalfNormal, Independent, Uniform, constraints

import vaepriors
from conftest import RunOn
from reference import Call, LinearGaussian
from vaepriors import likelihood, networks
from vaepriors.annealing import Annealing
from vaepriors.app.evaluation import Paused, evaluate_run, measure_normalizer, summary
from vaepriors.app.experiment import Experiment, build
from vaepriors.app.run import Run
from vaepriors.app.train import fit
from vaepriors.data import Dataset
from vaepriors.data import load as load_data
from vaepriors.distributions import DiagonalNormal
from vaepriors.likelihood import Estimate, ImportanceSampling, estimate
from vaepriors.networks.heads import BernoulliHead, GaussianHead, LogisticHead
from vaepriors.priors import VHP, Resampled, StandardNormal
from vaepriors.refinement import Refinement
from vaepriors.vae import VAE, Terms


class Recorder(VAE):
    """log w of the draws of an image are 0, 1, 2, ..., all shifted; the sizes of what is weighed are kept."""

    def __init__(self, shift=0.0) -> None:
        q = DiagonalNormal(torch.zeros(1), torch.ones(1))
        self.calls = {"encoder": 0, "prior": 0}
        super().__init__(
            Call(lambda x: self._count("encoder", q)), nn.Identity(), Call(lambda: self._count("prior", q))
        )
        self.weighed, self.drawn, self.shift = [], 0, shift

    def _count(self, name, q):
        self.calls[name] += 1
        return q

    def given(self, posterior=None, prior=None):
        if posterior is None:
            self.prior = Call(lambda: prior)
            return self
        self.drawn = 0
        return self._weigh

    def _weigh(self, x, n):
        self.weighed.append((n, len(x)))
        log_w = torch.arange(self.drawn, self.drawn + n, dtype=torch.float64)[:, None].expand(n, len(x))
        self.drawn += n
        return Terms(2 * log_w - 1 + self.shift, log_w, torch.ones(()))


@pytest.mark.parametrize("chunk", [1, 3, 7, 10, 16, 40, 1000])
def test_every_draw_counts_once_for_any_chunk(chunk):
    model, samples = Recorder(), 10
    estimates = estimate(model, torch.zeros(5, 1), samples, chunk=chunk)
    log_w = torch.arange(10, dtype=torch.float64)
    w = log_w.exp()
    expected = [w.mean().log(), log_w.mean(), log_w.mean() - 1, 1 - 2 * log_w.mean(), w.sum() ** 2 / (w**2).sum()]
    for actual, value in zip(estimates, expected, strict=True):
        torch.testing.assert_close(actual, value.expand(5), rtol=1e-12, atol=0)
    assert sum(n * images for n, images in model.weighed) == 50
    assert max(n * images for n, images in model.weighed) <= max(chunk, 1)
    assert model.calls["prior"] == 1
    assert model.calls["encoder"] == 1 + -(-5 // max(1, chunk // samples))  # to check x, and for each group of images


def test_exact_posterior_gives_the_exact_likelihood_and_all_samples_effective():
    linear = LinearGaussian()
    estimates = estimate(linear.hvae(), linear.x, samples=100, chunk=30)
    torch.testing.assert_close(estimates.log_likelihood, linear.log_prob(linear.x), rtol=0, atol=1e-10)
    torch.testing.assert_close(estimates.elbo, linear.log_prob(linear.x), rtol=0, atol=1e-10)
    torch.testing.assert_close(estimates.effective_samples, torch.full((7,), 100.0, dtype=torch.float64))


def test_rate_and_distortion_add_up_and_bounds_are_ordered():
    linear = LinearGaussian(scale=1.5)
    estimates = estimate(linear.vae(), linear.x, samples=500)
    torch.testing.assert_close(estimates.elbo, -estimates.rate - estimates.distortion)
    assert (estimates.elbo < estimates.log_likelihood).all()
    assert (estimates.effective_samples > 1).all()
    assert (estimates.effective_samples < 500).all()


@pytest.mark.parametrize("method", [50, ImportanceSampling(50, Refinement(steps=5)), Annealing(5, 5)])
def test_inference_mode_changes_no_number(method):
    linear = LinearGaussian(scale=1.5)
    model = linear.vae()
    torch.manual_seed(0)
    expected = estimate(model, linear.x, method).log_likelihood
    torch.manual_seed(0)
    with torch.inference_mode():
        assert torch.equal(estimate(model, linear.x, method).log_likelihood, expected)


def test_log_likelihood_is_that_of_the_estimate():
    linear = LinearGaussian(scale=1.5)
    torch.manual_seed(0)
    values = likelihood.log_likelihood(linear.vae(), linear.x, samples=50, chunk=20)
    torch.manual_seed(0)
    assert torch.equal(values, estimate(linear.vae(), linear.x, 50, chunk=20).log_likelihood)


def test_the_look_at_the_data_takes_no_draws():
    linear = LinearGaussian(scale=1.5)
    torch.manual_seed(0)
    ours = estimate(linear.vae(), linear.x, 50).log_likelihood
    torch.manual_seed(0)
    torch.testing.assert_close(ours, linear.vae()(linear.x, 50).bound)


def test_a_posterior_is_fitted_under_the_given_prior_to_as_many_examples_as_its_draws_allow():
    class Recording:
        draws = 10
        seen = []

        def __call__(self, model, x):
            self.seen.append((len(x), model.prior()))
            return model.encoder(x)

    linear, prior = LinearGaussian(), StandardNormal(3).double()()
    ImportanceSampling(100, Recording()).weigh(linear.vae(), prior, linear.x, 40, lambda images: None)
    assert Recording.seen == [(4, prior), (3, prior)]


def test_log_weights_in_single_precision_are_added_up_in_double():
    class Single(Recorder):
        def _weigh(self, x, n):
            zero = torch.zeros(n, len(x))
            return Terms(zero - 1e5, zero + 2**-10, zero)

    result = estimate(Single(), torch.zeros(2, 1), 10)
    for each in (result.log_likelihood, result.elbo):
        torch.testing.assert_close(each, torch.full((2,), -1e5 - 2**-10, dtype=torch.float64), rtol=0, atol=1e-9)


def test_codes_that_are_not_numbers_give_no_number():
    lost = Call(lambda x: DiagonalNormal(torch.full((len(x), 2), math.nan), torch.ones(2)))
    model = VAE(lost, networks.Decoder((4,), [4], 2), StandardNormal(2))
    assert estimate(model, torch.zeros(3, 4), 5).log_likelihood.isnan().all()


def test_the_draws_of_a_prior_that_is_a_vae_count_as_memory():
    inner = VAE(networks.Encoder((2,), [4], 2), networks.conditional(2, [4], 2), StandardNormal(2))
    model = VAE(networks.Encoder((4,), [4], 2), networks.Decoder((4,), [4], 2), VHP(inner, 10**15))
    with pytest.raises(ValueError, match="the prior's own draws"):
        estimate(model, torch.zeros(3, 4), 1)


def test_evaluation_turns_dropout_off_and_on_again():
    linear = LinearGaussian()
    model = linear.vae()
    model.decoder = nn.Sequential(nn.Dropout(0.9), model.decoder)
    estimates = estimate(model, linear.x, samples=10)
    torch.testing.assert_close(estimates.log_likelihood, linear.log_prob(linear.x), rtol=0, atol=1e-10)
    assert model.decoder[0].training


def test_very_small_likelihoods_do_not_underflow():
    """Log-weights near -10^5, as of large images, keep their differences."""
    estimates = estimate(Recorder(shift=-1e5), torch.zeros(1, 1), 10, chunk=4)
    expected = torch.arange(10, dtype=torch.float64).logsumexp(0) - math.log(10) - 1e5
    torch.testing.assert_close(estimates.log_likelihood[0], expected, rtol=0, atol=1e-9)


def test_summary_has_the_standard_error_and_bits_of_the_image():
    two = torch.tensor([-1.0, -3.0], dtype=torch.float64)
    estimates = Estimate(two, two - 1, torch.ones(2), torch.ones(2), torch.tensor([3.0, 5.0]))
    x = torch.full((2, 1, 2, 2), 0.5 / 256)
    result = summary(estimates, Dataset("t", x, x, x, "logistic256"), True)
    assert result["nll"] == 2
    assert result["nll_se"] == pytest.approx(math.sqrt(2) / math.sqrt(2))
    assert result["bits_per_dim"] == pytest.approx(2 / (4 * math.log(2)))
    assert (result["effective_samples_mean"], result["effective_samples_min"]) == (4, 3)
    assert summary(estimates, Dataset("t", x, x, x, "gaussian"), False)["bits_per_dim"] is None


@pytest.mark.parametrize("chunk", [None, 7])
def test_an_evaluation_stopped_again_and_again_ends_with_the_same_numbers(tmp_path, images, chunk):
    data = load_data(str(images))
    more = Dataset("more", *[x.repeat(6, 1, 1, 1) for x in (data.train, data.valid, data.test)], "bernoulli", True)
    run = RunOn(tmp_path, more)
    fit(Experiment(data="more", hidden=(8,), latent=2, epochs=1, accelerator="cpu"), more, run)
    straight = evaluate_run(run, samples=200, chunk=chunk)
    expected = np.load(run / "log_likelihood.npy")
    assert len(expected) == 30
    done = []
    for call in range(2):
        with pytest.raises(Paused, match=f"stopped after {10 * call + 10} of 30 examples"):
            evaluate_run(run, samples=200, chunk=chunk, progress=lambda n, total: done.append(n), until=0.0)
    assert (run / "evaluation.partial").is_file()
    again = evaluate_run(run, samples=200, chunk=chunk, progress=lambda n, total: done.append(n), until=0.0)
    assert done == sorted(set(done))
    assert done[-1] == 30
    assert {**again, "seconds": 0} == {**straight, "seconds": 0}
    assert np.array_equal(np.load(run / "log_likelihood.npy"), expected)
    assert not (run / "evaluation.partial").exists()
    with pytest.raises(Paused):
        evaluate_run(run, samples=200, chunk=chunk, until=0.0)
    other = evaluate_run(run, samples=200, chunk=chunk, seed=1)  # what was begun is of another seed
    assert other["nll"] != straight["nll"]
    assert len(np.load(run / "log_likelihood.npy")) == 30


def test_an_interrupted_evaluation_keeps_what_is_done(tmp_path, images):
    """Of 23 examples, in blocks of ten."""

    def interrupt(done, total):
        if done == 14:
            raise KeyboardInterrupt

    run = Run(tmp_path)
    fit(Experiment(data=str(images), hidden=(8,), latent=2, epochs=1, accelerator="cpu"), load_data(str(images)), run)
    options = {"samples": 200, "chunk": 200, "split": "train"}
    expected = evaluate_run(run, **options)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, **options, progress=interrupt)
    counts = []
    resumed = evaluate_run(run, **options, progress=lambda done, total: counts.append(done))
    assert counts == list(range(11, 24))
    assert {**resumed, "seconds": 0} == {**expected, "seconds": 0}


def test_the_error_of_a_normaliser_is_part_of_that_of_the_likelihood():
    """If a draw is certainly accepted, log p(x) falls by log(1 + se / Z), for each x, as Z rises by its error."""
    torch.manual_seed(0)
    prior = Resampled(StandardNormal(2), Call(lambda z: z.sum(-1)), truncation=1000, precise=50)
    model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), prior)
    x, result, method = torch.zeros(5, 4), {"seed": 3, "nll_se": 0.1}, ImportanceSampling(20)
    more = measure_normalizer(model, x, result, method, None)
    share = math.log1p(more["normalizer_se"] / more["normalizer"])
    assert more["nll_se"] == pytest.approx(math.hypot(0.1, share), rel=1e-4)
    assert 0.01 < more["normalizer_se"] < 0.1
    assert more == measure_normalizer(model, x, result, method, None)
    assert measure_normalizer(model.given(prior=StandardNormal(2)()), x, result, method, None) == {}


def test_a_normaliser_is_the_same_after_an_interruption(tmp_path, images):
    data = load_data(str(images))
    more = Dataset("more", data.train, data.valid, data.test.repeat(4, 1, 1, 1), "bernoulli", True)
    run = RunOn(tmp_path, more)
    options = {"model": "hvae", "prior": "resampled", "prior_hidden": (8,), "hidden": (8,), "latent": 2}
    fit(Experiment(data="more", epochs=1, accelerator="cpu", **options), more, run)
    straight = evaluate_run(run, samples=100)
    with pytest.raises(Paused):
        evaluate_run(run, samples=100, until=0.0)
    assert {**evaluate_run(run, samples=100), "seconds": 0} == {**straight, "seconds": 0}
    assert 0 < straight["normalizer"] < 1
    assert straight["normalizer_se"] < 1e-3


@pytest.mark.parametrize(("samples", "chunk", "images"), [(0, 10, 2), (5, 0, 2), (5, 10, 0)])
def test_nothing_to_estimate_is_refused(samples, chunk, images):
    linear = LinearGaussian()
    with pytest.raises(ValueError, match="is 0: at least 1 is needed"):
        estimate(linear.vae(), linear.x[:images], samples, chunk=chunk)


def test_a_number_of_samples_is_whole():
    linear = LinearGaussian()
    with pytest.raises(ValueError, match=r"samples is 1000\.0.*whole"):
        estimate(linear.vae(), linear.x, 1e3)


def test_fewer_pairs_at_a_time_suit_convolutions_on_a_cpu():
    x = torch.zeros(1, 1, 8, 8)
    data = Dataset("bits", x, x, x, "bernoulli")
    for model, chunk in (("convhvae", 64), ("pixelhvae", 64), ("hvae", 1000), ("vae", 1000)):
        vae, _ = build(Experiment(model=model, hidden=(4,), latent=2), data)
        seen = []
        weigh = lambda model, prior, x, pairs, progress, seen=seen: seen.append(pairs)  # noqa: E731
        estimate(vae, x, SimpleNamespace(draws=1500, weigh=weigh))
        assert seen == [chunk], model


@pytest.mark.parametrize(
    ("head", "x", "words"),
    [
        (BernoulliHead, 0.5, "1 of 3 x"),
        (LogisticHead, 1.01, "1 of 3 x"),
        (GaussianHead, math.inf, "1 of 3 x have values that are not finite, the first in row 1"),
        (GaussianHead, math.nan, "1 of 3 x .* row 1"),
    ],
)
def test_data_outside_of_the_support_are_refused(head, x, words):
    model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2, head=head), StandardNormal(2))
    data = torch.zeros(3, 4)
    assert estimate(model, data, 2).log_likelihood.isfinite().all()
    data[1, 2] = x
    with pytest.raises(ValueError, match=words):
        estimate(model, data, 2)
    with pytest.raises(ValueError, match=r"float64.*float32"):
        estimate(model, data.double(), 2)


def test_codes_outside_of_a_bounded_prior_weigh_nothing():
    """p(z) uniform on [-1, 1], p(x|z) = N(z, 0.5^2): p(x) = (Phi((x + 1) / 0.5) - Phi((x - 1) / 0.5)) / 2."""
    near = Call(lambda mean: DiagonalNormal(mean, torch.full_like(mean, 0.5)))
    uniform = Uniform(-torch.ones(1), torch.ones(1), validate_args=False)
    model = VAE(near, near, Call(lambda: Independent(uniform, 1, validate_args=False)))
    x = torch.tensor([[0.0], [0.9], [1.5]], dtype=torch.float64)
    torch.manual_seed(0)
    result = estimate(model, x, 200_000)
    truth = np.log((norm.cdf((x + 1) / 0.5) - norm.cdf((x - 1) / 0.5)) / 2)[:, 0]
    assert result.log_likelihood.tolist() == pytest.approx(truth.tolist(), abs=0.01)


@pytest.mark.parametrize("method", [5, ImportanceSampling(5, Refinement(2)), Annealing(2, 3)])
@pytest.mark.parametrize("validate_args", [True, False])  # False as after the import of zuko
def test_codes_outside_of_the_support_of_the_prior_are_refused(method, validate_args):
    encoder, decoder = networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2)
    gamma = Gamma(torch.ones(2), 1.0, validate_args=validate_args)
    model = VAE(encoder, decoder, Call(lambda: Independent(gamma, 1, validate_args=validate_args)))
    with pytest.raises(ValueError, match=r"q\(z\|x\) are outside the support of p\(z\)"):
        estimate(model, torch.zeros(3, 4), method)


def test_codes_must_vanish_wherever_they_are_outside_of_the_support():
    class Half(HalfNormal):
        """Its density is 0 below 0, but not above 1."""

        support = constraints.interval(0.0, 1.0)

    model = VAE(
        networks.Encoder((4,), [8], 2),
        networks.Decoder((4,), [8], 2),
        Call(lambda: Independent(Half(torch.ones(2), validate_args=False), 1, validate_args=False)),
    )
    with pytest.raises(ValueError, match=r"q\(z\|x\) are outside the support of p\(z\)"):
        estimate(model, torch.zeros(3, 4), 5)


def test_an_example_without_a_finite_likelihood_is_named_and_nothing_is_written(tmp_path):
    """The square of its distance is more than the largest float; a mean of -inf would be no evaluation."""
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    data = Dataset("some", x[:20], x[20:25], x[25:], "gaussian")
    run = RunOn(tmp_path / "run", data)
    fit(Experiment(hidden=(4,), latent=2, epochs=1, accelerator="cpu"), data, run)
    far = x[25:].clone()
    far[12, 0] = 1e25
    np.save(tmp_path / "far.npy", far.numpy())
    before = sorted(run.folder.iterdir())
    with pytest.raises(ValueError, match=r"log p\(x\) of the example in row 12 is -inf"):
        evaluate_run(run, samples=5, file=tmp_path / "far.npy")
    with pytest.raises(ValueError, match=r"log p\(x\) of the example in row 12 is -inf"):  # of five, the last one
        evaluate_run(run, samples=5, file=tmp_path / "far.npy", number=5)
    assert sorted(run.folder.iterdir()) == before
    model, _ = run.model(data)
    with pytest.raises(ValueError, match="row 12 is -inf"):
        vaepriors.report(model, dataclasses.replace(data, test=far), tmp_path / "page.html", samples=5)
