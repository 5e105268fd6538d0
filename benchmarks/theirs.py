"""A case of the benchmark by pythae 0.1.2: the same networks and batch, its own losses, likelihood and trainer.

Variants: `pythae` times forward, backward and torch's Adam alone; `pythae-trainer` the steps of its trainer's epoch.
"""

import sys
import tempfile

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAMP, VAEConfig, VAMPConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn

import turns

BATCH, SAMPLES, COMPONENTS, IMAGES = 100, 5000, 500, 1000


class Gated(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(a, b), nn.Linear(a, b)

    def forward(self, h: Tensor) -> Tensor:
        return self.value(h) * torch.sigmoid(self.gate(h))


class Encoder(BaseEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Gated(784, 300), Gated(300, 300))
        self.mean, self.log_var = nn.Linear(300, 40), nn.Linear(300, 40)

    def forward(self, x: Tensor) -> ModelOutput:
        h = self.layers(x.flatten(1))
        return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h).clamp(-6, 2))


class Decoder(BaseDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Gated(40, 300), Gated(300, 300), nn.Linear(300, 784), nn.Sigmoid())

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z).view(-1, 1, 28, 28))


def main(model: str, prior: str, variant: str) -> None:
    assert model == "vae"
    torch.manual_seed(0)
    common = {"input_dim": (1, 28, 28), "latent_dim": 40, "reconstruction_loss": "bce"}
    if prior == "vamp":
        vae = VAMP(VAMPConfig(**common, number_components=COMPONENTS), Encoder(), Decoder())
    else:
        vae = VAE(VAEConfig(**common), Encoder(), Decoder())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = vae.to(device)
    images = torch.rand(IMAGES, 1, 28, 28).round()
    if variant == "pythae":
        optimizer, x = torch.optim.Adam(vae.parameters(), 5e-4), images.to(device)

        def step() -> None:
            optimizer.zero_grad()
            vae({"data": x[torch.randint(IMAGES, (BATCH,), device=device)]}).loss.backward()
            optimizer.step()

        steps = 10
    else:
        folder = tempfile.mkdtemp()
        config = BaseTrainerConfig(
            output_dir=folder, per_device_train_batch_size=BATCH, learning_rate=5e-4, no_cuda=device.type == "cpu"
        )
        trainer = BaseTrainer(vae, BaseDataset(images, torch.ones(IMAGES)), training_config=config)
        trainer.prepare_training()

        def step() -> None:
            trainer.train_step(epoch=1)

        steps = 1

    def image() -> None:
        with torch.no_grad():
            vae.get_nll(images[:1].to(device), n_samples=SAMPLES, batch_size=BATCH)

    turns.serve(step, image, steps, 1, {"steps_per_call": 1 if variant == "pythae" else IMAGES // BATCH})


if __name__ == "__main__":
    main(*sys.argv[1:])
