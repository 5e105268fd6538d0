"""Two levels of latent variables, z2 and z1. Encoder and prior are chains; the model is the same `VAE`.

python examples/hvae.py
"""

import torch

from vaepriors import VAE, TwoLevelPrior, VampPrior, analysis, data, estimate, fit, networks, objectives

LATENT, HIDDEN = 8, [100, 100]


def main(epochs: int = 60, samples: int = 1000) -> None:
    torch.manual_seed(0)
    digits = data.load("digits")
    encoder = networks.hierarchical_encoder(digits.event_shape, HIDDEN, LATENT)  # q(z2|x) q(z1|x,z2)
    decoder = networks.hierarchical_decoder(digits.event_shape, HIDDEN, LATENT)  # p(x|z1,z2)
    top = VampPrior(encoder.top, digits.train[:100] + 0.01 * torch.randn(100, 1, 8, 8))  # p(z2)
    prior = TwoLevelPrior(top, networks.conditional(LATENT, HIDDEN, LATENT), (LATENT, LATENT))  # p(z2) p(z1|z2)
    model = VAE(encoder, decoder, prior)

    outcome = fit(model, objectives.ELBO(warmup=20), digits, epochs=epochs, warmup=20, accelerator="cpu")
    outcome.load_best(model)
    print(f"log p(x): {estimate(model, digits.test[:100], samples=samples).log_likelihood.mean():.2f} nats")
    divergences = analysis.divergence_of_units(model, digits.test)
    for level, values in divergences.items():
        print(f"{level}: {values.sum():.2f} nats over {len(values)} units")


if __name__ == "__main__":
    main()
