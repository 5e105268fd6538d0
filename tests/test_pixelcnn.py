"""PixelCNN and Autoregressive: causal, normalised, sampled as the density says, and blind to the rest of a batch."""

import math

import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from torch.distributions import Bernoulli, Independent

from reference import independent_pixels
from vaepriors import data, networks
from vaepriors.app.experiment import Experiment, build
from vaepriors.data import Dataset
from vaepriors.distributions import Autoregressive, naive_pixel_draws, sampling_progress
from vaepriors.networks.heads import BernoulliHead, GaussianHead, LogisticHead
from vaepriors.optim import adam

LATENT = 3


def decoder(shape, head=BernoulliHead, seed=0):
    """With weights large enough that pixels depend on each other."""
    torch.manual_seed(seed)
    net = networks.pixel_hierarchical_decoder(shape, LATENT, head=head, channels=8).double()
    with torch.no_grad():
        for layer in (net.joined.head.first, *net.joined.head.others):
            layer.gain.mul_(1.5)
            layer.bias.normal_()
    return net


def z(*batch):
    return torch.randn(*batch, 2 * LATENT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def binary_images(*shape):
    pixels = [torch.tensor([0.0, 1.0], dtype=torch.float64)] * math.prod(shape)
    return torch.cartesian_prod(*pixels).view(-1, *shape)


def test_each_pixel_depends_on_those_before_it_only():
    shape = (1, 4, 5)
    p = decoder(shape)(z())
    x = torch.rand(shape, dtype=torch.float64)
    logits = lambda x: p.conditionals(x).logits.flatten()  # noqa: E731
    jacobian = torch.autograd.functional.jacobian(logits, x).view(20, 20)
    assert not jacobian.triu().any()
    for row, column in [(0, 1), (1, 0), (1, 3), (3, 4)]:
        i = 5 * row + column
        before = {i - 1} if column else set()
        above = {5 * (row - 1) + c for c in (column - 1, column, column + 1) if 0 <= c < 5} if row else set()
        assert all(jacobian[i, j] for j in before | above)
    assert jacobian[19].count_nonzero() == 19  # the last pixel sees all
    assert jacobian[5, 2] == 0  # the blind spot of two rows of three, to the upper right


def test_every_pixel_depends_on_both_levels_of_z():
    net = decoder((1, 4, 5))
    x = torch.rand(1, 4, 5, dtype=torch.float64)
    logits = lambda z: net(z).conditionals(x).logits.flatten()  # noqa: E731
    assert torch.autograd.functional.jacobian(logits, z()).all()


@pytest.mark.parametrize("shape", [(1, 3, 3), (2, 2, 2)])
def test_the_masses_of_all_binary_images_sum_to_one(shape):
    p = decoder(shape)(z(4))
    total = p.log_prob(binary_images(*shape)[:, None]).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_masses_of_all_gray_images_of_two_pixels_sum_to_one():
    p = decoder((1, 1, 2), LogisticHead)(z())
    level = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
    images = torch.cartesian_prod(level, level).view(-1, 1, 1, 2)
    assert abs(p.log_prob(images).exp().sum().item() - 1) < 1e-10


def by_passes(p):
    def conditionals(x):
        images, places = x.unique(dim=0, return_inverse=True)  # there are few, so each passes once
        return Independent(Bernoulli(logits=p.conditionals(images).logits[places]), 3)

    blank = lambda shape: torch.zeros(*shape, *p.event_shape, dtype=torch.float64)  # noqa: E731
    draws = lambda shape: naive_pixel_draws(conditionals, blank(shape))  # noqa: E731
    return Autoregressive(p.conditionals, p.batch_shape, p.event_shape, draws=draws)


@pytest.mark.parametrize("sampler", ["kept features", "a pass for each pixel"])
def test_samples_follow_the_density(sampler):
    shape, n = (1, 2, 3), 40_000
    p = decoder(shape)(z())
    p = p if sampler == "kept features" else by_passes(p)
    images = binary_images(*shape)
    expected = p.log_prob(images).exp().detach() * n
    torch.manual_seed(3)
    places = p.sample((n,)).flatten(1) @ (2.0 ** torch.arange(5, -1, -1, dtype=torch.float64))
    counts = torch.bincount(places.long(), minlength=64).double()
    assert (expected > 5).sum() > 20
    often = expected > 5
    observed = torch.cat([counts[often], counts[~often].sum()[None]])
    rest = torch.cat([expected[often], expected[~often].sum()[None]])
    keep = rest > 1e-6
    assert chisquare(observed[keep], rest[keep] * observed[keep].sum() / rest[keep].sum()).pvalue > 1e-3


@pytest.mark.parametrize("head", [BernoulliHead, LogisticHead, GaussianHead])
@pytest.mark.parametrize(("batch", "sample_shape"), [((), ()), ((4,), ()), ((2, 3), (5,))])
def test_kept_features_are_those_of_a_whole_pass(head, batch, sample_shape):
    """Pixel by pixel, the distribution it was drawn from is the one that a pass over the finished image gives it."""
    shape = (2, 4, 5)
    net = decoder(shape, head)
    p = net(z(*batch))
    means = []
    hook = net.joined.head.head.register_forward_hook(lambda module, inputs, output: means.append(output.mean))
    x = p.sample(sample_shape)
    hook.remove()
    assert x.shape == (*sample_shape, *batch, *shape)
    drawn_from = torch.cat([mean.flatten(-2) for mean in means], -1).unflatten(-1, shape[1:])
    torch.testing.assert_close(drawn_from, p.conditionals(x).mean, rtol=0, atol=1e-12)


def test_an_image_is_alone_in_its_batch_also_in_training():
    net = decoder((1, 4, 5)).train()
    codes, x = z(6), torch.rand(6, 1, 4, 5, dtype=torch.float64).round()
    together = net(codes).log_prob(x)
    alone = torch.stack([net(code).log_prob(image) for code, image in zip(codes, x, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_the_density_of_an_image_under_many_codes():
    p = decoder((1, 4, 5))(z(7, 3))
    x = torch.rand(3, 1, 4, 5, dtype=torch.float64).round()
    expected = p.conditionals(x.expand(7, 3, 1, 4, 5)).log_prob(x)
    torch.testing.assert_close(p.log_prob(x), expected, rtol=0, atol=1e-12)
    assert p.batch_shape == (7, 3)


def test_no_gradient_is_kept_of_a_sample():
    assert not decoder((1, 2, 3))(z()).sample().requires_grad


def test_progress_is_reported_only_inside_the_block():
    reports = []
    p = decoder((1, 2, 3))(z())
    with sampling_progress(lambda done, total: reports.append((done, total))):
        p.sample()
    p.sample()
    assert reports == [(done, 6) for done in range(1, 7)]


def test_a_distribution_without_a_mean_says_so():
    with pytest.raises(NotImplementedError):
        _ = decoder((1, 2, 3))(z()).mean


def test_any_causal_network_will_do():
    """A chain in which each pixel repeats the one to its left with probability 0.9; the first is fair."""

    class Repeats(nn.Module):
        def forward(self, x):
            left = torch.cat([torch.full_like(x[..., :1], 0.5), 0.1 + 0.8 * x[..., :-1]], -1)
            return Independent(Bernoulli(left), 3)

    p = Autoregressive(
        Repeats(), (), (1, 1, 3), draws=lambda shape: naive_pixel_draws(Repeats(), torch.zeros(*shape, 1, 1, 3))
    )
    x = torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 3)
    assert p.log_prob(x).exp().item() == pytest.approx(0.5 * 0.9 * 0.1)
    torch.manual_seed(0)
    draws = p.sample((20_000,)).view(-1, 3)
    assert (draws[:, 0] == draws[:, 1]).float().mean().item() == pytest.approx(0.9, abs=0.01)
    assert (draws[:, 0] == draws[:, 2]).float().mean().item() == pytest.approx(0.82, abs=0.015)


def test_a_pixelhvae_overfits_five_digits():
    torch.manual_seed(0)
    x = data.load("digits").train[:5].round()
    digits = Dataset("five digits", x, x, x, "bernoulli")
    experiment = Experiment(model="pixelhvae", prior="vamp", components=5, latent=4, hidden=(32,), warmup=0)
    vae, objective = build(experiment, digits)
    optimizer = adam(vae, objective, 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        objective(vae, x)[0].backward()
        optimizer.step()
    assert vae(x, 50).elbo.mean() > independent_pixels(x) / 3 > -10  # at best it is -log 5 = -1.6
