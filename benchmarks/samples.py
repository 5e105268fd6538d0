"""How the estimate of log p(x) grows with the number of importance samples, for a run's model.

    python benchmarks/samples.py RUN --samples 500 5000 50000 --number 60

The estimate is a lower bound in the mean. Where it still grows, the posterior of the encoder fits badly, and a
difference of as much between two models may be one of their encoders alone.
"""

import argparse
import json
import math
from pathlib import Path

import torch

from vaepriors.app.run import Run
from vaepriors.checkpoint import write_json
from vaepriors.likelihood import estimate
from vaepriors.numerics import seed_of
from vaepriors.store import session


def growth(run: Run, samples: list[int], number: int, seed: int = 0) -> list[dict[str, float]]:
    """For each number of samples: log p(x), its standard error over the examples, the ELBO, the effective samples."""
    data = run.dataset()
    model, _ = run.model(data)
    chosen = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:number]
    found = []
    for n in samples:
        torch.manual_seed(seed_of(seed, "samples", n))
        each = estimate(model, data.test[chosen], n)
        log_p = each.log_likelihood
        found.append(
            {
                "samples": n,
                "log_likelihood": round(log_p.mean().item(), 4),
                "se": round(log_p.std().item() / math.sqrt(len(log_p)), 4),
                "elbo": round(each.elbo.mean().item(), 4),
                "effective_samples": round(each.effective_samples.mean().item(), 2),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, nargs="+", default=[500, 5000, 50_000])
    parser.add_argument("--number", type=int, default=60, help="test examples, chosen at random")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/samples.json"))
    given = parser.parse_args()
    run = Run(given.run)
    found = growth(run, given.samples, given.number)
    content = {
        "experiment": run.description()["experiment"],
        "number": given.number,
        "growth": found,
        "measured": session(0, torch.device("cpu")),
    }
    write_json(given.out, content)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
