"""Figures of a latent space: units, the parts of the ELBO, codes beside draws of the prior."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from torch import Tensor

from vaepriors.analysis import ImpliedPosterior, Surgery
from vaepriors.networks.mixed import Column
from vaepriors.vae import VAE

__all__ = [
    "components",
    "coordinates",
    "histogram",
    "implied",
    "logarithmic",
    "marginals",
    "plane",
    "rate_distortion",
    "scatter",
    "shown",
    "surgeries",
    "units",
]


def shown(name: str) -> str:
    r"""A name as a label: dollar signs begin no formula, and an underscore does not hide it from the legend.

    >>> print(shown("_$a$"))
     _\$a\$
    """
    name = name.encode(errors="backslashreplace").decode().replace("$", r"\$")  # it may be no UTF-8
    return f" {name}" if name.startswith("_") else name


class _Plain(LogFormatter):
    """The numbers of a logarithmic axis as 0.02, not as 2 x 10^-2."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis of a picture logarithmic, with plain numbers."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(_Plain())
    axis.set_minor_formatter(_Plain())


def histogram(values: dict[str, np.ndarray]) -> Figure:
    """log p(x) of the examples of one or more runs (Tomczak & Welling 2018, figure 7), in nats."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    every = np.concatenate(list(values.values()))
    edges = np.linspace(every.min(), every.max() + 1e-9, max(5, min(60, len(every) // 5))).tolist()
    for name, each in values.items():
        axis.hist(each, edges, histtype="stepfilled", alpha=0.5, label=shown(name), density=len(values) > 1)
        axis.axvline(each.mean(), linestyle="--", linewidth=1, color="0.4")
    axis.set(xlabel="log p(x), nats", ylabel="examples" if len(values) == 1 else "density")
    if len(values) > 1:
        axis.legend()
    return figure


def units(activity: dict[str, Tensor], divergence: dict[str, Tensor]) -> Figure:
    """Activity of each unit, and its divergence from the prior, sorted, by level, logarithmic."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, levels, threshold, title in (
        (left, activity, 0.01, "variance of the posterior mean"),
        (right, divergence, None, "divergence from the prior, nats"),
    ):
        for name, values in levels.items():
            heights = values.clamp_min(1e-6).sort(descending=True).values.cpu()
            axis.plot(range(1, len(heights) + 1), heights, ".-", label=name)
        if threshold is not None:
            axis.axhline(threshold, linestyle="--", linewidth=1, color="0.4")
        axis.set(title=title, xlabel="unit, sorted")
        logarithmic(axis, "y")
        if levels:
            axis.legend()
    return figure


