"""Pictures of the pendulum, as in Klushyn et al. 2019, figures 2 to 4."""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vaepriors.analysis import Graph, NoPath
from vaepriors.app.report.pictures import grid, save_figure, save_png
from vaepriors.app.run import Run
from vaepriors.conditional import unconditional
from vaepriors.data import Dataset
from vaepriors.numerics import keep_generators
from vaepriors.vae import VAE

__all__ = ["draw_half_turn", "draw_latent_plane", "write_pictures"]

NODES, NEIGHBORS = 1000, 18  # of the graph, as in the paper
CURVES = {"beta": "beta", "error_average": "error and bound"}  # metrics of an epoch, and their titles


def write_pictures(run: Run, dataset: Dataset, which: str) -> list[Path]:
    """Write latent.png and, unless the graph has no path from 0 to 180 degrees, path.png into the run's folder.

    The codes of the run are in a plane, and the labels of its data are the angles. Returns the files.
    """
    latent, path = run / "latent.png", run / "path.png"
    with keep_generators():
        torch.manual_seed(0)
        save_figure(latent, draw_latent_plane(run, dataset, which))
        torch.manual_seed(0)
        try:
            save_png(path, draw_half_turn(unconditional(run.model(dataset, which)[0]), dataset))
        except NoPath:
            path.unlink(missing_ok=True)  # of an earlier model
            return [latent]
    return [latent, path]


@torch.no_grad()
def draw_latent_plane(run: Run, dataset: Dataset, which: str) -> Figure:
    """Posterior means, coloured by the angle, above samples of the prior, at the snapshots and at `which`; and beta."""
    metrics = run.metrics()[: run.model(dataset, which)[1]["epoch"]]
    numbers = sorted(int(path.stem.removeprefix("epoch-")) for path in run.folder.glob("epoch-*.ckpt"))
    shown = [f"epoch-{number}" for number in numbers if number < len(metrics)] + [which]
    curves = {name: title for name, title in CURVES.items() if name in metrics[-1]}
    columns = len(shown) + bool(curves)
    figure = Figure(figsize=(2.4 * columns, 5), layout="constrained")
    axes = figure.subplots(2, columns)
    for column, each in zip(axes.T, shown, strict=False):
        model, values = run.model(dataset, each)
        column[0].set_title(f"epoch {values['epoch']}")
        _draw_codes(column, unconditional(model), dataset)
    axes[0, 0].set_ylabel("posterior means")
    axes[1, 0].set_ylabel("prior samples")
    if curves:
        _draw_curves(axes[:, -1], metrics, curves)
    return figure


def _draw_codes(axes: np.ndarray, model: VAE, dataset: Dataset) -> None:
    """Posterior means of the test set, above as many samples of the prior, on the same scale."""
    z = model.encoder(dataset.test).mean
    axes[0].scatter(*z.T, c=dataset.labels["test"], cmap="hsv", s=1)
    axes[1].plot(*model.prior().sample((len(z),)).T, ".", markersize=1, color="0.4")
    low, high = z.min(0).values, z.max(0).values
    (left, bottom), (right, top) = (low - 0.2 * (high - low)).tolist(), (high + 0.2 * (high - low)).tolist()
    for axis in axes:
        axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])


def _draw_curves(axes: np.ndarray, metrics: list[dict[str, float]], curves: dict[str, str]) -> None:
    """Beta above the reconstruction error and its bound, where the objective has them."""
    for axis in axes[len(curves) :]:
        axis.axis("off")
    for axis, (name, title) in zip(axes, curves.items(), strict=False):
        axis.plot([line["epoch"] for line in metrics], [line[name] for line in metrics])
        axis.set(title=title, yscale="log")
    if "error_bound" in metrics[-1]:
        axes[1].axhline(metrics[-1]["error_bound"], linestyle="--", color="0.5")


@torch.no_grad()
def draw_half_turn(model: VAE, dataset: Dataset) -> np.ndarray:
    """The pendulum from 0 to 180 degrees: twenty images along the shortest path in a graph of prior samples."""
    angles: Tensor = dataset.labels["test"]
    ends = [int((angles - angle).abs().argmin()) for angle in (0.0, math.pi)]
    start, goal = model.encoder(dataset.test[ends]).mean
    path = Graph(model.prior().sample((NODES,)), NEIGHBORS).path(start, goal)
    steps = torch.linspace(0, len(path) - 1, 20).round().long()
    return grid(model.decoder(path[steps]).mean, columns=20)
