"""A new prior for a VAE that was trained elsewhere, with feature maps as codes and a small weight of the divergence.

pip install zuko
python examples/pretrained.py
"""

import torch
import zuko
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from vaepriors import VAE, MixtureOfGaussians, StandardNormal, VampPrior, check, data, estimate, fit, objectives


class ConvVAE(nn.Module):
    """A plain VAE of images, as many programs have one: mean and log-variance of 4 maps of 2 x 2, and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 32, 4, 2, 1), nn.SiLU(), nn.Conv2d(32, 8, 4, 2, 1))
        self.up = nn.Sequential(nn.ConvTranspose2d(4, 64, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(64, 1, 4, 2, 1))


def train(vae: ConvVAE, x: Tensor, epochs: int, weight: float = 0.1) -> None:
    """Its usual training, with a weight of the divergence that is less than 1."""
    optimizer = torch.optim.Adam(vae.parameters(), 2e-3)
    for batch in (batch for _ in range(epochs) for batch in x[torch.randperm(len(x))].split(100)):
        mean, log_variance = vae.down(batch).chunk(2, 1)
        logits = vae.up(mean + (log_variance / 2).exp() * torch.randn_like(mean))
        divergence = (mean**2 + log_variance.exp() - log_variance - 1).sum() / 2
        optimizer.zero_grad()
        (cross_entropy(logits, batch, reduction="sum") + weight * divergence).backward()
        optimizer.step()


class Encoder(nn.Module):
    """x -> q(z|x), with the maps as one vector."""

    def __init__(self, vae: ConvVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> Distribution:
        mean, log_variance = self.vae.down(x.flatten(0, -4)).reshape(*x.shape[:-3], 32).chunk(2, -1)
        return Independent(Normal(mean, (log_variance / 2).exp()), 1)


class Decoder(nn.Module):
    """z -> p(x|z)."""

    def __init__(self, vae: ConvVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Distribution:
        logits = self.vae.up(z.reshape(-1, 4, 2, 2)).reshape(*z.shape[:-1], 1, 8, 8)
        return Independent(Bernoulli(logits=logits), 3)


def main(epochs: int = 50, samples: int = 500, seed: int = 0) -> dict[str, float]:
    torch.manual_seed(seed)
    digits = data.load("digits")
    train(vae := ConvVAE(), digits.train, epochs)
    encoder, decoder = Encoder(vae), Decoder(vae)
    assert check(VAE(encoder, decoder, StandardNormal(16)), digits.test[:20])
    vamp = VampPrior(encoder, digits.train[:100])
    priors = {"VampPrior": vamp, "mixture": MixtureOfGaussians(16, 100), "flow": zuko.flows.NSF(16, transforms=2)}
    means = {}
    for name, prior in {"standard normal": StandardNormal(16), **priors}.items():
        model = VAE(encoder, decoder, prior)
        if name in priors:
            fit(model, objectives.PriorFit(), digits, epochs=epochs, lr=2e-3, accelerator="cpu").load_best(model)
        means[name] = estimate(model, digits.test, samples=samples).log_likelihood.mean().item()
        print(f"{name}: log p(x) {means[name]:.2f} nats")
    return means


if __name__ == "__main__":
    main()
