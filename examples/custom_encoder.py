"""Custom networks, data and a training folder: torch's layers and distributions, a table of real numbers.

python examples/custom_encoder.py
"""

from pathlib import Path

import torch
from sklearn.datasets import load_wine
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaepriors import VAE, Folder, VampPrior, estimate, fit, load_weights, objectives, report
from vaepriors.data import Dataset


class Gaussian(nn.Module):
    """A network from features to a normal distribution: an encoder, or a decoder."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, 64), nn.SiLU(), nn.Linear(64, 2 * outputs))

    def forward(self, h: Tensor) -> Distribution:
        loc, log_scale = self.layers(h).chunk(2, -1)
        return Independent(Normal(loc, log_scale.clamp(-3, 2).exp()), 1)


def make_model(data: Dataset, latent: int = 3) -> VAE:
    encoder, decoder = Gaussian(data.train.shape[1], latent), Gaussian(latent, data.train.shape[1])
    return VAE(encoder, decoder, VampPrior(encoder, data.train[:20], bounds=None))


def main(epochs: int = 200, samples: int = 1000, folder: Path = Path("runs/wine")) -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(load_wine().data).float()
    x = ((x - x.mean(0)) / x.std(0))[torch.randperm(len(x))]
    wine = Dataset("wine", train=x[:138], valid=x[138:158], test=x[158:], likelihood="gaussian")

    model = make_model(wine)
    # killed and called again, this resumes, and ends with the same numbers
    outcome = fit(
        model, objectives.ELBO(warmup=50), wine, epochs=epochs, warmup=50, accelerator="cpu", store=Folder(folder)
    )
    best = load_weights(make_model(wine), folder)
    result = estimate(best, wine.test, samples=samples)
    print(f"log p(x) of {len(wine.test)} wines: {result.log_likelihood.mean():.2f} nats")
    print(f"effective samples: {result.effective_samples.mean():.0f} of {samples}")
    page, _ = report(best, wine, folder / "report.html", metrics=outcome.metrics, samples=samples)
    print(f"report in {page}")


if __name__ == "__main__":
    main()
