"""Time of a training step and of the 5,000-sample likelihood, beside the arithmetic floor.

    python benchmarks/hvae.py [--rounds 20] [--components 500] [--out results/benchmark.json]

HVAE of Tomczak & Welling 2018 on 28 x 28 binary images, batch 100, with the standard prior and the VampPrior, in turn.
The floor is the number of multiply-adds (counted below, layer by layer) over the rate that this machine reaches in
matrix products of the model's own sizes; no program whose products run at that rate can be faster.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from vaepriors.checkpoint import write_atomically
from vaepriors.data import Dataset
from vaepriors.evaluate import estimate
from vaepriors.experiment import Experiment, build
from vaepriors.optim import adam
from vaepriors.run import session

D, B, S = 784, 100, 5000
TOP, BOTTOM, PRIOR, DECODER = 674_400, 878_400, 228_000, 643_200  # multiply-adds a sample of q2, q1, p1, p(x|z)
FIRST = 2 * D * 300  # a gated first layer on data, whose input needs no gradient
X_HALF = 470_400  # of q1, once an image


def step_flops(components: int) -> float:
    """Operations of a step: forward, and twice that backward, less the input gradients of layers on data."""
    a_sample = 3 * (TOP + BOTTOM + PRIOR + DECODER) - 2 * FIRST
    return 2 * (B * a_sample + 3 * components * TOP + 3 * B * components * 80)


def likelihood_flops(components: int) -> float:
    """Operations of one image's likelihood: the encoder's x part once, all else for each sample."""
    return 2 * (TOP + X_HALF + S * (BOTTOM - X_HALF + PRIOR + DECODER + components * 80))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matmul_rate(device: torch.device) -> float:
    """Operations a second of a (1000, 300) x (300, 784) product in float32, the best of many."""
    a, w = torch.randn(1000, 300, device=device), torch.randn(784, 300, device=device)
    return 2 * 1000 * 300 * 784 / min(seconds(lambda: F.linear(a, w)) for _ in range(100))


class Case:
    """A model with its step and its likelihood."""

    def __init__(self, prior: str, components: int, device: torch.device) -> None:
        torch.manual_seed(0)
        x = torch.rand(1000, 1, 28, 28).round()
        data = Dataset("noise", x, x[:10], x[:10], "bernoulli", pseudo=(0.05, 0.01))
        experiment = Experiment(model="hvae", prior=prior, components=components or None)
        model, objective = build(experiment, data)
        self.model, self.objective = model.to(device), objective.to(device)
        self.optimizer = adam(self.model.parameters(), 5e-4)
        self.x, self.components, self.name = x.to(device), components, prior
        self.times: dict[str, list[float]] = {"step": [], "likelihood": []}

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.objective(self.model(self.x[torch.randint(1000, (B,), device=self.x.device)])).backward()
        self.optimizer.step()

    def likelihood(self) -> None:
        estimate(self.model, self.x[:1], S)

    def round(self) -> None:
        self.times["step"].append(seconds(lambda: [self.step() for _ in range(5)]) / 5)
        self.times["likelihood"].append(seconds(self.likelihood))

    def result(self, rate: float) -> dict[str, float | str]:
        step, likelihood = (statistics.median(self.times[name]) * 1e3 for name in ("step", "likelihood"))
        floors = [flops / rate * 1e3 for flops in (step_flops(self.components), likelihood_flops(self.components))]
        return {
            "prior": self.name,
            "components": self.components,
            "ms_per_step": round(step, 2),
            "step_floor_ms": round(floors[0], 2),
            "ms_per_image": round(likelihood, 1),
            "image_floor_ms": round(floors[1], 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--components", type=int, default=500)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_flush_denormal(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = [Case("standard", 0, device), Case("vamp", given.components, device)]
    for case in cases:
        case.step()  # the first one allocates
    for _ in range(given.rounds):
        for case in cases:
            case.round()
    rate = matmul_rate(device)
    result = {
        "session": session(0, device),
        "rounds": given.rounds,
        "gflops_per_second": round(rate / 1e9, 1),
        "hvae": [case.result(rate) for case in cases],
    }
    print(f"{result['session']['hardware']}, {result['gflops_per_second']} GFLOP/s in float32 products")
    print(f"{'prior':>10} {'ms a step':>10} {'floor':>8} {'ratio':>6} {'ms an image':>12} {'floor':>8} {'ratio':>6}")
    for row in result["hvae"]:
        step, image = row["ms_per_step"] / row["step_floor_ms"], row["ms_per_image"] / row["image_floor_ms"]
        print(
            f"{row['prior']:>10} {row['ms_per_step']:>10.2f} {row['step_floor_ms']:>8.2f} {step:>6.2f} "
            f"{row['ms_per_image']:>12.1f} {row['image_floor_ms']:>8.1f} {image:>6.2f}"
        )
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(given.out, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
