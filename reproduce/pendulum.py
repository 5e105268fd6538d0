"""Pictures of the pendulum of Klushyn et al. 2019, figures 2 to 4, from runs of the tables vhp-1 and vhp-figure-3.

    vaepriors reproduce run vhp-1 --seeds 5
    python reproduce/pendulum.py runs/reproduce/vhp-1/*/* --out results/pendulum

For each run two pictures: posterior means, coloured by the angle, above samples of the prior, at the snapshots and the
last epoch, with the curves of beta and of the error; and the way from 0 to 180 degrees in a graph of 1,000 samples.
"""

import argparse
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure

from vaepriors.analysis import Graph, NoPath
from vaepriors.app.report.pictures import grid, save_figure, save_png
from vaepriors.app.run import Run
from vaepriors.data import Dataset


@torch.no_grad()
def picture(run: Run, dataset: Dataset, which: str = "last") -> Figure:
    """Posterior means coloured by the angle above samples of the prior, over the epochs; and beta."""
    last = run.model(dataset, which)[1]["epoch"]
    metrics = run.metrics()[:last]
    numbers = sorted(int(path.stem.removeprefix("epoch-")) for path in run.folder.glob("epoch-*.ckpt"))
    kept = [f"epoch-{n}" for n in numbers if n < last] + [which]
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
    for axis, name, title in ((axes[0, -1], "beta", "beta"), (axes[1, -1], "error_average", "error and its bound")):
        if name in metrics[-1]:
            axis.plot([line["epoch"] for line in metrics], [line[name] for line in metrics])
            axis.set(title=title, yscale="log")
        else:
            axis.axis("off")
    if "error_bound" in metrics[-1]:
        axes[1, -1].axhline(metrics[-1]["error_bound"], linestyle="--", color="0.5")
    return figure


@torch.no_grad()
def half_a_turn(run: Run, dataset: Dataset, which: str = "last") -> torch.Tensor:
    """The pendulum from 0 to 180 degrees, in twenty pictures of one path. Raises `NoPath`."""
    model, _ = run.model(dataset, which)
    torch.manual_seed(0)
    angles = dataset.labels["test"]
    ends = [int((angles - angle).abs().argmin()) for angle in (0.0, math.pi)]
    start, goal = model.encoder(dataset.test[ends]).mean
    through = Graph(model.prior().sample((1000,)), 18).path(start, goal)
    shown = through[torch.linspace(0, len(through) - 1, 20).round().long()]
    return grid(model.decoder(shown).mean, columns=20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders METHOD/SEED")
    parser.add_argument("--out", type=Path, default=Path("results/pendulum"))
    parser.add_argument("--which", default="last", help="last, or epoch-N of a snapshot")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for folder in given.runs:
        run = Run(folder)
        if not run.exists():  # the lock beside it
            continue
        dataset, name = run.dataset(), f"pendulum-{folder.parent.name}-{folder.name}"
        save_figure(given.out / f"{name}.png", picture(run, dataset, given.which))
        try:
            save_png(given.out / f"{name}-path.png", half_a_turn(run, dataset, given.which))
        except NoPath as none:
            print(f"{folder}: {none}")


if __name__ == "__main__":
    main()
