"""REWO beside a later controller of the authors' laboratory, on the pendulum.

    python benchmarks/controller.py [--seeds 5] [--epochs 43] [--out results/benchmarks/controller.json]
    python benchmarks/controller.py --render      # the table of docs/results.md, from what was recorded

The laboratory published a later program, of deep variational Bayes filters. Its controller differs from algorithm 1 of
Klushyn et al. 2019: the initial phase leaves the divergence out, the bound is on the negative log-density instead of
the squared error, tau is 100, and beta changes in every 100th step, by a factor in [0.9, 1.05]. The other options are
those of the row `rewo` of table `vhp-1`. Both controllers have the same initial weights and the same noise. A run that
was interrupted is resumed from --runs.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from record import Record
from vaepriors import VAE, Dataset, Folder, data, fit, papers
from vaepriors.analysis import angle_regression
from vaepriors.app.choices import markdown_table
from vaepriors.app.experiment import Experiment, build
from vaepriors.app.train import settings_of
from vaepriors.checkpoint import write_json
from vaepriors.numerics import seed_of
from vaepriors.objectives import REWO
from vaepriors.store import session
from vaepriors.vae import Terms


class LaterREWO(REWO):
    r"""REWO with the later controller: beta changes by $\exp(\nu f \delta) \in [0.9, 1.05]$ in every 100th step.

    The bound on the negative log-density of a normal likelihood of scale $\sigma$ is that of the squared error, so
    $\delta = (\hat C - \kappa^2) / 2\sigma^2$.
    """

    EVERY, LEAST, MOST = 100, 0.9, 1.05

    def __init__(self, kappa: float, nu: float, sigma: float) -> None:
        super().__init__(kappa, nu, tau=100.0)
        self.sigma = sigma

    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        loss, terms = super().forward(model, x)
        if not self.training:
            return loss, terms
        return (self.main * self.log_beta.exp() * terms.log_ratio - terms.log_likelihood).mean(), terms

    def _updated(self, excess: Tensor) -> Tensor:
        f = torch.where(excess < 0, torch.tanh(self.tau * torch.expm1(self.log_beta)), -1.0)
        factor = torch.exp(self.nu * f * excess / (2 * self.sigma**2)).clamp(self.LEAST, self.MOST)
        changed = (self.log_beta + factor.log()).clamp(-16, 0)
        return torch.where(self.step % self.EVERY == 0, changed, self.log_beta)


CONTROLLERS = {
    "algorithm 1": lambda experiment: REWO(experiment.kappa, experiment.nu),
    "later": lambda experiment: LaterREWO(experiment.kappa, experiment.nu, experiment.sigma),
}


def found(experiment: Experiment, controller: str, dataset: Dataset, runs: Path) -> dict[str, Any]:
    """The angle's error, the winding number and beta at the end of a training."""
    torch.manual_seed(seed_of(experiment.seed, "weights"))
    model, _ = build(experiment, dataset)
    objective = CONTROLLERS[controller](experiment)
    store = Folder(runs / controller.replace(" ", "-") / str(experiment.seed))
    fit(model, objective, dataset, store=store, accelerator="cpu", **settings_of(experiment))
    with torch.no_grad():
        regression = angle_regression(model.eval().encoder(dataset.test).mean, dataset.labels["test"])
    return {"error": regression.error, "winding": regression.winding, "beta": objective.log_beta.exp().item()}


def measure(seeds: int, epochs: int, runs: Path) -> dict[str, Any]:
    (row,) = papers.select("vhp-1", ["rewo"])
    rows: dict[str, list[dict[str, Any]]] = {controller: [] for controller in CONTROLLERS}
    for seed in range(seeds):
        experiment = dataclasses.replace(row.experiment, seed=seed, epochs=epochs)
        dataset = data.load("pendulum", seed=seed)
        for controller in CONTROLLERS:
            rows[controller].append(found(experiment, controller, dataset, runs))
            print(controller, seed, rows[controller][-1], flush=True)
    return {"session": session(0, torch.device("cpu")), "epochs": epochs, "rows": rows}


def table_of(recorded: dict[str, Any]) -> str:
    lines = [
        [name, *(f"{run['error']:.3f} ({run['winding']})" for run in runs), f"{max(run['beta'] for run in runs):.2g}"]
        for name, runs in recorded["rows"].items()
    ]
    seeds = len(next(iter(recorded["rows"].values())))
    return markdown_table(["controller", *(f"seed {seed}" for seed in range(seeds)), "largest beta"], lines)


RECORD = Record("controller", "results.md", table_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=43)
    parser.add_argument("--runs", type=Path, default=Path("runs/controller"))
    parser.add_argument("--out", type=Path, default=RECORD.path)
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    if options.render:
        RECORD.render()
    else:
        write_json(options.out, measure(options.seeds, options.epochs, options.runs))


if __name__ == "__main__":
    main()
