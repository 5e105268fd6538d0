"""The MNISTs and OMNIGLOT of Klushyn et al. 2019, table 2: every row as a run, and what has been evaluated of it.

    python reproduce/images.py train --data static_mnist --methods rewo iwae --runs runs
    python reproduce/images.py table --runs runs --out results/images

`train` goes on with what was begun; on a CPU a row takes days. `table` evaluates finished runs that have no
evaluation.json yet, with 5,000 samples, and writes table.md. The networks are those of the paper's table 3.
"""

import argparse
import json
from pathlib import Path

from rows import finished, train
from vaepriors.checkpoint import write_atomically
from vaepriors.evaluate import evaluate_run
from vaepriors.results import record
from vaepriors.run import Run

COMMON = ["--model", "conv", "--latent", "32", "--lr", "5e-4", "--batch-size", "100", "--no-normalize"]
DATA = {"dynamic_mnist": 0.18, "static_mnist": 0.18, "fashion_mnist": 0.31, "omniglot": 0.18}  # with kappa
METHODS = {
    "rewo": (["--prior", "vhp", "--objective", "rewo", "--nu", "1"], "VHP + REWO", (78.88, 82.74, 225.37, 101.78)),
    "geco": (["--prior", "vhp", "--objective", "geco", "--nu", "1"], "VHP + GECO", (95.01, 96.32, 234.73, 108.97)),
    "vamp": (["--prior", "vamp"], "VampPrior", (80.42, 84.02, 232.78, 101.97)),
    "iwae": (["--objective", "iwae", "--samples", "16"], "IWAE, one level", (81.36, 84.46, 226.83, 101.57)),
    "iwae2": (
        ["--prior", "vhp", "--prior-samples", "1", "--objective", "iwae", "--samples", "16"],
        "IWAE, two levels",
        (80.66, 82.83, 225.39, 101.83),
    ),
}


def rows(data: list[str], methods: list[str], seeds: list[int], more: list[str]) -> dict[str, list[str]]:
    found = {}
    for seed in seeds:
        for name in data:
            for method in methods:
                bound = ["--kappa", str(DATA[name])] if method in ("rewo", "geco") else []
                options = ["--data", name, *COMMON, *METHODS[method][0], *bound, "--seed", str(seed), *more]
                found[f"{name}-conv-{method}-{seed}"] = options
    return found


def table(runs: Path, out: Path, samples: int = 5000) -> None:
    lines = ["| data | method | seed | paper, -log p | ours | epochs |", "|---|---|---|---|---|---|"]
    out.mkdir(parents=True, exist_ok=True)
    for column, name in enumerate(DATA):
        for method, (_, title, paper) in METHODS.items():
            for folder in finished(runs, f"{name}-conv-{method}-*"):
                run = Run(folder)
                if not (run / "evaluation.json").is_file():
                    evaluate_run(run, samples)
                record(run, out, paper[column], "Klushyn et al. 2019, table 2")
                found = json.loads((run / "evaluation.json").read_text())
                ours = f"{found['nll']:.2f} ± {found['nll_se']:.2f}"
                seed = run.experiment().seed
                lines.append(f"| {name} | {title} | {seed} | {paper[column]} | {ours} | {found['epoch']} |")
    write_atomically(out / "table.md", ("\n".join(lines) + "\n").encode())
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trainer = commands.add_parser("train", help="options that are not known here go to vaepriors train")
    trainer.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    trainer.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    trainer.add_argument("--seeds", type=int, nargs="+", default=[0])
    trainer.add_argument("--runs", type=Path, default=Path("runs"))
    tabler = commands.add_parser("table")
    tabler.add_argument("--runs", type=Path, default=Path("runs"))
    tabler.add_argument("--out", type=Path, default=Path("results/images"))
    given, more = parser.parse_known_args()
    if given.command == "train":
        train(rows(given.data, given.methods, given.seeds, more), given.runs)
    elif more:
        parser.error(f"unknown options {more}")
    else:
        table(given.runs, given.out)


if __name__ == "__main__":
    main()
