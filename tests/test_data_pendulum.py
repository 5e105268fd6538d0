"""The rendered pendulum: where the bob is, what is kept of it, and that no two angles look alike."""

import math

import torch

from vaepriors.data import load
from vaepriors.data.pendulum import RADIUS, render


def test_the_bob_is_where_the_angle_says():
    angles = torch.linspace(0, 2 * math.pi, 50, dtype=torch.float64)[:-1]
    images = render(angles)[:, 0]
    axis = (torch.arange(16, dtype=torch.float64) + 0.5) / 16 * 2 - 1
    mass = images.sum((1, 2))
    across, down = (images.sum(1) @ axis) / mass, (images.sum(2) @ axis) / mass
    torch.testing.assert_close(torch.atan2(across, down) % (2 * math.pi), angles % (2 * math.pi), atol=0.02, rtol=0)
    assert ((across.square() + down.square()).sqrt() - RADIUS).abs().max() < 0.02


def test_the_set_has_its_size_and_its_angles():
    data = load("pendulum")
    assert [len(x) for x in (data.train, data.valid, data.test)] == [15_000, 1_500, 1_500]
    assert data.event_shape == (1, 16, 16)
    assert data.likelihood == "gaussian"
    for split in ("train", "valid", "test"):
        torch.testing.assert_close(render(data.labels[split]), getattr(data, split))
    assert torch.equal(load("pendulum", seed=1).train, data.train)


def test_angles_are_uniform_and_far_ones_look_different():
    data = load("pendulum")
    counts = torch.histc(data.labels["train"], 12, 0, 2 * math.pi)
    assert ((counts - 1250).abs() < 5 * 1250**0.5).all()
    images = render(torch.linspace(0, 2 * math.pi, 61)[:-1]).flatten(1)
    distance = torch.cdist(images, images)
    opposite = distance.roll(30, 0).diagonal()
    assert (opposite > 0.9 * distance.max()).all()  # no symmetry of half a turn
