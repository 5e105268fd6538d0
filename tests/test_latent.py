"""Activity of units against closed forms."""

import math

import pytest
import torch
from torch import nn

from reference import Call, LinearGaussian
from vaepriors.distributions import Chain, DiagonalNormal
from vaepriors.latent import active_units, activity, angle_regression
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


ANGLES = 2 * math.pi * torch.rand(2000, generator=torch.Generator().manual_seed(0))


def ring(angles, turns=1):
    return torch.stack([(turns * angles).cos(), (turns * angles).sin()], 1)


def test_a_ring_tells_its_angle_wherever_it_lies_and_however_it_turns():
    for turns in (1, -1):
        found = angle_regression(5 - 3 * ring(ANGLES + 1.2, turns), ANGLES)
        assert found.winding == turns
        assert found.error < 0.02  # the mean of 2,000 random points is not quite the centre


def test_noise_in_the_angle_is_its_error():
    noise = 0.1 * torch.randn(2000, generator=torch.Generator().manual_seed(1))
    found = angle_regression(ring(ANGLES + noise), ANGLES)
    assert found.error == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.05)  # E|noise|
    assert found.winding == 1


def test_what_is_no_ring_does_not_wind_once():
    plane = torch.randn(2000, 2, generator=torch.Generator().manual_seed(2))
    there_and_back = ring(ANGLES.sin())
    assert angle_regression(there_and_back, ANGLES).winding == 0
    assert angle_regression(ring(ANGLES, 2), ANGLES).winding == 2
    assert angle_regression(plane, ANGLES).error > 1


def test_an_angle_needs_a_plane():
    with pytest.raises(ValueError, match=r"shape \(5, 3\) and angles \(5,\)"):
        angle_regression(torch.zeros(5, 3), torch.zeros(5))
