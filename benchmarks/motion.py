"""How exactly two latent numbers can describe the frames of human motion, by how their channels are scaled.

    python benchmarks/motion.py [--steps 17500] [--out results/benchmarks/motion.json]
    python benchmarks/motion.py --render      # the table of docs/results.md, from results/benchmarks/motion.json

Klushyn et al. 2019 bound the reconstruction error, the root of the mean square over channels, by kappa = 0.02, and do
not say how the channels are scaled. This trains encoder and decoder as REWO does in its initial phase, with the weight
0.001 of the divergence and a prior that stands still; here it is N(0, I). REWO stays in this phase until the error is
below the bound. The other options are those of the row `vhp` of table `vhp-figure-8`. The error of two principal
components stands beside it.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from record import Record
from vaepriors import VAE, Dataset, Folder, fit, objectives
from vaepriors.app.choices import markdown_table
from vaepriors.app.experiment import Experiment, build
from vaepriors.checkpoint import write_json
from vaepriors.data.motion import SOURCES, read_frames, read_texts
from vaepriors.distributions import residual
from vaepriors.numerics import seed_of
from vaepriors.store import session

BATCH = 128

SCALES = {  # of each channel, from the training frames
    "range of each channel": lambda x: np.ptp(x, 0),
    "standard deviation of each channel": lambda x: x.std(0),
    "largest range of all channels": lambda x: np.full(x.shape[1], np.ptp(x, 0).max()),
}


def scaled(scale: str) -> Dataset:
    """The frames with their channels divided by a scale, from 0 on."""
    x, _, parts, _ = read_frames(read_texts(SOURCES))
    width = SCALES[scale](x[parts["train"]])
    x = (x - x[parts["train"]].min(0)) / np.where(width > 0, width, 1.0)
    train, valid, test = (torch.from_numpy(x[parts[name]]).float() for name in ("train", "valid", "test"))
    return Dataset("cmu_motion", train, valid, test, likelihood="gaussian")


def error_of(model: VAE, x: Tensor) -> float:
    """The root of the mean square of x - E[x|z], for one draw of z for each x."""
    torch.manual_seed(0)
    with torch.no_grad():
        likelihood = model(x).likelihood
        return residual(likelihood, x).square().mean().sqrt().item()


def error_of_components(data: Dataset, number: int = 2) -> float:
    """The same of the first principal components of the training frames."""
    x = data.train[:].double()
    values = torch.linalg.svdvals(x - x.mean(0))
    return (values[number:].square().sum() / x.numel()).sqrt().item()


def measure(steps: list[int], scales: list[str]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for scale in scales:
        data = scaled(scale)
        experiment = Experiment(data="cmu_motion", model="mlp", latent=2, sigma=0.02)
        torch.manual_seed(seed_of(0, "weights"))
        model, _ = build(experiment, data)
        rewo = objectives.REWO(kappa=1e-9, nu=1.0)  # a bound that is never met: the initial phase does not end
        rows[scale] = {"components": error_of_components(data), "errors": {}}
        with tempfile.TemporaryDirectory() as folder:
            for number in steps:
                epochs = round(number * BATCH / len(data.train))
                options: Any = {"batch_size": BATCH, "lr": 1e-4, "normalize": False, "patience": 10**6}
                fit(model, rewo, data, epochs=epochs, store=Folder(folder), accelerator="cpu", **options)
                model.eval()
                rows[scale]["errors"][number] = [error_of(model, x[:]) for x in (data.train, data.test)]
                print(scale, number, rows[scale], flush=True)
    return {"session": session(0, torch.device("cpu")), "rows": rows}


def table_of(recorded: dict[str, Any]) -> str:
    steps = list(next(iter(recorded["rows"].values()))["errors"])
    lines = [
        [scale, f"{row['components']:.3f}", *(f"{row['errors'][n][0]:.3f}, {row['errors'][n][1]:.3f}" for n in steps)]
        for scale, row in recorded["rows"].items()
    ]
    head = [
        "channels divided by",
        "two principal components",
        *(f"{int(n):,} steps: train, test" for n in steps),
    ]
    return markdown_table(head, lines)


RECORD = Record("motion", "results.md", table_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[17_500])
    parser.add_argument("--scales", nargs="+", choices=SCALES, default=list(SCALES))
    parser.add_argument("--out", type=Path, default=RECORD.path)
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    if options.render:
        RECORD.render()
    else:
        write_json(options.out, measure(sorted(options.steps), options.scales))


if __name__ == "__main__":
    main()
