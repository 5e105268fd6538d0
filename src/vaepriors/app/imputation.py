"""The table of a run, or another one with the same columns, with its missing cells filled."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaepriors.app.files import check_new
from vaepriors.app.run import Run
from vaepriors.checkpoint import write_atomically
from vaepriors.data.columns import is_index, values_of
from vaepriors.data.frames import as_written
from vaepriors.data.table import read_rows
from vaepriors.imputation import Imputed, impute
from vaepriors.networks.mixed import Column
from vaepriors.numerics import fixed_numerics, seed_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

__all__ = ["impute_run"]


@fixed_numerics()
def impute_run(
    run: Run,
    out: Path,
    file: Path | None = None,
    draws: int = 0,
    samples: int = 1000,
    which: str = "best",
    seed: int = 0,
) -> tuple[list[Path], Imputed]:
    """Write a table with its missing cells filled.

    Args:
        run: A run of a table with the likelihood `mixed`.
        out: The `.csv` to write; multiple imputations get numbers, as `out-1.csv`.
        file: The table; that of the run unless given. It has all columns of the model, those of its conditions
            included; others stay as they are.
        draws, samples, which, seed: As for `vaepriors impute`.

    Returns:
        The files, and the cells.
    """
    paths = [out] if not draws else [out.with_name(f"{out.stem}-{n}{out.suffix}") for n in range(1, draws + 1)]
    for each in paths:
        check_new(each, (".csv",))
    dataset, experiment = run.dataset(), run.experiment()
    if not dataset.family.missing or not dataset.columns:
        raise ValueError(
            f"{run.folder} has the likelihood {dataset.likelihood}, which takes no missing cells: train on a table "
            "with --likelihood mixed"
        )
    path = Path(experiment.data) if file is None else file
    frame, examples = read_rows(dataset, path, experiment.columns, experiment.layer)
    model, _ = run.model(dataset, which)
    torch.manual_seed(seed_of(seed, "impute"))
    x = examples.x[:]
    imputed = impute(model, x.to(next(model.parameters())), samples, draws, condition=examples.condition)
    written = as_written(path, frame.table)
    for each, rows in zip(paths, imputed.draws if draws else imputed.x[None], strict=True):
        write_atomically(each, _filled(written, x.isnan(), rows, dataset.columns).encode())
    return paths, imputed


def _filled(table: "pd.DataFrame", missing: "Tensor", x: "Tensor", columns: Sequence[Column]) -> str:
    """The text of a table with the values of complete rows x in its missing cells."""
    table = table.astype(object)
    for column, gaps, values in zip(columns, missing.T.tolist(), values_of(x, columns).values(), strict=True):
        cells = table[column.name].tolist()
        spelled = _spelled(values, cells, gaps) if column.kind in ("bit", "category") else {}
        filled = zip(values, cells, gaps, strict=True)
        written = [spelled.get(value, value) if gap else cell for value, cell, gap in filled]
        table[column.name] = np.array(written, object)  # pandas would make floats of whole numbers beside a mean
    return table.to_csv(index=False, header=["" if is_index(str(name)) else str(name) for name in table.columns])


def _spelled(values: list[Any], cells: list[Any], gaps: list[bool]) -> dict[Any, Any]:
    """How the table writes each value of a column: 007 of the category 7, true of the bit 1."""
    words = any(str(cell).lower() in ("true", "false") for cell in cells)
    seen = {value: cell for value, cell, gap in zip(values, cells, gaps, strict=True) if not gap}
    return ({0: "False", 1: "True"} if words else {}) | seen
