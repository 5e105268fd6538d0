"""Activity of units against closed forms."""

import pytest
import torch
from torch import nn

from reference import Call, LinearGaussian
from vaepriors.distributions import Chain, DiagonalNormal
from vaepriors.latent import active_units, activity
from vaepriors.vae import VAE


def test_activity_is_the_variance_of_the_posterior_mean():
    linear = LinearGaussian()
    torch.manual_seed(0)
    x = torch.randn(4000, 5, dtype=torch.float64)
    model = linear.vae()
    exact = model.encoder(x).mean.var(0)
    torch.testing.assert_close(activity(model, x, n=64, chunk=1500), exact, rtol=0.05, atol=0)


def test_noise_is_not_activity():
    """Units 0 and 1 follow x, of a chain's second level too; units 2 and 3 are noise of a large variance."""

    def encoder(x):
        first = DiagonalNormal(torch.stack([x, 0 * x], -1), torch.tensor([0.1, 3.0]))
        return Chain(first, lambda a: DiagonalNormal(a * torch.tensor([2.0, 0.0]), torch.tensor([0.1, 3.0])), 2)

    torch.manual_seed(0)
    model, x = VAE(Call(encoder), nn.Identity(), nn.Identity()), torch.randn(20_000)
    found = activity(model, x, n=8)
    torch.testing.assert_close(found, torch.tensor([1.0, 0, 4, 0], dtype=torch.float64), rtol=0.05, atol=0.05)
    assert active_units(model, x, threshold=0.5) == 2


def test_one_example_has_no_variance():
    with pytest.raises(ValueError, match="at least 2"):
        activity(LinearGaussian().vae(), torch.zeros(1, 5, dtype=torch.float64))
