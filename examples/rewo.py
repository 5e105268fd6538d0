"""A VAE as the prior of a VAE (VHP), trained with REWO under a bound on the reconstruction error.

python examples/rewo.py
"""

import torch

from vaepriors import VAE, VHP, StandardNormal, data, fit, networks, objectives

LATENT, HIDDEN = 4, [64, 64]


def main(epochs: int = 100) -> None:
    torch.manual_seed(0)
    digits = data.load("digits")
    inner = VAE(  # p(z) is itself a VAE, over u
        networks.Encoder((LATENT,), HIDDEN, LATENT),
        networks.conditional(LATENT, HIDDEN, LATENT),
        StandardNormal(LATENT),
    )
    model = VAE(
        networks.Encoder(digits.event_shape, HIDDEN, LATENT),
        networks.Decoder(digits.event_shape, HIDDEN, LATENT),
        VHP(inner, samples=16),
    )
    objective = objectives.REWO(kappa=0.35)  # bound on the root mean squared error of a pixel
    outcome = fit(model, objective, digits, epochs=epochs, accelerator="cpu")
    for line in outcome.metrics[:: max(1, epochs // 10)]:
        error, bound = line["error_average"] ** 0.5, line["error_bound"] ** 0.5  # the objective's are squared
        print(f"epoch {line['epoch']:3}  error {error:.3f} (bound {bound:.3f})  "
              f"beta {line['beta']:.4f}  validation loss {line['valid_loss']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
