"""A case of the benchmark: a model, a prior, and a variant of this library (a name in `speed.VARIANTS`)."""

import sys

import torch

import turns
from vaepriors.app.cost import gflop_per_image, gflop_per_step
from vaepriors.app.experiment import Experiment, build
from vaepriors.compilation import Graphed, compiled
from vaepriors.data import Dataset
from vaepriors.likelihood import estimate
from vaepriors.numerics import fixed_numerics
from vaepriors.optim import adam
from vaepriors.training import Losses

BATCH, SAMPLES, COMPONENTS = 100, 5000, 500


def noise(number: int) -> Dataset:
    x = torch.rand(number, 1, 28, 28)
    return Dataset("noise", x, x[:10].round(), x[:10].round(), "bernoulli", pseudo=(0.05, 0.01), dynamic=True)


def experiment(model: str, prior: str) -> Experiment:
    return Experiment(data="static_mnist", model=model, prior=prior, components=COMPONENTS if prior == "vamp" else None)


@fixed_numerics()
def main(model: str, prior: str, variant: str) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    data = noise(10_000)
    vae, objective = build(experiment(model, prior), data)
    vae, objective, x = vae.to(device), objective.to(device), data.train.to(device)
    losses = Losses(vae, objective, x, data.dynamic)
    if "compile" in variant or variant == "reduce-overhead":
        losses = compiled(losses, variant if variant == "reduce-overhead" else "default")
    precision = torch.autocast(device.type, torch.bfloat16, enabled=variant.startswith("bf16"))
    optimizer = adam(vae, objective, 5e-4, capturable=variant == "graph")

    def step(rows: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        with precision:
            result = losses(rows)
        result[0].backward()
        optimizer.step()
        return result.detach()

    run = Graphed(step) if variant == "graph" else step
    batches = torch.randperm(len(x), device=device).view(-1, BATCH)
    turn = iter(range(10**9))
    case = experiment(model, prior)
    facts = {"gflop_per_step": gflop_per_step(case), "gflop_per_image": gflop_per_image(case, SAMPLES)}
    slow = model in ("convhvae", "pixelhvae") and device.type == "cpu"  # seconds a step
    steps = 1 if slow else 10
    bits = data.test[:1].to(device)
    turns.serve(
        lambda: run(batches[next(turn) % len(batches)]),
        lambda: estimate(vae, bits, SAMPLES),
        steps if device.type == "cpu" else 100,
        1 if slow else 5,
        {name: round(value, 4) for name, value in facts.items()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
