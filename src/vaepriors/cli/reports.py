"""The commands that write pages: report and compare."""

from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from vaepriors.app.terminal import counting_bar
from vaepriors.cli.shared import CustomModel, Which, check_seed, console

if TYPE_CHECKING:
    from vaepriors.app.run import Run

__all__ = ["compare", "report"]


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
        number: The most test examples to measure; of more, a random subset, which is always the same.
        seed: Seed of all draws.
    """
    from vaepriors.app.report.run import write_report
    from vaepriors.app.trained import open_run

    check_seed(seed)
    folder = open_run(run, model)
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
        number: The most test examples that ELBO and units are measured on; of more, a random subset, which is always
            the same.
        seed: Seed of all draws.
        model: Where runs have custom models: their package.module:function again, to import them.
    """
    from rich.table import Table

    from vaepriors.app.report.compare import COLUMNS, notes, rows
    from vaepriors.app.report.compare import compare as compare_runs
    from vaepriors.app.report.comparison import write_comparison
    from vaepriors.app.report.page import check_place
    from vaepriors.app.run import Run

    check_seed(seed)
    check_place(out)
    with counting_bar(console, "runs") as progress:
        compared = compare_runs(_named([Run(run) for run in runs], model), number, which, seed, progress)
    table = Table(*COLUMNS, box=None)
    for row in rows(compared):
        table.add_row(*row)
    console.print(table)
    console.print("\n".join(notes(compared)))
    console.print("\n".join(map(str, write_comparison(compared, out))))
    return 0


def _named(runs: "list[Run]", models: tuple[str, ...]) -> "list[Run]":
    """The runs, at least one of which has each model that the user named."""
    known = [run.experiment().model for run in runs]
    unknown = [model for model in models if model not in known]
    if unknown:
        raise ValueError(f"no run was trained with the model {unknown[0]}: they have {', '.join(dict.fromkeys(known))}")
    return runs
