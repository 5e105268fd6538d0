"""Priors: their densities, their samplers, and what a VampPrior shares with its encoder."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.distributions import Independent, Laplace, MultivariateNormal, Normal

from reference import Call, fit_of_samples
from vaepriors import networks
from vaepriors.app.experiment import PRIORS, Experiment, build
from vaepriors.data import Dataset
from vaepriors.distributions import DiagonalNormal
from vaepriors.priors import VHP, ExemplarPrior, MixtureOfGaussians, StandardNormal, TwoLevelPrior, VampPrior
from vaepriors.vae import VAE

SHAPE = (1, 4, 4)
EXACT = [name for name, choice in PRIORS.items() if not choice.facts.get("estimated")]


def encoder(latent: int = 2) -> networks.Encoder:
    torch.manual_seed(0)
    return networks.Encoder(SHAPE, [16], latent).double()


def vamp(**options) -> VampPrior:
    return VampPrior(encoder(), torch.rand(10, *SHAPE, dtype=torch.float64), **options)


def named(name: str) -> nn.Module:
    """A prior of the table of choices, in the plane."""
    torch.manual_seed(0)
    x = torch.rand(20, *SHAPE).round()
    small = {"components": 5, "exemplars": 5, "prior_hidden": (8,)}
    options = {option: value for option, value in small.items() if option in PRIORS[name].options}
    experiment = Experiment(prior=name, latent=2, hidden=(16,), **options)
    return build(experiment, Dataset("test", x, x, x, "bernoulli"))[0].prior.double()


def special_priors() -> dict[str, nn.Module]:
    weighted = vamp(weighted=True)
    weighted.logits.data = torch.linspace(-3, 3, 10, dtype=torch.float64)
    bottom = networks.conditional(1, [8], 1).double()
    return {
        "weighted": weighted,
        "two levels": TwoLevelPrior(MixtureOfGaussians(1, 3).double(), bottom, (1, 1)),
    }


@pytest.mark.parametrize("name", [*EXACT, *special_priors()])
def test_samples_follow_the_density(name):
    prior = named(name) if name in EXACT else special_priors()[name]
    torch.manual_seed(2)
    with torch.no_grad():
        assert fit_of_samples(prior(), -12, 12, cells=20) > 1e-3


def test_vamp_prior_on_all_data_is_the_aggregated_posterior():
    torch.manual_seed(0)
    x, net = torch.rand(30, *SHAPE, dtype=torch.float64), encoder()
    z = torch.randn(8, 2, dtype=torch.float64)
    aggregated = net(x).log_prob(z[:, None]).logsumexp(1) - math.log(30)
    torch.testing.assert_close(VampPrior(net, x, learn=False)().log_prob(z), aggregated, rtol=0, atol=1e-10)


def test_vamp_weights_are_a_softmax():
    prior = special_priors()["weighted"]
    z = torch.randn(8, 2, dtype=torch.float64)
    weights = prior.logits.softmax(0)
    components = prior.encoder(prior.inputs()).log_prob(z[:, None]).exp()
    torch.testing.assert_close(prior().log_prob(z).exp(), components @ weights, rtol=1e-9, atol=0)


def test_the_posteriors_of_some_pseudo_inputs_are_their_components():
    prior = vamp()
    torch.testing.assert_close(prior.posteriors(slice(3, 5)).mean, prior().loc[3:5])


def test_vamp_shares_its_encoder_and_trains_it():
    net = encoder()
    prior = VampPrior(net, torch.rand(10, *SHAPE, dtype=torch.float64))
    assert prior.encoder is net
    prior().log_prob(torch.zeros(3, 2, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in prior.parameters())


class EncoderOfCodes(torch.nn.Module):
    """x -> q(z|x), where x are codes of categories."""

    def __init__(self):
        super().__init__()
        self.embed, self.log_scale = torch.nn.Embedding(5, 2), torch.nn.Parameter(torch.zeros(2), requires_grad=False)

    def forward(self, x):
        return Independent(Normal(self.embed(x.long()).mean(-2), self.log_scale.exp()), 1)


def test_pseudo_inputs_without_a_gradient_are_refused():
    net, u = EncoderOfCodes(), torch.randint(5, (10, 3)).float()
    with pytest.raises(ValueError, match=r"gives pseudo_inputs no gradient.*learn=False"):
        VampPrior(net, u, bounds=(0, 4))
    assert [p.requires_grad for p in net.parameters()] == [False, True]
    assert net.training
    assert VampPrior(net, u, learn=False)().sample().shape == (2,)
    with torch.inference_mode():  # where nothing has a gradient, and nothing is learned
        VampPrior(encoder(), torch.rand(3, *SHAPE, dtype=torch.float64))
    with torch.no_grad():
        VampPrior(encoder().requires_grad_(False), torch.rand(3, *SHAPE, dtype=torch.float64))


def test_pseudo_inputs_are_clamped_and_frozen_beyond_the_bounds():
    u = torch.full((3, *SHAPE), 0.5, dtype=torch.float64)
    u[0, 0, 0, 0], u[1, 0, 0, 0], u[2, 0, 0, 0] = -0.01, 1.02, 1.0
    prior = VampPrior(encoder(), u)
    assert prior.inputs().min() == 0
    assert prior.inputs().max() == 1
    assert prior.clamped_share().item() == pytest.approx(3 / 48)  # at a bound, too
    prior().log_prob(torch.zeros(2, dtype=torch.float64)).backward()
    gradient = prior.pseudo_inputs.grad
    assert gradient[0, 0, 0, 0] == 0
    assert gradient[1, 0, 0, 0] == 0
    assert gradient[2].all()


def test_pseudo_inputs_without_bounds_or_learning_are_as_given():
    u = 5 * torch.randn(3, *SHAPE, dtype=torch.float64)
    assert torch.equal(VampPrior(encoder(), u, bounds=None).inputs(), u)
    fixed = VampPrior(encoder(), u, learn=False)
    assert torch.equal(fixed.inputs(), u)
    assert not fixed.pseudo_inputs.requires_grad
    assert fixed.clamped_share() == 0


def test_any_normal_encoder_will_do():
    loc, scale = nn.Linear(6, 2), nn.Linear(6, 2)
    foreign = Call(lambda x: Independent(Normal(loc(x), scale(x).exp()), 1))
    u = torch.rand(4, 6)
    z = torch.randn(5, 2)
    expected = foreign(u).log_prob(z[:, None]).logsumexp(1) - math.log(4)
    torch.testing.assert_close(VampPrior(foreign, u)().log_prob(z), expected)


@pytest.mark.parametrize(
    "posterior",
    [
        lambda x: Independent(Laplace(x, torch.ones(2)), 1),
        lambda x: MultivariateNormal(x, torch.tensor([[1.0, 0.9], [0.9, 1.0]])),
    ],
)
def test_posteriors_that_are_not_diagonal_normals_are_refused(posterior):
    with pytest.raises(ValueError, match="not a normal with diagonal covariance"):
        VampPrior(Call(posterior), torch.rand(4, 2))


def test_mistakes_are_named():
    net = encoder()
    with pytest.raises(ValueError, match=r"event shape \(16,\).*expects events of shape \(1, 4, 4\)"):
        VampPrior(net, torch.rand(10, 16, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"span \[.*\].*bounds=None"):
        VampPrior(net, 10 * torch.rand(10, *SHAPE, dtype=torch.float64))
    with pytest.raises(ValueError, match="not finite"):
        VampPrior(net, torch.full((10, *SHAPE), float("nan")))
    with pytest.raises(ValueError, match=r"batch shape \(4, 2\)"):
        VampPrior(Call(lambda x: Normal(x, 1.0)), torch.rand(4, 2))
    with pytest.raises(ValueError, match="returned a tuple"):
        VampPrior(Call(lambda x: (x, x)), torch.rand(4, 2))
    with pytest.raises(ValueError, match="at least 1"):
        MixtureOfGaussians(2, 0)
    with pytest.raises(ValueError, match=r"components is 2\.5.*whole"):
        MixtureOfGaussians(2, 2.5)
    with pytest.raises(ValueError, match="`top` of a hierarchical encoder"):
        VampPrior(networks.hierarchical_encoder((6,), [8], 2), torch.rand(4, 6))


def test_checking_an_encoder_leaves_it_as_it_was():
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2), Call(lambda h: Independent(Normal(h, torch.ones(2)), 1)))
    VampPrior(net, torch.rand(4, 6))
    assert net[0].training
    assert net[0].num_batches_tracked == 0


def test_components_are_drawn_by_their_weight_and_not_in_order():
    """Components far apart: the share of draws near each is its weight, also for fewer draws than components."""
    u = torch.linspace(0, 1, 4)[:, None]
    prior = VampPrior(Call(lambda x: Independent(Normal(100 * x.expand(-1, 2), torch.ones(2)), 1)), u, weighted=True)
    prior.logits.data = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    torch.manual_seed(0)
    with torch.no_grad():
        near = (prior().sample((40_000,))[:, :1] / 100 - u.T).abs().argmin(1)
        first = torch.stack([prior().sample((1,)) for _ in range(20)])
    shares = torch.bincount(near, minlength=4) / 40_000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4]), rtol=0, atol=0.01)
    assert first.std() > 10


def test_free_components_start_apart_as_standard_normal_draws():
    torch.manual_seed(0)
    p = MixtureOfGaussians(2, 1000)()
    assert kstest(p.loc.detach().flatten().numpy(), "norm").pvalue > 1e-3
    assert torch.equal(p.scale, torch.ones(1000, 2))


A, S = torch.tensor([1.0, -2.0], dtype=torch.float64), 0.5  # z = A u + S e, over the plane


def vhp(samples=16, widen=1.5):
    """With a posterior q(u|z) that is too wide."""
    variance = 1 / (1 + A.square().sum() / S**2)
    encoder = Call(lambda z: DiagonalNormal((z @ A)[..., None] * variance / S**2, widen * variance.sqrt()))
    decoder = Call(lambda u: DiagonalNormal(u * A, torch.full_like(A, S)))
    return VHP(VAE(encoder, decoder, StandardNormal(1).double()), samples)


MARGINAL = MultivariateNormal(
    torch.zeros(2, dtype=torch.float64), A.outer(A) + S**2 * torch.eye(2, dtype=torch.float64)
)


def test_a_vhp_with_the_exact_posterior_is_the_marginal():
    z = MARGINAL.sample((20,))
    for samples in (1, 5):
        torch.testing.assert_close(vhp(samples, widen=1.0)().log_prob(z), MARGINAL.log_prob(z), rtol=0, atol=1e-10)


def test_a_vhp_is_unbiased_whatever_its_posterior_and_tightens_with_its_samples():
    torch.manual_seed(0)
    z, n = MARGINAL.sample((20,)), 20_000
    means = []
    for samples in (1, 4, 16):
        p = vhp(samples)()
        estimates = p.log_prob(z.expand(n, 20, 2))
        ratio = (estimates - MARGINAL.log_prob(z)).exp()
        assert ((ratio.mean(0) - 1).abs() < 4.5 * ratio.std(0) / math.sqrt(n)).all()
        means.append(estimates.mean(0))
    assert (means[0] < means[1]).all()
    assert (means[1] < means[2]).all()
    assert (means[2] < MARGINAL.log_prob(z) - 1e-3).all()


def test_a_vhp_has_the_bound_of_its_samples_and_draws_nothing_when_it_is_made():
    before = torch.get_rng_state()
    prior, z = vhp(samples=3), torch.tensor([0.3, -1.0], dtype=torch.float64)
    assert torch.equal(torch.get_rng_state(), before)
    ours = prior().log_prob(z)
    torch.set_rng_state(before)
    assert torch.equal(ours, prior.vae(z, 3).bound)


def test_samples_of_a_vhp_are_those_of_the_marginal():
    torch.manual_seed(0)
    z = vhp()().sample((50_000,))
    for direction in (A / A.norm(), torch.tensor([2.0, 1.0], dtype=torch.float64) / 5**0.5):
        width = math.sqrt(direction @ MARGINAL.covariance_matrix @ direction)
        assert kstest((z @ direction / width).numpy(), "norm").pvalue > 1e-3


def test_mistakes_in_a_vhp_are_named():
    with pytest.raises(ValueError, match="samples is 0"):
        vhp(0)
    with pytest.raises(ValueError, match=r"events of shape \(1, 2, 2\): a prior is over vectors"):
        VHP(VAE(networks.Encoder((1, 2, 2), [8], 1), networks.Decoder((1, 2, 2), [8], 1), StandardNormal(1)), 4)


@pytest.mark.parametrize(
    ("pseudo_inputs", "words"),
    [
        ([[0.0] * 4], "list"),
        (torch.zeros(0, 4), r"\(0, 4\)"),
        (torch.zeros(3, 4, dtype=torch.int64), "torch.int64"),
        (torch.full((3, 4), math.nan), "not finite"),
    ],
)
def test_pseudo_inputs_of_a_wrong_shape_are_refused(pseudo_inputs, words):
    with pytest.raises(ValueError, match=words):
        VampPrior(networks.Encoder((4,), [8], 2), pseudo_inputs)


@pytest.mark.parametrize("make", [lambda: StandardNormal(0), lambda: MixtureOfGaussians(0, 3)])
def test_a_prior_without_features_is_refused(make):
    with pytest.raises(ValueError, match="features is 0"):
        make()


def test_a_flow_is_the_prior_of_the_top_level_and_needs_zuko(without):
    x = torch.rand(20, *SHAPE).round()
    data = Dataset("test", x, x, x, "bernoulli")
    model, _ = build(Experiment(prior="flow", model="hvae", latent=3, hidden=(8,), prior_hidden=(8,)), data)
    assert model.prior.top().event_shape == (3,)
    assert model(x, 2).elbo.isfinite().all()
    without("zuko.flows")
    with pytest.raises(ValueError, match=r"vaepriors\[flow\]"):
        build(Experiment(prior="flow"), data)


@pytest.mark.parametrize("kind", ["vamp", "exemplar"])
def test_batch_norm_of_components_uses_the_statistics_of_the_data_and_keeps_them(kind):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.BatchNorm1d(3), Call(lambda x: Independent(Normal(x, 1.0), 1)))
    u = 5 + 2 * torch.randn(20, 3)
    prior = VampPrior(encoder, u, bounds=None) if kind == "vamp" else ExemplarPrior(encoder, u, samples=20)
    encoder.train()(torch.randn(100, 3))
    before, norm = {name: x.clone() for name, x in encoder.state_dict().items()}, encoder[0]
    z, training = torch.randn(7, 3), prior.train()()
    loss = training.log_prob(z).sum() + prior().log_prob(encoder(torch.randn(50, 3)).sample()).sum()
    loss.backward()  # through both calls, with new statistics between them
    assert norm.training
    assert encoder.state_dict()["0.num_batches_tracked"] == before["0.num_batches_tracked"] + 1
    encoder.load_state_dict(before)
    torch.testing.assert_close(training.log_prob(z), prior.eval()().log_prob(z))
