r"""Which likelihoods compare, and by how much two models differ.

Two evaluations compare if they are of the same examples of a split, by the same method and options, with the same seed,
and if log p(x) is of the same kind: a probability of counts does not compare with a density, nor with one given totals.
Examples differ far more than models do, so the difference of two models a and b is taken example by example:

$$\frac1N \sum_n d_n, \qquad d_n = \log p_a(x_n) - \log p_b(x_n),$$

with the standard error of this mean. The standard errors of the two means alone can be a hundred times as large.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vaepriors.app.experiment import Experiment
from vaepriors.app.records import Record, method_in_words
from vaepriors.data import Dataset

__all__ = ["Kind", "Measure", "by_kind", "common_kind", "measure_in_words", "measure_of", "paired_difference"]

Measure = tuple[str, ...]
MEASURES = {"real": "densities", "positive": "densities", "size": "given sizes"}  # by kind of column; or probabilities


class Kind(NamedTuple):
    """What two evaluations have in common if they compare."""

    split: str
    examples: str  # their digest
    method: str  # in words, with the number of samples
    seed: int
    measure: Measure  # `measure_of`


def measure_of(experiment: Experiment, data: Dataset, discrete: bool) -> Measure:
    """What log p(x) is the logarithm of: for each column, or once where all are equal; and what it is given."""
    columns = [MEASURES.get(column.kind, "probabilities") for column in data.columns]
    columns = columns or ["probabilities" if discrete else "densities"]
    if len(set(columns)) == 1:
        columns = columns[:1]
    if data.likelihood == "multinomial":
        columns.append("given the total of each row")
    if experiment.size_factors == "total":
        columns.append("given size factors")
    return tuple(columns)


def measure_in_words(measure: Measure) -> str:
    """Each part once, in words.

    >>> measure_in_words(("densities", "probabilities", "densities")), measure_in_words(("densities",))
    ('densities and probabilities by column', 'densities')
    """
    given = [part for part in measure if part.startswith("given")]
    values = [part for part in measure if part not in given]
    by_column = " by column" * (len(set(values)) > 1)
    return " ".join([" and ".join(dict.fromkeys(values)) + by_column, *dict.fromkeys(given)])


def by_kind(records: Sequence[Record], measure: Measure = ()) -> dict[Kind | None, Record]:
    """The first evaluation of each kind among those of a model, in their order; `measure` is that of its run."""
    kinds: dict[Kind | None, Record] = {}
    for record in records:
        result = record.result
        kind = Kind(result["split"], result["examples_digest"], method_in_words(result), result["seed"], measure)
        kinds.setdefault(kind, record)
    return kinds


def common_kind(runs: Sequence[dict[Kind | None, Record]]) -> Kind | None:
    """The kind that most runs have; of several, the first one of the first run."""
    counts = Counter(kind for kinds in runs for kind in kinds)
    return max(counts, key=counts.__getitem__, default=None)


def paired_difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float | None]:
    """The mean of log p_a(x) - log p_b(x) over the same examples, and its standard error; None for one example.

    >>> paired_difference(np.array([-60.0, -140.0]), np.array([-71.0, -149.0]))
    (10.0, 1.0)
    """
    difference = a - b
    error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else None
    return float(difference.mean()), None if error is None else float(error)
