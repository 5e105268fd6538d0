"""Several copies of a dense VAE trained in one process with stacked parameters, beside one after another.

    python benchmarks/seeds.py [--out results/benchmarks/seeds.json]

The copies are stacked by torch.func, and every product becomes a batch of products. Median times of a step of all.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from ours import BATCH, experiment, noise
from turns import seconds
from vaepriors.app.experiment import build
from vaepriors.checkpoint import write_json
from vaepriors.numerics import fixed_numerics
from vaepriors.store import session


def steps(prior: str, copies: int, device: torch.device) -> tuple[Callable[[], None], Callable[[], None]]:
    """A step of all copies together, and one of each in turn; by torch's own Adam, without normalisation."""
    torch.manual_seed(0)
    data = noise(1000)
    x = data.train.round().to(device)
    models = [build(experiment("vae", prior), data)[0].to(device) for _ in range(copies)]
    stacked, buffers = stack_module_state(models)
    template = copy.deepcopy(models[0])

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
        return -functional_call(template, (parameters, buffers), (batch,)).elbo.mean()

    gradients = vmap(grad(loss), randomness="different")
    leaves = {name: nn.Parameter(tensor.detach().clone()) for name, tensor in stacked.items()}
    joint = torch.optim.Adam(leaves.values(), 5e-4, fused=True)
    alone = [torch.optim.Adam(model.parameters(), 5e-4, fused=True) for model in models]

    def together() -> None:
        batch = x[torch.randint(len(x), (copies, BATCH), device=device)]
        found = gradients({name: leaf.detach() for name, leaf in leaves.items()}, buffers, batch)
        for name, leaf in leaves.items():
            leaf.grad = found[name]
        joint.step()

    def in_turn() -> None:
        for model, optimizer in zip(models, alone, strict=True):
            optimizer.zero_grad()
            (-model(x[torch.randint(len(x), (BATCH,), device=device)]).elbo.mean()).backward()
            optimizer.step()

    return together, in_turn


def measure(prior: str, copies: int, rounds: int, device: torch.device) -> dict[str, Any]:
    calls = dict(zip(("together_ms", "in_turn_ms"), steps(prior, copies, device), strict=True))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name, call in calls.items():
            spent = seconds(call, 1)
            if number >= 2:
                times[name].append(spent * 1e3)
    return {"prior": prior, "copies": copies} | {
        name: round(statistics.median(each), 2) for name, each in times.items()
    }


@fixed_numerics()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = [measure(p, copies, given.rounds, device) for p in ("standard", "vamp") for copies in (1, 5, 8)]
    for case in cases:
        print(case)
    if given.out:
        content = {"session": session(0, device), "rounds": given.rounds, "vae": cases}
        write_json(given.out, content)


if __name__ == "__main__":
    main()
