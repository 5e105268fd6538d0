"""A VAE with a VampPrior on handwritten digits: train, estimate log p(x), draw.

python examples/vampprior.py
"""

import torch

from vaepriors import VAE, VampPrior, data, estimate, fit, networks, objectives


def main(epochs: int = 60, samples: int = 1000) -> None:
    torch.manual_seed(0)
    digits = data.load("digits")  # 8 x 8 pixels, binarised anew at each visit
    encoder = networks.Encoder(digits.event_shape, [300, 300], 16)
    decoder = networks.Decoder(digits.event_shape, [300, 300], 16)
    prior = VampPrior(encoder, digits.train[:100] + 0.01 * torch.randn(100, 1, 8, 8))
    model = VAE(encoder, decoder, prior)

    outcome = fit(model, objectives.ELBO(warmup=20), digits, epochs=epochs, warmup=20, accelerator="cpu")
    outcome.load_best(model)
    print(f"{outcome.reason}: best validation loss {outcome.best_loss:.2f} nats at epoch {outcome.best_epoch}")

    result = estimate(model, digits.test, samples=samples)
    print(f"log p(x) of the test digits: {result.log_likelihood.mean():.2f} nats, ELBO {result.elbo.mean():.2f}")
    print("a draw:", *("".join(" #"[int(pixel)] for pixel in row) for row in model.sample((1,))[0, 0]), sep="\n")


if __name__ == "__main__":
    main()
