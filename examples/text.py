"""Texts: names of symbols, such as BLACK CHESS KNIGHT. A text is an image of one row, with codes of letters as pixels.

python examples/text.py
"""

import unicodedata
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal
from torch.nn.functional import pad

from vaepriors import VAE, MixtureOfGaussians, estimate, fit, objectives
from vaepriors.data import Dataset
from vaepriors.distributions import Autoregressive, naive_pixel_draws

LETTERS = " ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
LENGTH, SEEN = 24, 3  # letters of a text, and how many before a letter the decoder sees


def make_data() -> Dataset:
    names = (unicodedata.name(chr(code), "") for code in (*range(0x2000, 0x2C00), *range(0x1F000, 0x1FB00)))
    names = [name.ljust(LENGTH) for name in names if 0 < len(name) <= LENGTH and set(name) <= set(LETTERS)]
    x = torch.tensor([[LETTERS.index(letter) for letter in name] for name in names]).float().reshape(-1, 1, 1, LENGTH)
    x = x[torch.randperm(len(x))]
    return Dataset("names", train=x[:-600], valid=x[-600:-300], test=x[-300:], likelihood="categorical")


class Encoder(nn.Module):
    """x -> q(z|x), by a recurrent network."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(LETTERS), 32)
        self.recurrent = nn.GRU(32, 64, batch_first=True, bidirectional=True)
        self.out = nn.Linear(128, 2 * latent)

    def forward(self, x: Tensor) -> Distribution:
        h, _ = self.recurrent(self.embed(x.reshape(-1, LENGTH).long()))
        loc, log_scale = self.out(h.amax(1)).reshape(*x.shape[:-3], -1).chunk(2, -1)
        return Independent(Normal(loc, log_scale.clamp(-5, 2).exp()), 1)


class Decoder(nn.Module):
    """z -> p(x|z), in which a letter depends on z, on its place and on the letters just before it."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(len(LETTERS) + 1, 32), nn.Parameter(torch.zeros(LENGTH, 128))
        self.before, self.code = nn.Linear(SEEN * 32, 128), nn.Linear(latent, 128)
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, len(LETTERS)))

    def conditionals(self, z: Tensor, x: Tensor) -> Distribution:
        before = pad(x.flatten(-3), (SEEN, -1), value=len(LETTERS)).long().unfold(-1, SEEN, 1)
        h = self.before(self.embed(before).flatten(-2)) + self.code(z).unsqueeze(-2) + self.place
        return Independent(Categorical(logits=self.out(h).unflatten(-2, (1, 1, LENGTH)), validate_args=False), 3)

    def forward(self, z: Tensor) -> Distribution:
        conditionals, event = partial(self.conditionals, z), (1, 1, LENGTH)
        draws = lambda shape: naive_pixel_draws(conditionals, z.new_zeros(*shape, *event))  # noqa: E731
        return Autoregressive(conditionals, z.shape[:-1], event, draws=draws)


def main(epochs: int = 60, samples: int = 200) -> None:
    torch.manual_seed(0)
    data = make_data()
    model = VAE(Encoder(16), Decoder(16), MixtureOfGaussians(16, 100))
    outcome = fit(model, objectives.ELBO(warmup=20), data, epochs=epochs, warmup=20, lr=2e-3, accelerator="cpu")
    result = estimate(outcome.load_best(model), data.test, samples=samples)
    print(f"log p(x) of {len(data.test)} names: {result.log_likelihood.mean():.2f} nats")
    for codes in model.sample((8,)).reshape(8, -1).long().tolist():
        print("".join(LETTERS[code] for code in codes))


if __name__ == "__main__":
    main()
