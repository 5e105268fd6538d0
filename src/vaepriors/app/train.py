"""The training of an experiment: names become objects, and the run's folder is the store."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch

from vaepriors.app.cost import check_memory
from vaepriors.app.experiment import OBJECTIVES, Experiment, build
from vaepriors.app.run import Run
from vaepriors.data import Dataset
from vaepriors.devices import open_devices
from vaepriors.numerics import seed_of
from vaepriors.training import Callback, Outcome, Settings, Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["check_start", "fit", "make_fabric", "prepare", "settings_of"]


def make_fabric(experiment: Experiment) -> "Fabric":
    """The devices of an experiment."""
    return open_devices(experiment.accelerator, experiment.devices, experiment.nodes, experiment.precision)


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """The values of `Settings` in an experiment, by name."""
    return {field.name: getattr(experiment, field.name) for field in dataclasses.fields(Settings)}


def prepare(
    experiment: Experiment, dataset: Dataset, run: Run, fabric: "Fabric", callbacks: Sequence[Callback] = ()
) -> Training:
    """The training of an experiment, ready to run, with initial weights that follow from its seed."""
    torch.manual_seed(seed_of(experiment.seed, "weights"))
    model, objective = build(experiment, dataset)
    settings = Settings(**settings_of(experiment))
    return Training(model, objective, dataset, settings, fabric, run, callbacks, dataclasses.asdict(experiment))


def fit(
    experiment: Experiment,
    dataset: Dataset,
    run: Run,
    fabric: "Fabric | None" = None,
    callbacks: Sequence[Callback] = (),
    save_every: float = 30.0,
    snapshots: Collection[int] = (),
    deadline: float | None = None,
) -> Outcome:
    """Train an experiment, or resume it if the run's folder has a checkpoint.

    Args:
        experiment: What to run.
        dataset: Its data.
        run: Where to write.
        fabric: Devices, launched; made from the experiment if not given.
        callbacks, save_every, snapshots, deadline: As for `vaepriors.fit`.

    Raises:
        ValueError: If the experiment does not fit the data or the memory; if the folder has the run of another
            experiment, or of other data, or of as many epochs already; if its files are damaged; if the objective
            needs the weights of another run to start from.
        Busy: If another process works in the folder.
        Diverged: If a loss is not finite; the last checkpoint, of an epoch before, is kept.
        OSError: If the disk is full; the last checkpoint is kept.
    """
    run.check_folder(experiment)
    check_start(experiment, run)
    fabric = make_fabric(experiment) if fabric is None else fabric
    check_memory(experiment, dataset, fabric.device)
    return prepare(experiment, dataset, run, fabric, callbacks).run(save_every, snapshots, deadline)


def check_start(experiment: Experiment, run: Run) -> None:
    """Refuse to begin an experiment whose weights come from another run."""
    if OBJECTIVES[experiment.objective].facts.get("needs_start", False) and not run.has("last"):
        raise ValueError(
            f"the objective {experiment.objective} starts from the model of a trained run: use vaepriors refit RUN "
            f"--prior {experiment.prior} --out {run.folder}"
        )
