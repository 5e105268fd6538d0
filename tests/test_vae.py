"""The theory: zero variance under the exact posterior, and the order of the bounds under a wrong one."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal

from reference import Call, D, LinearGaussian
from vaepriors import likelihood, networks
from vaepriors.distributions import DiagonalNormal
from vaepriors.likelihood import estimate
from vaepriors.priors import StandardNormal, VampPrior
from vaepriors.vae import VAE, Marginal, Terms, eval_mode


def models(linear: LinearGaussian) -> dict[str, VAE]:
    return {"vae": linear.vae(), "hvae": linear.hvae(), "vae as prior": linear.vae_with_vae_prior(n=3)}


@pytest.mark.parametrize("name", ["vae", "hvae", "vae as prior"])
def test_log_weights_are_log_p_under_the_exact_posterior(name):
    linear = LinearGaussian()
    torch.manual_seed(0)
    log_weight = models(linear)[name](linear.x, n=50).log_weight
    assert log_weight.shape == (50, 7)
    assert (log_weight - linear.log_prob(linear.x)).abs().max() < 1e-10


@pytest.mark.parametrize("name", ["vae", "hvae", "vae as prior"])
def test_bounds_are_ordered_under_a_wrong_posterior(name):
    linear = LinearGaussian(scale=2.0)
    model, exact = models(linear)[name], linear.log_prob(linear.x)
    torch.manual_seed(0)
    terms = model(linear.x, n=100_000)
    elbo, elbo_error = terms.elbo, terms.log_weight.std(0) / math.sqrt(100_000)
    bounds = Terms(*(t.view(50, 2000, 7) for t in terms[:3])).bound  # (2000, 7): 2000 bounds of 50 draws each
    bound, bound_error = bounds.mean(0), bounds.std(0) / math.sqrt(2000)
    assert (elbo + 3 * elbo_error < bound - 3 * bound_error).all()
    assert (bound + 3 * bound_error < exact).all()
    ratio = (bounds - exact).exp()  # unbiased: its mean is 1
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / math.sqrt(2000)).all()


@pytest.mark.parametrize("name", ["vae", "hvae", "vae as prior"])
def test_importance_estimate_is_within_its_error(name):
    linear = LinearGaussian(scale=1.4)
    model, exact = models(linear)[name], linear.log_prob(linear.x)
    torch.manual_seed(0)
    estimates = likelihood.estimate(model, linear.x, samples=5000, chunk=700)
    # the delta method: var(log mean w) = (1 / effective samples - 1 / samples)
    error = (1 / estimates.effective_samples - 1 / 5000).sqrt()
    assert ((estimates.log_likelihood - exact).abs() < 3 * error).all()


def test_terms_against_hand_written_numbers():
    log_q, log_p = torch.tensor([[0.75, 1.5], [1.5, -1.5]]), torch.tensor([[0.25, 0.5], [0.5, -0.5]])
    terms = Terms(torch.tensor([[1.0, -2.0], [3.0, -4.0]]), log_q, log_p)
    assert terms.log_weight.tolist() == [[0.5, -3.0], [2.0, -3.0]]
    assert terms.elbo.tolist() == [1.25, -3.0]
    torch.testing.assert_close(terms.bound[0].item(), math.log((math.exp(0.5) + math.exp(2)) / 2))
    assert terms.bound[1].item() == pytest.approx(-3.0)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_leading_dimensions(batch):
    linear = LinearGaussian()
    x = torch.randn(*batch, D, dtype=torch.float64)
    for model in models(linear).values():
        assert model(x, n=5).log_ratio.shape == (5, *batch)
        assert model(x, n=5).bound.shape == batch


def test_marginal_samples_have_the_exact_covariance():
    linear = LinearGaussian()
    torch.manual_seed(0)
    for model in models(linear).values():
        marginal = Marginal(model, 10, (D,))
        x = marginal.sample((100_000,))
        exact = linear.W @ torch.diag(linear.a**2 + linear.s**2) @ linear.W.T + linear.t**2 * torch.eye(D)
        scale = exact.diagonal().sqrt()
        assert ((x.T.cov() - exact) / (scale[:, None] * scale)).abs().max() < 0.02  # 0.003 is one standard error
        assert marginal.event_shape == (D,)


def test_marginal_density_approaches_the_exact_one():
    linear = LinearGaussian(scale=1.3)
    torch.manual_seed(0)
    estimate = Marginal(linear.vae(), 200_000, (D,)).log_prob(linear.x)
    torch.testing.assert_close(estimate, linear.log_prob(linear.x), rtol=0, atol=0.02)


def test_reconstruction_is_a_distribution_over_x():
    linear = LinearGaussian()
    p = linear.hvae().reconstruct(linear.x)
    assert p.batch_shape == (7,)
    assert p.event_shape == (D,)


def test_posterior_of_another_size_than_the_prior_is_refused():
    linear = LinearGaussian()
    model = VAE(linear.vae().encoder, linear.vae().decoder, LinearGaussian().hvae().prior)
    with pytest.raises(ValueError, match=r"event shape \(6,\).*vector of 3"):
        model(linear.x, n=2)


def normal(dimensions: int, scale: torch.Tensor | None = None) -> Call:
    """A module whose call returns a normal with this number of event dimensions, around its input if it gets one."""
    scale = torch.ones(4) if scale is None else scale
    return Call(lambda *h: Independent(Normal(h[0] if h else torch.zeros(4), scale), dimensions))


@pytest.mark.parametrize(
    ("dimensions", "words"),
    [
        ((0, 1, 1), r"encoder.*event shape \(\).*Independent\(q, 1\)"),
        ((1, 0, 1), r"Independent\(p, 1\)"),
        ((1, 1, 0), r"prior has event shape \(\).*Independent\(p, 1\)"),
        ((0, 0, 0), r"encoder.*Independent\(q, 1\)"),
    ],
)
def test_densities_of_single_coordinates_are_refused(dimensions, words):
    """With sizes that happen to agree, they would broadcast: four examples, four numbers in x and in z."""
    with pytest.raises(ValueError, match=words):
        VAE(*map(normal, dimensions))(torch.zeros(4, 4))


def test_latents_that_are_no_vectors_and_posteriors_without_gradients_are_refused():
    with pytest.raises(ValueError, match=r"event shape \(2, 4\).*flatten"):
        VAE(normal(2), normal(1), normal(1))(torch.zeros(3, 2, 4))
    bits = Call(lambda x: Independent(Bernoulli(logits=x), 1))
    with pytest.raises(ValueError, match="rsample"):
        VAE(bits, normal(1), normal(1))(torch.zeros(3, 4))


def test_a_prior_of_one_coordinate_does_not_broadcast_over_z():
    one = Call(lambda: Independent(Normal(torch.zeros(1), 1.0), 1))
    with pytest.raises(ValueError, match=r"\(1,\).*vector of 4"):
        VAE(normal(1), normal(1), one)(torch.zeros(3, 4))


def test_log_densities_that_autocast_rounds_are_refused():
    encoder = nn.Linear(4, 4)
    model = VAE(Call(lambda x: Independent(Normal(encoder(x), 0.1), 1)), normal(1), normal(1))
    model(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"encoder.*bfloat16.*\.float\(\)"), torch.autocast("cpu", torch.bfloat16):
        model(torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("x", "words"),
    [(3, "x is an int"), ([0.0], "x is a list"), (torch.zeros(3, 4).numpy(), "x is an ndarray.*from_numpy"),
     (torch.full((3, 4), math.nan), "not finite")],
)  # fmt: skip
def test_an_estimate_refuses_what_is_no_data(x, words):
    with pytest.raises(ValueError, match=words):
        estimate(VAE(normal(1), normal(1), normal(1)), x, 5)


def test_parts_are_modules():
    with pytest.raises(ValueError, match="prior is a Normal"):
        VAE(normal(1), normal(1), Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="n is 0"):
        VAE(normal(1), normal(1), normal(1))(torch.zeros(3, 4), 0)


def test_shapes_that_would_broadcast_to_another_density_are_refused():
    """Images without a channel, a decoder with one: every pixel row would be compared with every image."""

    class Decoder(nn.Module):
        def forward(self, z):
            return Independent(Normal(torch.zeros(*z.shape[:-1], 1, 4, 4), 1.0, validate_args=False), 3)

    class Encoder(nn.Module):
        def forward(self, x):
            return DiagonalNormal(torch.zeros(len(x), 2), torch.ones(2))

    model = VAE(Encoder(), Decoder(), StandardNormal(2))
    assert model(torch.zeros(3, 1, 4, 4), n=2).bound.shape == (3,)
    with pytest.raises(ValueError, match=r"\(3, 4, 4\).*\(1, 4, 4\)"):
        model(torch.zeros(3, 4, 4), n=2)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float16, torch.bfloat16])
def test_data_of_other_dtypes_are_refused(dtype):
    model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), StandardNormal(2))
    for call in (model, lambda x: estimate(model, x, 2)):
        with pytest.raises(ValueError, match=str(dtype)):
            call(torch.ones(3, 4, dtype=dtype))


class Reshaping(nn.Module):
    """A decoder for z of shape (N, 2) only."""

    def __init__(self, shape):
        super().__init__()
        self.layer, self.shape = nn.Linear(2, 4), shape

    def forward(self, z):
        return Independent(Normal(self.layer(z).view(self.shape(z)), 1.0), 2)


@pytest.mark.parametrize("shape", [lambda z: (len(z), 2, 2), lambda z: (-1, 2, 2)])
def test_a_decoder_must_take_any_leading_dimensions(shape):
    model = VAE(networks.Encoder((2, 2), [8], 2), Reshaping(shape), StandardNormal(2))
    with pytest.raises(ValueError, match=r"any leading dimensions.*z\.shape\[:-1\]"):
        model(torch.zeros(3, 2, 2), n=5)


def test_other_errors_of_a_decoder_are_raised_unchanged():
    model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 3), StandardNormal(2))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        model(torch.zeros(3, 4))


@pytest.mark.parametrize("part", ["encoder", "decoder", "prior"])
def test_a_part_that_returns_no_distribution_is_named(part):
    parts = {"encoder": networks.Encoder((4,), [8], 2), "decoder": networks.Decoder((4,), [8], 2)}
    parts = parts | {"prior": StandardNormal(2)} | {part: Call(lambda *inputs: (torch.zeros(2), torch.ones(2)))}
    with pytest.raises(ValueError, match=f"the {part} returned a tuple"):
        VAE(**parts)(torch.zeros(3, 4))


def test_each_part_is_back_in_its_own_mode_also_one_that_others_share():
    encoder, decoder = networks.Encoder((4,), [4], 2), networks.Decoder((4,), [4], 2)
    model = VAE(encoder.eval(), decoder, VampPrior(encoder, torch.rand(3, 4)))
    with eval_mode(model):
        assert not any(part.training for part in model.modules())
    assert (model.training, encoder.training, model.prior.training) == (True, False, True)


def test_a_number_is_refused_as_the_shape_of_a_sample():
    with pytest.raises(ValueError, match=r"shape is 3: give a tuple, such as sample\(\(3,\)\)"):
        LinearGaussian().vae().sample(3)
