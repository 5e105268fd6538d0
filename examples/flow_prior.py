"""A normalising flow as prior: a zuko flow is a module whose call returns a distribution, so it fits as it is.

pip install zuko
python examples/flow_prior.py
"""

import torch
import zuko

from vaepriors import VAE, StandardNormal, data, estimate, fit, networks, objectives


def main(epochs: int = 60, samples: int = 1000) -> None:
    digits = data.load("digits")
    for name in ("standard normal", "neural spline flow"):
        torch.manual_seed(0)
        encoder = networks.Encoder(digits.event_shape, [100, 100], 8)
        decoder = networks.Decoder(digits.event_shape, [100, 100], 8)
        prior = StandardNormal(8) if name == "standard normal" else zuko.flows.NSF(8, transforms=2)
        model = VAE(encoder, decoder, prior)
        outcome = fit(model, objectives.ELBO(warmup=20), digits, epochs=epochs, warmup=20, accelerator="cpu")
        result = estimate(outcome.load_best(model), digits.test, samples=samples)
        print(f"{name}: log p(x) {result.log_likelihood.mean():.2f} nats")


if __name__ == "__main__":
    main()
