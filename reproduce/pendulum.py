"""The pendulum of Klushyn et al. 2019: table 1 and the pictures of figures 2 to 4, from trained runs.

    for seed in 0 1 2 3 4; do
        python reproduce/pendulum.py train rewo geco elbo wu20 wu200 --seeds $seed --epochs 256 --runs runs
    done
    python reproduce/pendulum.py table --runs runs --out results/pendulum

`train` goes on with what was begun, also with more epochs. `table` measures the angle on the test set for every run
that has reached its last epoch, or has the snapshot of the epoch that `--epoch` names, and writes one JSON file a run,
the table (table.md), and a picture for each run.
"""

import argparse
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from matplotlib.figure import Figure

from rows import finished, train
from vaepriors.checkpoint import write_atomically
from vaepriors.data import Dataset
from vaepriors.interpolate import Graph, NoPath
from vaepriors.latent import angle_regression
from vaepriors.machine import hardware
from vaepriors.report.pictures import grid, save_png
from vaepriors.run import Run, session

COMMON = [
    "--data", "pendulum", "--model", "mlp", "--latent", "2", "--batch-size", "128", "--lr", "1e-4",
    "--no-normalize", "--patience", "1000000", "--sigma", "0.02",
]  # fmt: skip
VHP = ["--prior", "vhp"]
CONSTRAINT = ["--kappa", "0.02", "--nu", "5"]
METHODS = {
    "rewo": ([*VHP, "--objective", "rewo", *CONSTRAINT], "VHP + REWO", 0.054),
    "geco": ([*VHP, "--objective", "geco", *CONSTRAINT], "VHP + GECO", 0.53),
    "elbo": ([*VHP, "--objective", "elbo", "--warmup", "0"], "VHP", 0.49),
    "wu20": ([*VHP, "--objective", "elbo", "--warmup", "20"], "VHP + warm-up of 20 epochs", 0.20),
    "wu200": ([*VHP, "--objective", "elbo", "--warmup", "200"], "VHP + warm-up of 200 epochs", 0.31),
    "iwae": (["--objective", "iwae", "--samples", "16"], "IWAE (figures 3 and 4)", None),
}
SNAPSHOTS = [3, 17, 43, 85]  # epochs of 118 steps: iterations 350, 2,000, 5,000, 10,000


def rows(methods: list[str], seeds: list[int], epochs: int) -> dict[str, list[str]]:
    length = ["--epochs", str(epochs), "--snapshots", *map(str, SNAPSHOTS)]
    return {
        f"pendulum-{method}-{seed}": [*COMMON, *METHODS[method][0], *length, "--seed", str(seed)]
        for seed in seeds
        for method in methods
    }


@torch.no_grad()
def measure(run: Run, dataset: Dataset, which: str) -> dict[str, object]:
    """What one run has learned, at a snapshot or at its last epoch."""
    model, values = run.model(dataset, which)
    q = model.encoder(dataset.test)
    found = angle_regression(q.mean, dataset.labels["test"])
    metrics = run.metrics()[: values["epoch"]]
    error = (model.decoder(q.mean).mean - dataset.test).square().mean().sqrt().item()
    return {
        **run.description(),
        "epoch": values["epoch"],
        "steps": values["epoch"] * math.ceil(len(dataset.train) / 128),
        "hours": round(sum(line["seconds"] for line in metrics) / 3600, 3),
        "angle_error": found.error,
        "winding": found.winding,
        "reconstruction_error": error,
        "beta": metrics[-1].get("beta"),
        "valid_loss": metrics[-1]["valid_loss"],
        "measured_on": hardware(torch.device("cpu")),
        "measured_by": session(values["epoch"], torch.device("cpu"))["commit"],
    }


