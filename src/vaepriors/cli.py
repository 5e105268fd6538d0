"""The command line: train, refit, evaluate, sample, impute, report, compare, interpolate, data, reproduce.

A mistake of the user is one sentence on standard error and exit status 2, before any work. Ctrl-C leaves a run that
`--resume` continues. What takes long to import is imported by the commands that need it.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import tyro

import vaepriors
from vaepriors.app.custom import imported
from vaepriors.app.experiment import CommandLine, Experiment, Prior, load_data
from vaepriors.app.parsing import parse
from vaepriors.app.terminal import counting_bar, make_console, use_plain_signs
from vaepriors.data import CATALOGUE, Dataset, absolute, condition_of, fetch, reading_progress
from vaepriors.data.columns import describe_columns
from vaepriors.limits import at_least_one, check_size

if TYPE_CHECKING:
    from rich.table import Table

    from vaepriors.app.run import Run
    from vaepriors.training import Outcome

__all__ = ["main"]

DESCRIPTION = "Variational autoencoders with learned priors. `vaepriors --version` prints the versions."
REPRODUCE_ABOUT = "The papers' tables: every row is an experiment beside the paper's number."
Which = Annotated[str, tyro.conf.arg(help="The model: best, last, or epoch-N of a snapshot.")]
CustomModel = Annotated[
    str | None,
    tyro.conf.arg(help="Where the run has a custom model: its package.module:function again, to import it."),
]
console = make_console()


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
        resume: Resume the run in that folder, if there is one, with its own options. These may change: epochs,
            patience, accelerator, devices, nodes, stream, compile, graph.
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
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # the others are started by the first, when it has looked
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
        return _complain(f"{error}, in another --out{_extreme_value(dataset)}", 1)
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
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
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
    new = Run(out or run.with_name(f"{run.resolve().name}-refit-{prior.prior}"))
    fabric = make_fabric(experiment)
    if os.environ.get("LOCAL_RANK", "0") == "0":
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
        print(f"vaepriors: warning: {dataset.name}: {doubt}", file=sys.stderr)


def _read(experiment: Experiment, run: "Run") -> Dataset:
    """The data of an experiment, compared with those of its run if there is one, with a bar while they are checked."""
    with counting_bar(console, "MiB of data checked") as progress, reading_progress(progress):
        if run.exists():
            return run.dataset(experiment.stream)
        return load_data(experiment)


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
    run.check_folder(experiment)
    if experiment.nodes == 1:  # of several, the first may hold it already
        run.check_free()


def evaluate(
    run: tyro.conf.Positional[Path],
    method: Literal["is", "refined", "ais"] = "is",
    samples: int | None = None,
    refine_steps: int | None = None,
    chains: int | None = None,
    temperatures: int | None = None,
    simulated: int | None = None,
    split: Literal["test", "valid", "train"] = "test",
    number: int | None = None,
    chunk: int | None = None,
    which: Which = "best",
    seed: int = 0,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    prior_samples: int | None = None,
    devices: int = 1,
    model: CustomModel = None,
) -> int:
    """Estimate the log-likelihood of a trained model, its ELBO, rate and distortion, and the active units.

    Args:
        run: Folder of the run; evaluation.json and log_likelihood.npy are written there. Another split, number,
            method, model or seed than the default has files of its own, such as evaluation-train-10.json.
        method: How log p(x) is estimated: is, by draws from q(z|x); refined, by draws from a posterior fitted to each
            example; ais, by annealed importance sampling, which also bounds log p(x) from above.
        samples: Draws of z for each example; 5000 unless given, not for ais.
        refine_steps: Steps in which the posterior of each example is fitted; unless given, 200 for refined and none for
            ais.
        chains: For ais: chains of draws for each example; 16 unless given.
        temperatures: For ais: steps from q(z|x), or from the fitted posterior, to p(z|x); 300 unless given.
        simulated: For ais: examples that the model draws, on which bounds from both sides show how far the estimates
            can be from log p(x); 100 unless given, 0 for none.
        split: Which part of the data. (The training set is binarised once, always the same way.)
        number: How many examples, from the first; all unless given.
        chunk: How many pairs of an example and a draw are decoded at a time: more are faster and need more memory.
        seed: Seed of the draws.
        accelerator: Where to compute.
        prior_samples: Draws of u for each z in the density of the prior vhp; as in the training unless given.
        devices: How many devices share the examples.
    """
    from vaepriors.analysis import diagnose
    from vaepriors.app.evaluation import evaluate_run
    from vaepriors.app.methods import method_of
    from vaepriors.app.records import few_samples, method_in_words

    folder = _open(run, model)
    given: Any = {"refine_steps": refine_steps, "chains": chains, "temperatures": temperatures, "simulated": simulated}
    _, values = method_of(method, samples=samples, **given)
    with counting_bar(console, method_in_words({"method": method, **values})) as progress:
        options = (split, number, chunk, which, seed, accelerator, progress, prior_samples, devices)
        result = evaluate_run(folder, samples, *options, method=method, **given)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        console.print(_table(folder, result))
        for sentence in diagnose({}, effective_samples=few_samples(result)):
            console.print(sentence)
    return 0


def _table(run: "Run", result: dict[str, Any]) -> "Table":
    from rich.table import Table

    from vaepriors.app.records import method_in_words, name_of

    experiment = run.experiment()
    condition = f", given {experiment.condition}" if experiment.condition else ""
    title = f"{experiment.model}, {experiment.prior} prior, {experiment.data}{condition}"
    table = Table(title=title, show_header=False)
    table.add_row("examples", f"{result['n']} ({result['split']})")
    error = "" if result["nll_se"] is None else f" ± {result['nll_se']:.3f}"
    table.add_row("log-likelihood", f"{-result['nll']:.3f}{error} nats ({method_in_words(result)})")
    if "gap" in result:
        error = "" if result["gap_se"] is None else f" ± {result['gap_se']:.3f}"
        gap = f"{result['gap']:.3f}{error} nats, on {result['simulated']} simulated examples"
        table.add_row("gap of the bounds", gap)
    if result["bits_per_dim"] is not None:
        table.add_row("bits per dimension", f"{result['bits_per_dim']:.4f}")
    table.add_row("ELBO", f"{result['elbo']:.3f} = - rate {result['rate']:.3f} - distortion {result['distortion']:.3f}")
    if result["active_units"] is not None:
        table.add_row("active units", f"{result['active_units']} of {result['latent_units']}")
    mean, least = result["effective_samples_mean"], result["effective_samples_min"]
    table.add_row("effective samples", f"{mean:.1f} on average, {least:.1f} for the example with fewest")
    table.add_row("written to", str(run / f"{name_of(result)}.json"))
    return table


def sample(
    run: tyro.conf.Positional[Path],
    number: int = 64,
    which: Which = "best",
    seed: int = 0,
    condition: tuple[str, ...] = (),
    model: CustomModel = None,
) -> int:
    """Draw from a trained model; also draw reconstructions, pseudo-inputs and the curves of the training.

    A PixelCNN draws one pixel at a time, which takes some seconds for 64 images of 28 x 28.

    Args:
        run: Folder of the run; samples.npy and the pictures are written there.
        number: How many images or vectors to draw.
        seed: Seed of the draws.
        condition: Of a model with conditions: the class of all draws, its covariates, or a class and then covariates.
            Unless given, each draw has the condition of a random training example.
    """
    from vaepriors.app.report.curves import write_curves
    from vaepriors.app.report.pictures import write_pictures
    from vaepriors.distributions import sampling_progress

    at_least_one(number=number)
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}: choose 0 to {2**63 - 1}")
    folder = _open(run, model)
    with folder.lock():
        dataset = folder.dataset()
        y = condition_of(dataset, condition) if condition else None
        check_size(f"a sample of {number} draws", 4 * number * dataset.event_shape.numel())
        vae, _ = folder.model(dataset, which)
        metrics = folder.metrics()
        torch.manual_seed(seed)
        with counting_bar(console, "pixels, one by one") as progress, sampling_progress(progress):
            paths = write_pictures(folder.folder, vae, dataset, number, y) + write_curves(folder.folder, metrics)
    console.print("\n".join(map(str, paths)))
    return 0


def impute(
    run: tyro.conf.Positional[Path],
    out: Path,
    file: Path | None = None,
    draws: int = 0,
    samples: int = 1000,
    which: Which = "best",
    seed: int = 0,
    model: CustomModel = None,
) -> int:
    """Fill the missing cells of a table by a trained model with the likelihood mixed.

    Args:
        run: Folder of the run.
        out: The .csv to write. A missing number becomes its mean given the other cells of the row, rounded for counts;
            a bit or category the most probable one.
        file: A table with the columns of the model, and of its conditions; that of the run unless given.
        draws: Multiple imputations, which are written instead, as OUT-1.csv and so on; each draws the missing cells
            given the others.
        samples: Draws of z for each row.
        seed: Seed of the draws.
    """
    from vaepriors.analysis.diagnosis import FEW_EFFECTIVE_SAMPLES
    from vaepriors.app.imputation import impute_run

    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}: choose 0 to {2**63 - 1}")
    paths, imputed = impute_run(_open(run, model), out, file, draws, samples, which, seed)
    effective = imputed.effective_samples
    if not len(effective):
        console.print("no cell is missing: the table is as it was")
    else:
        mean, least = effective.mean().item(), effective.min().item()
        console.print(f"{len(effective)} rows filled; effective samples {mean:.1f} on average, at least {least:.1f}")
        if least < FEW_EFFECTIVE_SAMPLES:
            console.print("some rows rest on few draws: give more --samples")
    console.print("\n".join(map(str, paths)))
    return 0


def report(
    run: tyro.conf.Positional[Path],
    number: int = 2000,
    which: Which = "best",
    seed: int = 0,
    model: CustomModel = None,
) -> int:
    """Write a page about a run: curves, likelihoods, draws, pseudo-inputs, the latent space.

    Args:
        run: Folder of the run; report.html and a folder of its pictures are written there.
        number: The most test examples to measure.
        seed: Seed of all draws.
    """
    from vaepriors.app.report.run import write_report

    folder = _open(run, model)
    with folder.lock(), counting_bar(console, "sections") as progress:
        paths = write_report(folder, number, which, seed, progress)
    console.print("\n".join(map(str, paths)))
    return 0


def compare(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    out: Path = Path("runs/compare.html"),
    number: int = 2000,
    which: Which = "best",
    seed: int = 0,
    model: tuple[str, ...] = (),
) -> int:
    """Compare runs: a table here, and a page with likelihoods, ELBOs and active units on the same axes.

    Args:
        runs: Folders of runs, at least two.
        out: The page; its pictures go into a folder of the same name beside it.
        number: The most test examples that ELBO and units are measured on.
        seed: Seed of all draws.
        model: Where runs have custom models: their package.module:function again, to import them.
    """
    from rich.table import Table

    from vaepriors.app.report.compare import COLUMNS, notes, rows, write_comparison
    from vaepriors.app.report.compare import compare as compare_runs

    if out.suffix != ".html":
        raise ValueError(f"out is {out}: give a file that ends in .html")
    with counting_bar(console, "runs") as progress:
        compared = compare_runs([_open(run, *model) for run in runs], number, which, seed, progress)
    table = Table(*COLUMNS, box=None)
    for row in rows(compared):
        table.add_row(*row)
    console.print(table)
    console.print("\n".join(notes(compared)))
    out.parent.mkdir(parents=True, exist_ok=True)
    console.print("\n".join(map(str, write_comparison(compared, out))))
    return 0


def interpolate(
    run: tyro.conf.Positional[Path],
    nodes: int | None = None,
    neighbors: int | None = None,
    graphs: int = 10,
    pairs: int = 100,
    which: Which = "best",
    seed: int = 0,
    condition: tuple[str, ...] = (),
    model: CustomModel = None,
) -> int:
    """Interpolate between test examples along shortest paths in graphs of prior samples, and measure the smoothness.

    Args:
        run: Folder of the run; interpolation.json and pictures are written there.
        nodes: Nodes of a graph; as in the paper for its data sets, 1000 for others.
        neighbors: Nearest neighbours that a node is joined to; as in the paper for its data sets, 18 for others.
        graphs: How many graphs.
        pairs: How many pairs of test examples for each graph.
        seed: Seed of nodes and pairs.
        condition: Of a model with conditions: the class of all paths and examples, the covariates of all paths, or a
            class and then covariates.
    """
    from rich.table import Table

    from vaepriors.app.interpolation import interpolate_run
    from vaepriors.app.report.paths import write_interpolations

    folder = _open(run, model)
    with folder.lock():
        with counting_bar(console, "pairs") as progress:
            options = (nodes, neighbors, graphs, pairs, which, seed, progress, condition)
            result, first = interpolate_run(folder, *options)
        paths = write_interpolations(folder.folder, first, folder.dataset()) if first else []
    table = Table(
        "path", "smoothness (lower is smoother)", title=f"{result['nodes']} nodes, {result['neighbors']} neighbours"
    )
    for name, found in result["smoothness"].items():
        table.add_row(name.replace("_", " "), f"{found['mean']:.5f} ± {found['sd']:.5f}")
    console.print(table)
    split = sum(len(each) > 1 for each in result["components"])
    if split:
        console.print(f"{split} of {graphs} graphs are not connected: components of {result['components'][0]} nodes")
        console.print(f"{result['pairs_without_path']} of {graphs * pairs} pairs have no path and are left out")
    if paths:
        console.print("\n".join(map(str, paths)))
    return 0


def data(
    action: tyro.conf.Positional[Literal["list", "fetch"]],
    names: tyro.conf.Positional[tuple[str, ...]] = (),
) -> int:
    """List the data sets, or fetch some to the cache.

    Args:
        action: list, or fetch.
        names: The data sets to fetch; none for list.
    """
    from rich.table import Table

    if action == "list":
        if names:
            raise ValueError(
                f"list takes no names, but has {' '.join(names)}: use vaepriors data fetch {' '.join(names)}"
            )
        table = Table("name", "what", box=None)
        for name, entry in CATALOGUE.items():
            table.add_row(name, entry.about)
        console.print(table)
        return 0
    if not names:
        raise ValueError(f"nothing to fetch: name one of {', '.join(CATALOGUE)}")
    unknown = [name for name in names if name not in CATALOGUE]
    for name in unknown or names:  # an unknown one is refused before the first is fetched
        paths = fetch(name)
        console.print("\n".join(map(str, paths)) or f"{name} comes with the installation: nothing to fetch")
    return 0


def reproduce() -> int:
    """Repeat the papers' tables: list the rows, run some, show the results beside the paper's numbers."""
    return _run(["reproduce", "--help"])


def _peek(arguments: Sequence[str]) -> argparse.Namespace:
    """The options that decide how the others are read: the folder of a run to resume, and custom models.

    The models that the user names are the only ones whose code is imported.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", type=Path, nargs="?")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--model", nargs="*", action="extend", default=[])
    return parser.parse_known_args(arguments)[0]


