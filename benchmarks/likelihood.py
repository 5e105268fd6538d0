"""What an effective sample of each likelihood estimate costs, for a run's model.

    python benchmarks/likelihood.py RUN --number 40 --simulated 20
    python benchmarks/likelihood.py --render

All methods estimate log p(x) of the same test examples, one thread. Seconds are those of the processor, so that
other work on the machine counts little.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from record import Record
from vaepriors.annealing import Annealing, Bounds, bidirectional
from vaepriors.app.choices import markdown_table
from vaepriors.app.run import Run
from vaepriors.checkpoint import write_json
from vaepriors.likelihood import ImportanceSampling, Method, estimate
from vaepriors.numerics import fixed_numerics, seed_of
from vaepriors.refinement import Refinement
from vaepriors.store import session

METHODS: dict[str, Method] = {
    "5,000 draws from q(z\\|x)": ImportanceSampling(5000),
    "5,000 draws from refined posteriors": ImportanceSampling(5000, Refinement()),
    "16 chains, 300 temperatures": Annealing(16, 300),
    "8 chains from refined posteriors, 50 temperatures": Annealing(8, 50, posterior=Refinement()),
}
COLUMNS = ["method", "s an image", "log p(x)", "ELBO", "effective samples", "median", "an s", "gap"]


def measure(run: Run, number: int, simulated: int, methods: dict[str, Method], seed: int = 0) -> list[dict[str, Any]]:
    """Each method on the same test examples, chosen at random, and its gap on simulated ones."""
    data = run.dataset()
    model, _ = run.model(data)
    chosen = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:number]
    cases = []
    for name, method in methods.items():
        torch.manual_seed(seed_of(seed, "likelihood", name))
        began = time.process_time()
        each = estimate(model, data.test[chosen], method)
        seconds, effective = time.process_time() - began, each.effective_samples
        gap = _gap(bidirectional(model, simulated, method)) if simulated and isinstance(method, Annealing) else None
        cases.append(
            {
                "method": name,
                "seconds": round(seconds, 2),
                "log_likelihood": round(each.log_likelihood.mean().item(), 4),
                "elbo": round(each.elbo.mean().item(), 4),
                "effective_samples_mean": round(effective.mean().item(), 2),
                "effective_samples_median": round(effective.median().item(), 2),
                "effective_samples_per_second": round(effective.sum().item() / seconds, 2),
                "gap": gap,
            }
        )
        print(cases[-1], flush=True)
    return cases


def _gap(bounds: Bounds) -> tuple[float, float]:
    """The gap and its standard error."""
    distance = bounds.upper - bounds.lower
    return round(bounds.gap, 4), round(distance.std().item() / len(distance) ** 0.5, 4)


def render(result: dict[str, Any]) -> str:
    """The table of a recorded benchmark, in Markdown."""
    rows = [
        [
            case["method"],
            f"{case['seconds'] / result['number']:.2g}",
            f"{case['log_likelihood']:.2f}",
            f"{case['elbo']:.2f}",
            f"{case['effective_samples_mean']:.1f}",
            f"{case['effective_samples_median']:.1f}",
            f"{case['effective_samples_per_second']:.3g}",
            "" if case["gap"] is None else "{:.2f} ± {:.2f}".format(*case["gap"]),
        ]
        for case in result["cases"]
    ]
    measured, e = result["measured"], result["experiment"]
    about = f"{e['model']} with the prior {e['prior']} on {e['data']}, {e['epochs']} epochs"
    head = f"{about}; {result['number']} test images, gap on {result['simulated']} simulated ones"
    machine = f"{measured['hardware']}; commit {measured['commit']}"
    return f"{head}; {machine}.\n\n{markdown_table(COLUMNS, rows)}"


RECORD = Record("likelihood", "speed.md", render)


@fixed_numerics()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--number", type=int, default=40, help="test examples, chosen at random")
    parser.add_argument("--simulated", type=int, default=20, help="examples that the model draws, for the gap")
    parser.add_argument("--render", action="store_true", help="only put the recorded table into docs/speed.md")
    given = parser.parse_args()
    if given.render:
        RECORD.render()
        return
    if given.run is None:
        parser.error("name the folder of a run, or --render")
    torch.set_num_threads(1)
    run = Run(given.run)
    content = {
        "experiment": run.description()["experiment"],
        "number": given.number,
        "simulated": given.simulated,
        "cases": measure(run, given.number, given.simulated, METHODS),
        "measured": session(0, torch.device("cpu")),
    }
    write_json(RECORD.path, content)


if __name__ == "__main__":
    main()