@torch.no_grad()
def picture(run: Run, dataset: Dataset, which: str) -> Figure:
    """Posterior means coloured by the angle above samples of the prior, over the epochs; and beta."""
    last = run.model(dataset, which)[1]["epoch"]
    metrics = run.metrics()[:last]
    kept = [f"epoch-{n}" for n in SNAPSHOTS if n < last and (run / f"epoch-{n}.ckpt").is_file()] + [which]
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
    if "beta" in metrics[-1]:
        axes[0, -1].plot([line["epoch"] for line in metrics], [line["beta"] for line in metrics])
        axes[0, -1].set(title="beta", yscale="log")
    else:
        axes[0, -1].axis("off")
    names = ("error_average", "error_bound") if "error_average" in metrics[-1] else ("constraint", "bound")
    if names[0] in metrics[-1]:
        axes[1, -1].plot([line["epoch"] for line in metrics], [line[names[0]] for line in metrics])
        axes[1, -1].axhline(metrics[-1][names[1]], linestyle="--", color="0.5")
        axes[1, -1].set(title="error and its bound", yscale="log")
    else:
        axes[1, -1].axis("off")
    return figure


@torch.no_grad()
def half_a_turn(run: Run, dataset: Dataset, which: str, path: Path) -> None:
    """Figures 3 and 4: the way from the pendulum at 0 to that at 180 degrees through a graph of 1,000 prior samples."""
    model, _ = run.model(dataset, which)
    torch.manual_seed(0)
    angles = dataset.labels["test"]
    ends = [int((angles - angle).abs().argmin()) for angle in (0.0, math.pi)]
    start, goal = model.encoder(dataset.test[ends]).mean
    try:
        through = Graph(model.prior().sample((1000,)), 18).path(start, goal)
    except NoPath as none:
        print(f"{run.folder}: {none}")
        return
    shown = through[torch.linspace(0, len(through) - 1, 20).round().long()]
    save_png(path, grid(model.decoder(shown).mean, columns=20))


def table(runs: Path, out: Path, epoch: int | None = None) -> None:
    which = "last" if epoch is None else f"epoch-{epoch}"
    found: dict[str, list[dict[str, object]]] = defaultdict(list)
    out.mkdir(parents=True, exist_ok=True)
    for method in METHODS:
        pattern = f"pendulum-{method}-*"
        ready = (
            finished(runs, pattern)
            if epoch is None
            else [p.parent for p in sorted(runs.glob(f"{pattern}/{which}.ckpt"))]
        )
        for folder in ready:
            run = Run(folder)
            dataset = run.dataset()
            result = measure(run, dataset, which)
            write_atomically(out / f"{folder.name}.json", (json.dumps(result, indent=2) + "\n").encode())
            picture(run, dataset, which).savefig(out / f"{folder.name}.png", dpi=80)
            half_a_turn(run, dataset, which, out / f"{folder.name}-path.png")
            found[method].append(result)
    lines = [
        "| method | paper | absolute error, radians | each seed (turns) | beta at the end | epochs |",
        "|---|---|---|---|---|---|",
    ]
    for method, results in found.items():
        errors = [float(result["angle_error"]) for result in results]  # type: ignore[arg-type]
        spread = f" ± {statistics.stdev(errors):.3f}" if len(errors) > 1 else ""
        each = ", ".join(f"{e:.3f} ({r['winding']})" for e, r in zip(errors, results, strict=True))
        betas = ", ".join("" if r["beta"] is None else f"{r['beta']:.3g}" for r in results)
        epochs = ", ".join(sorted({str(r["epoch"]) for r in results}))
        name, paper = METHODS[method][1], METHODS[method][2] or ""
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
    tabler.add_argument(
        "--epoch", type=int, choices=SNAPSHOTS, help="measure the snapshots of this epoch, not the last"
    )
    given = parser.parse_args()
    if given.command == "train":
        train(rows(given.methods, given.seeds, given.epochs), given.runs)
    else:
        table(given.runs, given.out, given.epoch)


if __name__ == "__main__":
    main()
