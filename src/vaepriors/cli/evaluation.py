"""The command evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vaepriors.app.groups import Accelerator
from vaepriors.app.methods import Estimation, method_of
from vaepriors.app.terminal import counting_bar
from vaepriors.cli.shared import CustomModel, Split, Which, check_seed, console
from vaepriors.devices import is_first
from vaepriors.words import counted

if TYPE_CHECKING:
    from rich.table import Table

    from vaepriors.app.run import Run

__all__ = ["evaluate"]


def evaluate(
    run: tyro.conf.Positional[Path],
    how: Annotated[Estimation, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes] = Estimation(),  # noqa: B008
    split: Split = "test",
    file: Path | None = None,
    number: int | None = None,
    chunk: int | None = None,
    which: Which = "best",
    seed: int = 0,
    accelerator: Accelerator = "auto",
    prior_samples: int | None = None,
    devices: int = 1,
    model: CustomModel = None,
) -> int:
    """Estimate the log-likelihood of a trained model, its ELBO, rate and distortion, and the active units.

    Args:
        run: Folder of the run; evaluation.json and log_likelihood.npy are written there. Another split, file, number,
            method, model or seed than the default has files of its own, such as evaluation-train-10.json.
        how: How log p(x) is estimated.
        split: Which part of the data. (The training set is binarised once, always the same way.)
        file: Other data instead: a file or folder like the data of the run, with the classes and covariates that the
            model is given. Of new.npy it is evaluation-file-new.json; log_likelihood-file-new.npy has log p(x) of each.
        number: How many examples, evenly spaced in the split or file; all unless given.
        chunk: How many pairs of an example and a draw are decoded at a time: more are faster and need more memory.
        seed: Seed of the draws.
        accelerator: Where to compute.
        prior_samples: Draws of u for each z in the density of the prior vhp; as in the training unless given.
        devices: How many devices share the examples.
    """
    from vaepriors.analysis import diagnose
    from vaepriors.app.evaluation import evaluate_run
    from vaepriors.app.records import few_samples, method_in_words
    from vaepriors.app.trained import open_run

    check_seed(seed)
    folder = open_run(run, model)
    _, values = method_of(**vars(how))
    with counting_bar(console, method_in_words({"method": how.method, **values})) as progress:
        result = evaluate_run(
            folder, split=split, number=number, chunk=chunk, which=which, seed=seed, accelerator=accelerator,
            progress=progress, prior_samples=prior_samples, devices=devices, file=file, **vars(how),
        )  # fmt: skip
    if is_first():
        console.print(_table(folder, result))
        for sentence in diagnose({}, effective_samples=few_samples(result)):
            console.print(sentence)
    return 0


def _table(run: "Run", result: dict[str, Any]) -> "Table":
    from rich.table import Table

    from vaepriors.app.records import examples_in_words, method_in_words, name_of, values_of

    experiment = run.experiment()
    condition = f", given {experiment.condition}" if experiment.condition else ""
    title = f"{experiment.model}, {experiment.prior} prior, {experiment.data}{condition}"
    table = Table(title=title, show_header=False)
    table.add_row("examples", f"{result['n']} ({examples_in_words(result)})")
    error = "" if result["nll_se"] is None else f" ± {result['nll_se']:.3f}"
    table.add_row("log-likelihood", f"{-result['nll']:.3f}{error} nats ({method_in_words(result)})")
    if "gap" in result:
        error = "" if result["gap_se"] is None else f" ± {result['gap_se']:.3f}"
        gap = f"{result['gap']:.3f}{error} nats, on {counted(result['simulated'], 'simulated example')}"
        table.add_row("gap of the bounds", gap)
    if result["bits_per_dim"] is not None:
        table.add_row("bits per dimension", f"{result['bits_per_dim']:.4f}")
    table.add_row("ELBO", f"{result['elbo']:.3f} = - rate {result['rate']:.3f} - distortion {result['distortion']:.3f}")
    if result["active_units"] is not None:
        table.add_row("active units", f"{result['active_units']} of {result['latent_units']}")
    mean, least = result["effective_samples_mean"], result["effective_samples_min"]
    table.add_row("effective samples", f"{mean:.1f} on average, {least:.1f} for the example with fewest")
    table.add_row("written to", str(run / f"{name_of(result)}.json"))
    table.add_row("log p(x) of each", str(run / values_of(name_of(result))))
    return table
