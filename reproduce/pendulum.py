"""The pendulum of Klushyn et al. 2019: table 1 and the latent pictures of figure 2, from trained runs.

    for seed in 0 1 2 3 4; do
        python reproduce/pendulum.py train rewo geco elbo wu20 wu200 --seeds $seed --epochs 256 --runs runs
    done
    python reproduce/pendulum.py table --runs runs --out results/pendulum

`train` goes on with what was begun. `table` takes every run that has reached its last epoch, measures the angle on the
test set at that epoch, and writes one JSON file a run, the table (table.md), and a picture for each run.
"""

import argparse
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from matplotlib.figure import Figure

from vaepriors import cli
from vaepriors.checkpoint import write_atomically
from vaepriors.data import Dataset
from vaepriors.latent import angle_regression
from vaepriors.run import Run, hardware, session

COMMON = [
    "--data", "pendulum", "--model", "mlp", "--prior", "vhp", "--latent", "2", "--batch-size", "128", "--lr", "1e-4",
    "--no-normalize", "--patience", "1000000", "--sigma", "0.02",
]  # fmt: skip
CONSTRAINT = ["--kappa", "0.02", "--nu", "5"]
METHODS = {
    "rewo": (["--objective", "rewo", *CONSTRAINT], "VHP + REWO", 0.054),
    "geco": (["--objective", "geco", *CONSTRAINT], "VHP + GECO", 0.53),
    "elbo": (["--objective", "elbo", "--warmup", "0"], "VHP", 0.49),
    "wu20": (["--objective", "elbo", "--warmup", "20"], "VHP + warm-up of 20 epochs", 0.20),
    "wu200": (["--objective", "elbo", "--warmup", "200"], "VHP + warm-up of 200 epochs", 0.31),
}
SNAPSHOTS = [3, 17, 43, 85]  # epochs of 118 steps: iterations 350, 2,000, 5,000, 10,000


def train(methods: list[str], seeds: list[int], epochs: int, runs: Path) -> None:
    for seed in seeds:
        for method in methods:
            options = [*COMMON, *METHODS[method][0], "--epochs", str(epochs), "--seed", str(seed), "--resume"]
            snapshots = ["--snapshots", *map(str, SNAPSHOTS)]
            try:
                cli.main(["train", *options, *snapshots, "--out", str(runs / f"pendulum-{method}-{seed}")])
            except SystemExit as end:
                if end.code:
                    raise


@torch.no_grad()
def measure(run: Run, dataset: Dataset) -> dict[str, object]:
    """What one finished run has learned, at its last epoch."""
    model, values = run.model(dataset, "last")
    q = model.encoder(dataset.test)
    found = angle_regression(q.mean, dataset.labels["test"])
    metrics = run.metrics()
    error = (model.decoder(q.mean).mean - dataset.test).square().mean().sqrt().item()
    return {
        **run.description(),
        "epoch": values["epoch"],
        "steps": values["epoch"] * math.ceil(len(dataset.train) / 128),
        "hours": round(sum(line["seconds"] for line in metrics) / 3600, 3),
        "angle_error": found.error,
        "winding": found.winding,
        "reconstruction_error": error,
        "beta": metrics[-1]["beta"],
        "valid_loss": metrics[-1]["valid_loss"],
        "measured_on": hardware(torch.device("cpu")),
        "measured_by": session(values["epoch"], torch.device("cpu"))["commit"],
    }


@torch.no_grad()
def picture(run: Run, dataset: Dataset) -> Figure:
    """Posterior means coloured by the angle above samples of the prior, over the epochs; and beta."""
    metrics = run.metrics()
    kept = [f"epoch-{n}" for n in SNAPSHOTS if (run / f"epoch-{n}.ckpt").is_file()] + ["last"]
    figure = Figure(figsize=(2.4 * (len(kept) + 1), 5), layout="constrained")
    axes = figure.subplots(2, len(kept) + 1)
    torch.manual_seed(0)
    for column, which in enumerate(kept):
        model, values = run.model(dataset, which)
        z = model.encoder(dataset.test).mean
        drawn = model.prior().sample((len(z),))
        axes[0, column].scatter(*z.T, c=dataset.labels["test"], cmap="hsv", s=1)
        axes[1, column].plot(*drawn.T, ".", markersize=1, color="0.4")
        axes[0, column].set_title(f"epoch {values['epoch']}")
        low, high = z.min(0).values, z.max(0).values
        (left, bottom), (right, top) = (low - 0.2 * (high - low)).tolist(), (high + 0.2 * (high - low)).tolist()
        for axis in axes[:, column]:
            axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    axes[0, 0].set_ylabel("posterior means")
    axes[1, 0].set_ylabel("prior samples")
    axes[0, -1].plot([line["epoch"] for line in metrics], [line["beta"] for line in metrics])
    axes[0, -1].set(title="beta", yscale="log")
    names = ("error_average", "error_bound") if "error_average" in metrics[-1] else ("constraint", "bound")
    if names[0] in metrics[-1]:
        axes[1, -1].plot([line["epoch"] for line in metrics], [line[names[0]] for line in metrics])
        axes[1, -1].axhline(metrics[-1][names[1]], linestyle="--", color="0.5")
        axes[1, -1].set(title="error and its bound", yscale="log")
    else:
        axes[1, -1].axis("off")
    return figure


def table(runs: Path, out: Path) -> None:
    found: dict[str, list[dict[str, object]]] = defaultdict(list)
    out.mkdir(parents=True, exist_ok=True)
    for method in METHODS:
        for folder in sorted(runs.glob(f"pendulum-{method}-*")):
            run = Run(folder)
            if not run.exists() or not (run / "last.ckpt").is_file():
                continue
            if len(run.metrics()) < run.experiment().epochs:
                continue  # not finished
            dataset = run.dataset()
            result = measure(run, dataset)
            write_atomically(out / f"{folder.name}.json", (json.dumps(result, indent=2) + "\n").encode())
            picture(run, dataset).savefig(out / f"{folder.name}.png", dpi=80)
            found[method].append(result)
    lines = [
        "| method | paper | absolute error, radians | each seed (turns) | beta at the end | epochs |",
        "|---|---|---|---|---|---|",
    ]
    for method, results in found.items():
        errors = [float(result["angle_error"]) for result in results]  # type: ignore[arg-type]
        spread = f" ± {statistics.stdev(errors):.3f}" if len(errors) > 1 else ""
        each = ", ".join(f"{e:.3f} ({r['winding']})" for e, r in zip(errors, results, strict=True))
        betas = ", ".join(f"{r['beta']:.3g}" for r in results)
        epochs = ", ".join(sorted({str(r["epoch"]) for r in results}))
        name, paper = METHODS[method][1:]
        lines.append(f"| {name} | {paper} | {statistics.mean(errors):.3f}{spread} | {each} | {betas} | {epochs} |")
    write_atomically(out / "table.md", ("\n".join(lines) + "\n").encode())
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trainer = commands.add_parser("train")
    trainer.add_argument("methods", nargs="+", choices=METHODS)
    trainer.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    trainer.add_argument("--epochs", type=int, default=256)
    trainer.add_argument("--runs", type=Path, default=Path("runs"))
    tabler = commands.add_parser("table")
    tabler.add_argument("--runs", type=Path, default=Path("runs"))
    tabler.add_argument("--out", type=Path, default=Path("results/pendulum"))
    given = parser.parse_args()
    if given.command == "train":
        train(given.methods, given.seeds, given.epochs, given.runs)
    else:
        table(given.runs, given.out)


if __name__ == "__main__":
    main()
