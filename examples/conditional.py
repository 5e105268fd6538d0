"""A VAE given the class of a handwritten digit, whose VampPrior has components for each class: train, draw a class.

python examples/conditional.py
"""

import torch

from vaepriors import ConditionalVAE, PerClass, VampPrior, data, estimate, fit, networks, objectives


def main(epochs: int = 100, samples: int = 1000) -> None:
    torch.manual_seed(0)
    digits = data.load("digits", condition="labels")  # y: one-hot classes
    encoder = networks.Appended(networks.Encoder((64 + 10,), [300, 300], 16), 10, view=torch.nn.Flatten(-3))
    decoder = networks.Appended(networks.Decoder(digits.event_shape, [300, 300], 16 + 10), 10)
    y = digits.conditions["train"][:100]  # the pseudo-inputs start at these digits and keep their classes
    prior = PerClass(VampPrior(encoder, digits.train[:100], conditions=y), y.argmax(1))
    model = ConditionalVAE(encoder, decoder, prior)

    fit(model, objectives.ELBO(warmup=20), digits, epochs=epochs, warmup=20, accelerator="cpu").load_best(model)
    result = estimate(model, digits.test, samples=samples, condition=digits.conditions["test"])
    print(f"log p(x|y) of the test digits: {result.log_likelihood.mean():.2f} nats, ELBO {result.elbo.mean():.2f}")
    three = model(torch.eye(10)[3]).sample((1,))[0, 0]
    print("a three:", *("".join(" #"[int(pixel)] for pixel in row) for row in three), sep="\n")


if __name__ == "__main__":
    main()
