"""The time of a training step with each prior of the table, beside the standard one.

    python benchmarks/priors.py [--priors vamp exemplar] [--rounds 30] [--out results/benchmarks/priors.json]
    python benchmarks/priors.py --render        # the table of docs/speed.md, from results/benchmarks/priors.json

The dense VAE of Tomczak & Welling 2018, batches of 100 images 28 x 28 of noise, one thread, and the defaults of each
prior (500 components, or 500 exemplars drawn in each step). All are in one process and take turns, in another order in
each round. A ratio is the median over rounds of a prior's time over that of the standard one in the same round.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import ours
from record import Record
from speed import rates
from turns import seconds
from vaepriors.app.choices import markdown_table
from vaepriors.app.experiment import PRIORS, Experiment, build
from vaepriors.checkpoint import write_json
from vaepriors.data import Dataset
from vaepriors.numerics import fixed_numerics
from vaepriors.optim import adam
from vaepriors.store import session
from vaepriors.training import Losses


def step_of(prior: str, data: Dataset, device: torch.device) -> Callable[[], None]:
    """A training step on the next batch, as `fit` takes it."""
    torch.manual_seed(0)
    model, objective = (part.to(device) for part in build(Experiment(data="static_mnist", prior=prior), data))
    losses = Losses(model, objective, data.train.to(device), data.dynamic)
    optimizer = adam(model, objective, 5e-4)
    batches = torch.randperm(len(data.train), device=device).view(-1, ours.BATCH)
    turn = iter(range(10**9))

    def step() -> None:
        optimizer.zero_grad()
        losses(batches[next(turn) % len(batches)])[0].backward()
        optimizer.step()

    return step


@fixed_numerics()
def measure(priors: Sequence[str], rounds: int, steps: int = 5, images: int = 10_000) -> dict[str, Any]:
    """Times of steps with the standard prior and others, with what the machine is.

    Args:
        priors: Names of the others.
        rounds: Turns of each prior.
        steps: Steps of a turn, of which the mean is taken.
        images: Size of the training set.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = ours.noise(images)
    calls = {name: step_of(name, data, device) for name in dict.fromkeys(["standard", *priors])}
    for call in calls.values():  # the first ones allocate
        seconds(call, 3)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in random.Random(number).sample(list(calls), len(calls)):
            times[name].append(seconds(calls[name], steps))
    return {
        "session": session(0, device),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "steps": steps,
        "cases": [case(name, times[name], times["standard"]) for name in calls],
    }


def case(prior: str, times: Sequence[float], standard: Sequence[float]) -> dict[str, Any]:
    """The record of a prior: median and quartiles of the time, and the median of the ratios to the standard prior."""
    ratios = [each / other for each, other in zip(times, standard, strict=True)]
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
    return {
        "prior": prior,
        "ms_per_step": round(statistics.median(times) * 1e3, 2),
        "quartiles_ms": [round(quartiles[0] * 1e3, 2), round(quartiles[2] * 1e3, 2)],
        "ratio": round(statistics.median(ratios), 2),
    }


def render(result: dict[str, Any]) -> str:
    """The record as a table of Markdown."""
    rows = [
        [each["prior"], f"{each['ms_per_step']:.1f}", "{:.1f} to {:.1f}".format(*each["quartiles_ms"]), each["ratio"]]
        for each in result["cases"]
    ]
    columns = ("prior", "ms a step", "quartiles", "times the standard prior's step")
    table = markdown_table(columns, [[str(cell) for cell in row] for row in rows])
    return f"{result['session']['hardware']}; commit {result['session']['commit']}.\n\n{table}"


RECORD = Record("priors", "speed.md", render)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--priors", nargs="+", choices=list(PRIORS), default=list(PRIORS))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--render", action="store_true", help="only put the recorded table into docs/speed.md")
    given = parser.parse_args()
    if given.render:
        RECORD.render()
        return
    torch.set_num_threads(given.threads)
    result = measure(given.priors, given.rounds)
    print(render(result))
    if given.out:
        result["gflops_per_second"] = rates(torch.device(result["device"]))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.out, result)


if __name__ == "__main__":
    main()
