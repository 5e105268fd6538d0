"""Curves of a training: its metrics by epoch."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vaepriors.app.report.figures import logarithmic
from vaepriors.app.report.pictures import save_figure

__all__ = ["curves", "write_curves"]

# a panel: its title, the metrics in it, and whether it is logarithmic
PANELS = [
    ("loss, nats", ["loss", "valid_loss"], False),
    ("rate, nats", ["rate"], False),
    ("distortion, nats", ["distortion"], False),
    ("weight of the divergence", ["beta"], True),
    ("squared error and its bound", ["error", "error_average", "error_bound"], True),
]


def curves(metrics: list[dict[str, Any]]) -> Figure:
    """The metrics of all epochs, each kind in its own panel; kinds that the run does not have are left out."""
    if not metrics:
        raise ValueError("there is no epoch to draw: train for at least one")
    panels = [(title, [n for n in names if n in metrics[-1]], log) for title, names, log in PANELS]
    panels = [panel for panel in panels if panel[1]]
    figure = Figure(figsize=(3.2 * len(panels), 2.8), layout="constrained")
    for axis, (title, names, log) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in names:
            known = [line for line in metrics if line.get(name) is not None]
            values = [line[name] for line in known]
            axis.plot([line["epoch"] for line in known], values, ".-" if len(known) < 30 else "-", label=name)
            log = log and min(values) > 0
        axis.set(title=title, xlabel="epoch")
        if log:
            logarithmic(axis, "y")
        if len(names) > 1:
            axis.legend([name.replace("_", " ") for name in names])
    return figure


def write_curves(folder: Path, metrics: list[dict[str, Any]]) -> list[Path]:
    """Write curves.png; nothing if there is no epoch yet."""
    if not metrics:
        return []
    save_figure(folder / "curves.png", curves(metrics))
    return [folder / "curves.png"]
