"""The commands that write a run: train and refit."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vaepriors.app.experiment import CommandLine, Experiment, Prior, load_data
from vaepriors.app.groups import Accelerator
from vaepriors.app.terminal import counting_bar
from vaepriors.cli.shared import complain, console, warn
from vaepriors.data import Dataset, absolute, reading_progress
from vaepriors.data.columns import describe_columns
from vaepriors.devices import is_first

if TYPE_CHECKING:
    from vaepriors.app.run import Run
    from vaepriors.training import Outcome

__all__ = ["refit", "train"]


def train(
    options: Annotated[CommandLine, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes] = CommandLine(),  # noqa: B008
    out: Path | None = None,
    resume: bool = False,
    save_every: float = 30.0,
    snapshots: tuple[int, ...] = (),
    tensorboard: bool = False,
) -> int:
    """Train a model; options that are not given have the values of the paper.

    Args:
        options: What to run.
        out: Folder of the run; runs/DATA-MODEL-PRIOR-SEED unless given.
        resume: Resume the run in that folder, with its own options, or start it if it is not there and options are
            given. These may change: epochs, patience, accelerator, devices, nodes, stream, compile, graph; and data,
            where a file was moved.
        save_every: Seconds between checkpoints, 0 or more.
        snapshots: Epochs whose model is kept as epoch-N.ckpt; of a resumed run, epochs that are still to come.
        tensorboard: Also write TensorBoard event files (needs the extra `tensorboard`).
    """
    from vaepriors.app.cost import check_memory
    from vaepriors.app.run import Run
    from vaepriors.app.train import check_start, fit, make_fabric

    experiment = options.experiment()
    _check_saving(save_every, snapshots, experiment.epochs)
    experiment = experiment.replace(data=absolute(experiment.data))
    run = Run(out or default_folder(experiment))
    fabric = make_fabric(experiment)
    first = is_first()  # the others start when it has looked
    if first:
        _check_folder(run, experiment, resume)
        check_start(experiment, run)
    dataset = _read(experiment, run)
    if first:
        check_memory(experiment, dataset, fabric.device)  # as `fit` does, but before other processes start
        _show(dataset)
    fabric.launch()
    call = functools.partial(fit, experiment, dataset, run, fabric, save_every=save_every, snapshots=snapshots)
    return _follow(call, run, dataset, fabric.is_global_zero, tensorboard)


def _follow(
    call: Callable[..., "Outcome"], run: "Run", dataset: Dataset, is_first: bool, tensorboard: bool = False
) -> int:
    """Train with a progress bar, in the first process of several, and print how it ended.

    Args:
        call: The training, which takes `callbacks`.
        run, dataset: Of the training.
        is_first: Whether this is the first process.
        tensorboard: Whether to write TensorBoard event files.
    """
    from vaepriors.app.progress import TensorBoard, TrainingBar
    from vaepriors.training import Diverged

    if not is_first:
        call()
        return 0
    listeners = [TensorBoard(run.folder)] if tensorboard else []
    try:
        with TrainingBar(console, run.folder) as bar:
            outcome = call(callbacks=[bar, *listeners])
    except Diverged as error:
        return complain(f"{error}, in another --out{_extreme_value(dataset)}", 1)
    return _conclude(outcome, run)


def _conclude(outcome: "Outcome", run: "Run") -> int:
    """Print how a training ended; return the exit status."""
    loss = f"validation loss {outcome.best_loss:.4f} at epoch {outcome.best_epoch}"
    console.print(f"{outcome.reason} after epoch {outcome.epoch}: best {loss}; run in {run.folder}")
    if outcome.reason != "interrupted":
        return 0
    console.print(f"to continue: {run.command_to_resume()}")
    return 130


def refit(
    run: tyro.conf.Positional[Path],
    prior: Annotated[Prior, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes] = Prior(),  # noqa: B008
    out: Path | None = None,
    resume: bool = False,
    epochs: int = 500,
    patience: int = 20,
    lr: float = 1e-3,
    batch_size: int | None = None,
    seed: int | None = None,
    accelerator: Accelerator = "auto",
    save_every: float = 30.0,
) -> int:
    """Fit a new prior to a trained model, whose encoder and decoder stand still. This writes a new run.

    Only the divergence of the prior from the codes of all training examples falls, so it takes minutes.

    Args:
        run: Folder of the trained run; its best model is taken.
        prior: The new prior.
        out: Folder of the new run; RUN-refit-PRIOR unless given.
        resume: Resume the new run, if there is one; give the same options again.
        epochs: Largest number of epochs.
        patience: Stop after more epochs than this without a better validation loss.
        lr: Learning rate of Adam.
        batch_size: Examples in a step; as in RUN unless given.
        seed: Seed of the prior's initial weights, the order of the data and all noise; that of RUN unless given.
        accelerator: Where to compute.
        save_every: Seconds between checkpoints, 0 or more.
    """
    from vaepriors.app import refit as refits
    from vaepriors.app.run import Run
    from vaepriors.app.train import make_fabric

    source = Run(run)
    given = {name: value for name, value in {"batch_size": batch_size, "seed": seed}.items() if value is not None}
    options = {"epochs": epochs, "patience": patience, "lr": lr, "accelerator": accelerator, **given}
    experiment = refits.refitted(source.experiment(), **vars(prior), **options)
    _check_saving(save_every, (), epochs)
    beside = run.parent if run.name not in ("", "..") else run.resolve().parent
    new = Run(out or beside / f"{run.resolve().name}-refit-{prior.prior}")
    fabric = make_fabric(experiment)
    if is_first():
        refits.check_source(source, experiment, new)
        _check_folder(new, experiment, resume)
    fabric.launch()
    call = functools.partial(refits.refit, source, experiment, new, fabric, save_every=save_every)
    return _follow(call, new, source.dataset(), fabric.is_global_zero)


def _show(dataset: Dataset) -> None:
    """Print what was read, with a warning where it may have been read wrongly."""
    for line in (dataset.summary(), *describe_columns(dataset.columns)):
        console.print(line, markup=False)
    for doubt in dataset.doubts:
        warn(f"{dataset.name}: {doubt}")


def _read(experiment: Experiment, run: "Run") -> Dataset:
    """The data of an experiment, compared with those of its run if there is one, with a bar while they are checked."""
    with counting_bar(console, "MiB of data checked") as progress, reading_progress(progress):
        dataset = load_data(experiment)
        if run.exists():
            run.check_data(dataset, experiment.data)
        return dataset


def default_folder(experiment: Experiment) -> Path:
    data = Path(experiment.data).stem
    return Path("runs") / f"{data}-{experiment.model.replace(':', '.')}-{experiment.prior}-{experiment.seed}"


def _check_saving(save_every: float, snapshots: Sequence[int], epochs: int) -> None:
    if not save_every >= 0:
        raise ValueError(f"save_every is {save_every}: give a number of seconds, 0 or more")
    for epoch in snapshots:
        if not 1 <= epoch <= epochs:
            raise ValueError(f"snapshots has epoch {epoch}: choose epochs of the run, 1 to {epochs}")


def _extreme_value(dataset: Dataset) -> str:
    """The training value that may have caused a divergence, in words; empty if none is far from zero."""
    if dataset.likelihood != "gaussian" or dataset.streamed:
        return ""
    values, points = dataset.train[:].flatten(1).abs().max(1).values.max(0)
    if values <= 100:
        return ""
    return f"; training point {points} has a value of size {values:g}: scale the data to about 1"


def _check_folder(run: "Run", experiment: Experiment, resume: bool) -> None:
    """A run is never overwritten, and resumes only with its own options."""
    if run.folder.exists() and not run.folder.is_dir():
        raise ValueError(f"{run.folder} is a file: choose another --out")
    if run.exists() and not resume:
        raise ValueError(f"{run.folder} already holds a run: add --resume to resume it, or choose another --out")
    if resume and not run.exists() and experiment == CommandLine().experiment():
        raise ValueError(f"{run.folder} holds no run: correct --out, or leave out --resume for all default options")
    run.check_folder(experiment)
    if experiment.nodes == 1:  # of several, the first may hold it already
        run.check_free()
