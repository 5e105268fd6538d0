"""Under autocast networks compute in bfloat16; data and log-densities do not."""

import pytest
import torch

from vaepriors import networks, priors
from vaepriors.app.experiment import Experiment
from vaepriors.app.run import Run
from vaepriors.app.train import make_fabric, prepare
from vaepriors.data import Dataset
from vaepriors.distributions import Chain
from vaepriors.networks.heads import BernoulliHead, GaussianHead, LogisticHead, NormalHead, SoftplusNormalHead
from vaepriors.objectives import IWAE
from vaepriors.training import Losses
from vaepriors.vae import VAE

SHAPE = (1, 6, 6)


def autocast(enabled=True):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


def assert_same_density(distribution, value):
    """The density of a distribution that autocast made is the same under autocast and without it."""
    with autocast():
        log_prob = distribution.log_prob(value)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob, distribution.log_prob(value), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("head", [BernoulliHead, LogisticHead, GaussianHead])
def test_likelihoods_are_in_single_precision(head, n):
    torch.manual_seed(0)
    decoder = networks.Decoder(SHAPE, [32], 3, head=head)
    x = (torch.rand(7, *SHAPE) * 256).floor().add(0.5) / 256
    x = x.round() if head is BernoulliHead else x
    with autocast():
        likelihood = decoder(3 * torch.randn(n, 7, 3))
    assert_same_density(likelihood, x)


@pytest.mark.parametrize("head", [NormalHead, SoftplusNormalHead])
def test_posteriors_are_in_single_precision(head):
    torch.manual_seed(0)
    encoder = networks.Encoder(SHAPE, [32], 3, head=head)
    with autocast():
        posterior = encoder(torch.rand(7, *SHAPE))
        z = posterior.sample((5,))
    assert z.dtype == torch.float32
    assert_same_density(posterior, z)


def top_priors():
    encoder = networks.Encoder(SHAPE, [32], 3)
    u = torch.rand(20, *SHAPE)
    return {
        "standard": priors.StandardNormal(3),
        "mog": priors.MixtureOfGaussians(3, 20),
        "vamp": priors.VampPrior(encoder, u),
        "weighted": priors.VampPrior(encoder, u, weighted=True),
        "vamp-data": priors.VampPrior(encoder, u, learn=False),
    }


@pytest.mark.parametrize("name", list(top_priors()))
def test_priors_are_in_single_precision_alone_and_in_a_hierarchy(name):
    torch.manual_seed(0)
    top = top_priors()[name]
    with autocast():
        flat, chain = top(), priors.TwoLevelPrior(top, networks.conditional(3, [16], 2), (3, 2))()
        z = chain.sample((5, 7))
        below = chain.then(z[..., :3])
        log_prob = chain.log_prob(z)
    assert isinstance(chain, Chain)
    assert log_prob.dtype == torch.float32
    assert_same_density(flat, z[..., :3])
    assert_same_density(below, z[..., 3:])


def test_a_vae_as_prior_weighs_in_single_precision():
    torch.manual_seed(0)
    inner = VAE(networks.Encoder((3,), [16], 2), networks.conditional(2, [16], 3), priors.StandardNormal(2))
    with autocast():
        terms = inner(torch.randn(7, 3), 5)
    assert {terms.log_likelihood.dtype, terms.log_q.dtype, terms.log_p.dtype} == {torch.float32}


def test_the_gradient_of_the_importance_weighted_bound_is_that_of_the_same_logits():
    """With several draws, the weights follow log p(x|z), which one product computes for all of them."""
    torch.manual_seed(0)
    logits = (8 * torch.randn(5, 7, 36)).requires_grad_()
    x = torch.rand(7, 36).round()
    head = BernoulliHead(1, (36,), lambda size, shape: torch.nn.Identity())
    gradients = []
    for enabled in (False, True):
        with autocast(enabled):
            log_w = head(logits).log_prob(x)
            bound = log_w.logsumexp(0).mean()
        gradients.append(torch.autograd.grad(bound, logits)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_the_model_sees_the_data_unrounded(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = 100 + torch.rand(20, 3, generator=generator)  # bfloat16 has steps of 0.5 here
    data = Dataset("offset", x, x[:5], x[:5], "gaussian")
    experiment = Experiment(
        precision="bf16-mixed", epochs=1, hidden=(8,), latent=2, batch_size=20, accelerator="cpu", normalize=False
    )
    parts = prepare(experiment, data, Run(tmp_path), make_fabric(experiment), [])
    seen = []
    parts.model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0]))
    parts.run(save_every=1000)
    (batch,) = [each for each in seen if len(each) == 20]
    assert torch.equal(batch.sort(0).values, x.sort(0).values)


def test_losses_of_iwae_under_autocast_are_near_those_without_it():
    torch.manual_seed(0)
    encoder, decoder = networks.Encoder(SHAPE, [32], 3), networks.Decoder(SHAPE, [32], 3)
    x = torch.rand(50, *SHAPE).round()
    losses = Losses(VAE(encoder, decoder, priors.StandardNormal(3)), IWAE(20), x)
    values = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with autocast(enabled):
            values.append(losses(torch.arange(50))[0])
    assert values[1].dtype == torch.float32
    torch.testing.assert_close(*values, rtol=0.01, atol=0)