def surgeries(parts: dict[str, Surgery]) -> Figure:
    """-ELBO as bars of its parts: the distortion, and on an axis of its own the rate, with log N as a mark.

    The distortion can be a hundred times the rate: on one axis the parts of the rate would vanish.
    """
    figure = Figure(figsize=(7, 1.6 + 0.5 * len(parts)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, each in enumerate(parts.values()):
        first = place == 0
        left.barh(place, each.distortion, color="C0", label="distortion" if first else None)
        start = 0.0
        for colour, name, width in (
            ("C1", "mutual information", each.mutual_information),
            ("C2", "marginal KL", each.marginal_kl),
        ):
            right.barh(place, width, left=start, color=colour, label=name if first else None)
            start += width
        ends = [place - 0.4, place + 0.4]
        right.plot([each.log_n, each.log_n], ends, "k--", linewidth=1, label="log N" if first else None)
    left.set(title="distortion", xlabel="nats", yticks=range(len(parts)), yticklabels=[shown(name) for name in parts])
    right.set(title="rate", xlabel="nats")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def rate_distortion(metrics: list[dict[str, Any]], points: dict[str, tuple[float, float]]) -> Figure:
    """Rate and distortion of the training, except its first tenth, and of the points; lines of equal ELBO."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axis = figure.subplots()
    metrics = metrics[len(metrics) // 10 :]
    if metrics:
        axis.plot(
            [line["rate"] for line in metrics],
            [line["distortion"] for line in metrics],
            "-",
            color="0.6",
            label="epochs of the training",
        )
    for name, (rate, distortion) in points.items():
        axis.plot(rate, distortion, "o", label=shown(name))
    low, high = axis.get_xlim()
    bottom, top = axis.get_ylim()
    for rate, distortion in points.values():
        axis.plot([low, high], [rate + distortion - low, rate + distortion - high], ":", color="0.5", linewidth=1)
    axis.set(xlabel="rate, nats", ylabel="distortion, nats", xlim=(low, high), ylim=(bottom, top))
    axis.legend()
    return figure


def plane(z: Tensor) -> tuple[Tensor, Tensor, list[str]]:
    """An affine map to the plane, as centre and matrix `(D, 2)`, with the names of its axes: z itself, or its PCA."""
    if z.shape[1] == 2:
        return torch.zeros(2).to(z), torch.eye(2).to(z), ["z1", "z2"]
    centre = z.mean(0)
    if z.shape[1] == 1:
        return torch.zeros(1).to(z), torch.tensor([[1.0, 0.0]]).to(z), ["z", ""]
    _, values, directions = torch.linalg.svd(z - centre, full_matrices=False)
    share = values.square() / values.square().sum().clamp_min(1e-30)
    names = [f"component {i + 1} ({100 * share[i].item():.0f} % of the variance)" for i in range(2)]
    return centre, directions[:2].T, names


def scatter(z: Tensor, drawn: Tensor, labels: Tensor | None = None) -> Figure:
    """Codes of examples, coloured by their label where there is one, beside as many draws of the prior."""
    centre, matrix, names = plane(z)
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    points, others = ((each - centre) @ matrix for each in (z, drawn))
    if labels is None:
        left.plot(*points.T.cpu(), ".", markersize=2)
    else:
        classes = len(labels.unique()) if not labels.is_floating_point() else 21
        colormap = "tab10" if classes <= 10 else "tab20" if classes <= 20 else "viridis"
        colours = left.scatter(*points.T.cpu(), c=labels.cpu(), s=3, cmap=colormap)
        figure.colorbar(colours, ax=right, label="label", shrink=0.8)
    right.plot(*others.T.cpu(), ".", markersize=2, color="0.4")
    left.set(title="codes of test examples", xlabel=names[0], ylabel=names[1])
    right.set(title="draws of the prior", xlabel=names[0])
    return figure


@torch.no_grad()
def implied(model: VAE, x: Tensor, samples: int, points: int = 80) -> Figure:
    """For z in a plane: q(z|x), q_EW(z|x) of `samples` draws, and p(z|x), on one grid (Cremer et al. 2017)."""
    q = model.encoder(x)
    reach = 4 * q.stddev.max()
    axes = [torch.linspace(-1, 1, points).to(x) * reach + centre for centre in q.mean]
    z = torch.cartesian_prod(*axes)
    exact = (model.decoder(z).log_prob(x) + model.prior().log_prob(z)).double()
    log_densities = {
        "q(z|x)": q.log_prob(z).double(),
        f"implied by {samples} draws": ImpliedPosterior(model, x, samples).log_prob(z),
        "p(z|x)": exact - exact.logsumexp(0),
    }
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes_of = figure.subplots(1, 3, sharex=True, sharey=True)
    for axis, (name, log_density) in zip(axes_of, log_densities.items(), strict=True):
        density = (log_density - log_density.max()).exp().view(points, points).T.cpu()
        axis.contourf(axes[0].cpu(), axes[1].cpu(), density, levels=np.linspace(0, 1, 11), cmap="Blues")
        axis.set(title=name, xlabel="z1")
    return figure


def coordinates(data: Tensor, drawn: Tensor) -> Figure:
    """Of vectors: mean and standard deviation of each coordinate, of the data and of draws of the model."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axis = figure.subplots()
    for colour, (name, x) in enumerate({"test examples": data, "draws of the model": drawn}.items()):
        x = x.flatten(1).cpu().float()  # draws of torch's Categorical are whole numbers
        mean, deviation = x.mean(0), x.std(0, correction=0)  # of one example, 0
        axis.plot(mean, color=f"C{colour}", label=name)
        axis.fill_between(range(len(mean)), mean - deviation, mean + deviation, color=f"C{colour}", alpha=0.25)
    axis.set(xlabel="coordinate")
    axis.legend()
    return figure


def marginals(columns: Sequence[Column], data: Tensor, drawn: Tensor) -> Figure:
    """Of a table: histograms of each column, of the observed cells and of draws of the model."""
    rows = -(-len(columns) // 4)
    figure = Figure(figsize=(10, 2.2 * rows), layout="constrained")
    axes = figure.subplots(rows, 4, squeeze=False).flatten()
    for axis in axes[len(columns) :]:
        axis.set_axis_off()
    for place, (axis, column) in enumerate(zip(axes, columns, strict=False)):
        pair = [x[:, place].cpu().double().numpy() for x in (data, drawn)]
        pair = [x[np.isfinite(x)] for x in pair]
        edges = _edges(column, np.concatenate(pair))
        for colour, x in enumerate(pair):
            axis.hist(x, edges, weights=np.full(len(x), 1 / max(1, len(x))), color=f"C{colour}", alpha=0.5)
        axis.set(title=f"{shown(column.name[:30])} ({column.kind})")
        if column.kind == "positive":
            logarithmic(axis, "x")
        if column.categories:
            axis.set_xticks(
                range(len(column.categories)), [shown(name[:12]) for name in column.categories], rotation=30
            )
    return figure


def _edges(column: Column, x: np.ndarray) -> np.ndarray:
    """Edges of the bins of a histogram: between whole values if they are few, otherwise up to the rare extremes."""
    if column.kind in ("bit", "count", "category") and x.max() < 30:
        return np.arange(x.max() + 2) - 0.5
    low, high = np.quantile(x, [0.005, 0.995])
    high = high if high > low else low + 1
    return np.geomspace(low, high, 21) if column.kind == "positive" else np.linspace(low, high, 21)


def components(series: dict[str, list[tuple[int, float]]], what: str) -> Figure:
    """A number against the number of components, a line for each kind of run (Tomczak & Welling 2018, figures 2, 3)."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    for name, points in series.items():
        k, values = zip(*sorted(points), strict=True)
        axis.plot(k, values, "o-", label=shown(name))
    axis.set(xlabel="components K", ylabel=what)
    logarithmic(axis, "x")
    axis.legend()
    return figure
