"""Pictures of interpolations: decoded paths, and the graph in a plane."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from vaepriors.app.interpolation import Interpolation
from vaepriors.app.report.pictures import grid, save_figure, save_png, tones
from vaepriors.data import Dataset

__all__ = ["write_interpolations"]

SHOWN, POINTS = 4, 10  # pairs in the picture of paths, and decoded points of each path


def write_interpolations(folder: Path, interpolations: list[Interpolation], dataset: Dataset) -> list[Path]:
    """Write interpolation.png, and for z in a plane graph.png; return the files.

    For images and stick figures each pair has a row along the path above a row along the straight line, each between
    the two data points; other vectors are drawn as curves of their coordinates. The interpolations are of one graph,
    and the first of them are in the picture of paths.
    """
    some = interpolations[:SHOWN]
    files = [folder / "interpolation.png"]
    if dataset.segments is not None:
        save_figure(files[0], _figures(some, dataset.segments))
    elif dataset.has_images:
        rows = [_along(x, each.ends) for each in some for x in (each.decoded, each.straight)]
        save_png(files[0], grid(tones(torch.cat(rows), dataset), columns=len(rows[0])))
    else:
        save_figure(files[0], _curves(some))
    if interpolations[0].path.shape[1] == 2:
        files.append(folder / "graph.png")
        graph = interpolations[0].graph
        save_figure(files[1], _plane(graph.nodes, graph.edges(), [each.path for each in some]))
    return files


def _along(x: Tensor, ends: Tensor) -> Tensor:
    """The first data point, images at equal numbers of steps along a path, the second data point."""
    places = torch.linspace(0, len(x) - 1, POINTS).round().long()
    return torch.cat([ends[:1], x[places], ends[1:]])


def _figures(interpolations: list[Interpolation], segments: Callable[[Tensor], Tensor]) -> Figure:
    """Stick figures, seen from the front: for each pair a row along the path above one along the straight line."""
    rows = [segments(_along(x, each.ends)) for each in interpolations for x in (each.decoded, each.straight)]
    figure = Figure(figsize=(12, 1.6 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for number, row in enumerate(rows):
        for place, lines in enumerate(row[..., :2].numpy()):
            shift = np.array([24.0 * place, -40.0 * number])
            axis.add_collection(LineCollection(list(lines + shift), colors="C1" if number % 2 else "C0", linewidths=1))
    axis.autoscale_view()
    axis.set_aspect("equal")
    axis.axis("off")
    return figure


def _curves(interpolations: list[Interpolation]) -> Figure:
    figure = Figure(figsize=(10, 2.5 * len(interpolations)), layout="constrained")
    axes = figure.subplots(len(interpolations), 2, squeeze=False, sharey="row")
    for row, each in zip(axes, interpolations, strict=True):
        for axis, x, title in zip(row, (each.decoded, each.straight), ("along the graph", "straight"), strict=True):
            axis.plot(np.linspace(0, 1, len(x)), x.flatten(1).cpu().numpy(), linewidth=0.8)
            axis.set_title(title)
    return figure


def _plane(nodes: Tensor, edges: Tensor, paths: list[Tensor]) -> Figure:
    figure = Figure(figsize=(6, 6), layout="constrained")
    axis = figure.subplots()
    lengths = (nodes[edges[:, 0]] - nodes[edges[:, 1]]).norm(dim=1).numpy()
    lines = LineCollection(list(nodes[edges].numpy()), array=lengths, cmap="Blues_r", linewidths=0.4)
    figure.colorbar(axis.add_collection(lines), ax=axis, label="length of an edge", shrink=0.7)
    axis.plot(*nodes.T.numpy(), ".", markersize=1, color="0.5")
    for number, path in enumerate(paths):
        axis.plot(*path.cpu().T.numpy(), color=matplotlib.color_sequences["tab10"][number % 10], linewidth=1.5)
    axis.set_aspect("equal")
    axis.set(xlabel="z1", ylabel="z2")
    return figure