def _stored_experiment(options: argparse.Namespace) -> Experiment:
    """With --resume, options that are not given are those of the run."""
    from vaepriors.app.run import Run

    if options.resume and options.out is not None and Run(options.out).exists():
        return Run(options.out).experiment()
    return Experiment()


def _open(folder: Path, *named: str | None) -> "Run":
    """The run in a folder, whose model is one of those that the user named, if any."""
    from vaepriors.app.run import Run

    run, models = Run(folder), [name for name in named if name is not None]
    if models and run.experiment().model not in models:
        raise ValueError(f"{folder} was trained with the model {run.experiment().model}, not {' or '.join(models)}")
    return run


def _run(arguments: Sequence[str]) -> int:
    options = _peek(arguments)
    with imported(options.model):
        return _run_command(arguments, options)


def _run_command(arguments: Sequence[str], options: argparse.Namespace) -> int:
    if arguments[:1] == ["--version"]:
        print(f"vaepriors {vaepriors.__version__}, torch {torch.__version__}")
        return 0
    if arguments[:1] == ["reproduce"]:
        from vaepriors.papers.commands import COMMANDS

        return parse(COMMANDS, arguments[1:], "vaepriors reproduce", REPRODUCE_ABOUT)()
    commands: dict[str, Callable[..., int]] = {
        "train": functools.partial(train, options=CommandLine.of(_stored_experiment(options))),
        "refit": refit,
        "evaluate": evaluate,
        "sample": sample,
        "impute": impute,
        "report": report,
        "compare": compare,
        "interpolate": interpolate,
        "data": data,
        "reproduce": reproduce,
    }
    return parse(commands, arguments, "vaepriors", DESCRIPTION)()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `vaepriors`."""
    try:
        use_plain_signs()
        status = _run(sys.argv[1:] if arguments is None else arguments)
    except (ValueError, FileNotFoundError, ImportError) as error:
        status = _complain(error, 2)
    except OSError as error:
        status = _complain(error, 1)
    except KeyboardInterrupt:
        status = _complain("interrupted; run the same command to continue (train: with --resume)", 130)
    raise SystemExit(status)


def _complain(what: object, status: int) -> int:
    """Print one line: a name in it may hold a line break or other control characters, which are shown escaped."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(what))
    print(f"vaepriors: {line}", file=sys.stderr)
    return status
