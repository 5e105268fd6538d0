"""What is measured of a run beside its likelihood: the pendulum's angle, and the smoothness of interpolations.

Each measure gives the numbers to record, and the pictures that go with them.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaepriors.analysis import angle_regression
from vaepriors.app.interpolation import interpolate_run
from vaepriors.app.report.paths import write_interpolations
from vaepriors.app.run import Run
from vaepriors.data import Dataset
from vaepriors.devices import hardware
from vaepriors.papers.pendulum import write_pictures

__all__ = ["Measurement", "measure_angle", "measure_smoothness"]


class Measurement(NamedTuple):
    """Numbers to record, and files of the run's folder to copy beside them: pictures, arrays."""

    numbers: dict[str, Any]
    files: list[Path]


@torch.no_grad()
def measure_angle(run: Run, dataset: Dataset, which: str) -> Measurement:
    """What a run has learned of the pendulum's angle (Klushyn et al. 2019, table 1, figures 2 to 4), on the test set.

    The same numbers on the training set are there to choose between set-ups.
    """
    model, values = run.model(dataset, which)
    z = model.encoder(dataset.test).mean
    regression = angle_regression(z, dataset.labels["test"])
    in_training = angle_regression(model.encoder(dataset.train).mean, dataset.labels["train"])
    line = run.metrics()[values["epoch"] - 1]
    numbers = {
        **_place(dataset, which, values["epoch"]),
        "angle_error": regression.error,
        "winding": regression.winding,
        "train_angle_error": in_training.error,
        "train_winding": in_training.winding,
        "reconstruction_error": (model.decoder(z).mean - dataset.test).square().mean().sqrt().item(),
        "beta": line.get("beta"),
        "valid_loss": line["valid_loss"],
    }
    return Measurement(numbers, write_pictures(run, dataset, which))


def measure_smoothness(
    run: Run,
    dataset: Dataset,
    which: str,
    pairs: int = 100,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    """How smoothly a run's interpolations move (Klushyn et al. 2019, figures 5 to 8), over 10 graphs.

    `smoothness` is the mean over the nodes on the shortest paths; `interpolation` has it for points at equal distances
    and for straight lines, too. The standard error takes the pairs as independent.
    """
    result, first = interpolate_run(run, pairs=pairs, which=which, progress=progress)
    with_path = result["graphs"] * result["pairs"] - result["pairs_without_path"]
    on_path = result["smoothness"]["graph"]
    numbers = {
        **_place(dataset, which, result["epoch"]),
        "smoothness": on_path["mean"],
        "smoothness_se": on_path["sd"] / math.sqrt(with_path) if with_path > 1 else None,
        "interpolation": result,
        "metrics": run.metrics()[result["epoch"] - 1],
    }
    return Measurement(numbers, write_interpolations(run.folder, first, dataset))


def _place(dataset: Dataset, which: str, epoch: int) -> dict[str, Any]:
    """Of what model and data a measurement is."""
    device = hardware(torch.device("cpu"))
    return {"split": "test", "checkpoint": which, "epoch": epoch, "n": len(dataset.test), "device": device}
