"""The evaluations of a run on disk: one file for each model, split, number of examples, method and seed.

    evaluation.json                      the best model, the whole test set, seed 0
    evaluation-train.json                anything else: the split, then each option that is not the default,
    evaluation-test-10-last-seed-1.json  as number, method, model and seed
    evaluation-test-refined.json         another method, then its options that are not the default:
    evaluation-test-ais-1000-temperatures.json
    evaluation-file-new.json             other data, of a file new.npy or new.csv
    evaluation-5000-samples.json         an evaluation that one with another number of samples has replaced
    log_likelihood*.npy                  log p(x) of each of the examples
    evaluation*.partial                  the examples done so far, if the evaluation was stopped

An evaluation belongs to one model and to certain examples: `model_digest` and `examples_digest` in its file are the
digests of their tensors.
"""

import os
import shlex
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import numpy as np

from vaepriors.app.methods import METHODS
from vaepriors.app.run import Run
from vaepriors.checkpoint import digest, module_tensors, write_atomically, write_json
from vaepriors.conditional import AnyVAE
from vaepriors.reading import read_json, read_npy
from vaepriors.words import counted

__all__ = [
    "OPTIONS",
    "Record",
    "check_same_file",
    "command",
    "examples_in_words",
    "few_samples",
    "method_in_words",
    "name_of",
    "read_records",
    "records_of",
    "values_of",
    "without_examples",
    "write_record",
]

AGAIN = "delete it and evaluate again"
KEPT = "-samples.json"  # at the end of the name of an evaluation that another one has replaced
NAMED = ("refine_steps", "temperatures", "simulated")  # options of a method that the name of its file has
OPTIONS = {  # of the command `evaluate`, by field of the result
    "method": ("method", "is"),
    "samples": ("samples", 5000),
    **{name: (name.replace("_", "-"), None) for name in METHODS.options() if name != "samples"},
    "prior_samples": ("prior-samples", None),
    "split": ("split", "test"),
    "file": ("file", None),
    "number": ("number", None),
    "checkpoint": ("which", "best"),
    "seed": ("seed", 0),
}


class Evaluation(TypedDict):
    """What every evaluation.json has."""

    split: str
    file: NotRequired[str]  # whose examples they are; the split is `file` then
    checkpoint: str
    epoch: int
    seed: int
    samples: int
    prior_samples: int | None
    number: int | None
    spaced: NotRequired[bool]  # whether these are evenly spaced; the first ones where it is missing
    n: int
    method: NotRequired[Literal["is", "refined", "ais"]]  # importance sampling where it is missing
    refine_steps: NotRequired[int]
    chains: NotRequired[int]
    temperatures: NotRequired[int]
    simulated: NotRequired[int]
    gap: NotRequired[float]
    gap_se: NotRequired[float | None]
    nll: float
    nll_se: float | None
    elbo: float
    rate: float
    distortion: float
    bits_per_dim: float | None
    effective_samples_mean: float
    effective_samples_min: float
    model_digest: str
    examples_digest: str
    log_likelihood_sha256: str


class Record(NamedTuple):
    """An evaluation of a run, as `write_record` wrote it."""

    name: str  # of its file
    result: dict[str, Any]
    log_likelihood: np.ndarray | None  # log p(x) of each example, shape (n,); None without its very file


def name_of(result: dict[str, Any]) -> str:
    """The name of an evaluation's file, without its ending.

    >>> name_of({"split": "test", "number": None, "checkpoint": "best", "seed": 0})
    'evaluation'
    >>> name_of({"split": "train", "number": 10, "checkpoint": "last", "seed": 1})
    'evaluation-train-10-last-seed-1'
    >>> name_of({"split": "test", "number": 200, "checkpoint": "best", "seed": 0, "method": "refined"})
    'evaluation-test-200-refined'
    >>> name_of({"split": "file", "file": "/data/new.npy", "number": None, "checkpoint": "best", "seed": 0})
    'evaluation-file-new'
    """
    examples = ["file", Path(result["file"]).stem] if "file" in result else [result["split"]]
    method = result.get("method", "is")
    options = [str(result["number"])] * (result["number"] is not None)
    options += [method] * (method != "is")
    options += [f"{value}-{name.replace('_', '-')}" for name, value in _special(result) if name in NAMED]
    options += [result["checkpoint"]] * (result["checkpoint"] != "best")
    options += [f"seed-{result['seed']}"] * (result["seed"] != 0)
    return "-".join(["evaluation", *([*examples, *options] if options or result["split"] != "test" else [])])


def _special(result: dict[str, Any]) -> list[tuple[str, int]]:
    """The options of an evaluation's method that are not the default."""
    options = METHODS[result.get("method", "is")].options.values()
    return [(each.name, result[each.name]) for each in options if result.get(each.name, each.default) != each.default]


def examples_in_words(result: dict[str, Any]) -> str:
    """Which examples an evaluation is of: those of a split, or of a file."""
    return Path(result["file"]).name if "file" in result else result["split"]


def method_in_words(result: dict[str, Any]) -> str:
    """How an evaluation has estimated log p(x).

    >>> method_in_words({"samples": 5000})
    '5000 samples'
    >>> method_in_words({"method": "refined", "samples": 5000, "refine_steps": 200})
    '5000 samples from posteriors fitted in 200 steps'
    """
    steps = result.get("refine_steps", 0)
    start = f" from posteriors fitted in {counted(steps, 'step')}" * (steps > 0)
    if result.get("method") == "ais":
        numbers = f"{counted(result['chains'], 'chain')} and {counted(result['temperatures'], 'temperature')}"
        return f"annealed importance sampling with {numbers}{start}"
    return f"{counted(result['samples'], 'sample')}{start}"


def few_samples(result: dict[str, Any]) -> float | None:
    """The mean number of effective samples, if few of them mean that an estimate is too low; None for chains."""
    return None if result.get("method") == "ais" else result["effective_samples_mean"]


def check_same_file(run: Run, result: dict[str, Any]) -> None:
    """Refuse to replace the evaluation of another file of the same name."""
    name = name_of(result)
    old = (_written(run, name) or result).get("file")
    if old != result.get("file"):
        raise ValueError(f"{run / name}.json is the evaluation of {old}: give {result['file']} another name")


def write_record(run: Run, result: dict[str, Any], log_likelihood: bytes) -> None:
    """Write an evaluation, and the .npy of its log p(x); an evaluation of the same with other samples is kept."""
    name = name_of(result)
    _keep(run, name, result)
    write_atomically(run / values_of(name), log_likelihood)
    write_json(run / f"{name}.json", result)
    (run / f"{name}.partial").unlink(missing_ok=True)
    _remove_kept(run, name, result)


def values_of(name: str) -> str:
    """The file of log p(x) of each example, of an evaluation of this name."""
    return f"log_likelihood{name.removeprefix('evaluation')}.npy"


def _keep(run: Run, name: str, result: dict[str, Any]) -> None:
    """Rename an evaluation of the same model with another number of samples, which can have cost hours."""
    old = _written(run, name)
    if old is None or old["model_digest"] != result["model_digest"] or _kept(name, old) == _kept(name, result):
        return
    kept = _kept(name, old)
    for path, target in ((f"{name}.json", f"{kept}.json"), (values_of(name), values_of(kept))):
        if (run / path).is_file():
            os.replace(run / path, run / target)


def _kept(name: str, result: dict[str, Any]) -> str:
    """The name of an evaluation after one with another number of samples has replaced it."""
    prior = "" if result["prior_samples"] is None else f"-{result['prior_samples']}-prior"
    return f"{name}-{result['samples']}{prior}-samples"


def _remove_kept(run: Run, name: str, result: dict[str, Any]) -> None:
    """Remove the kept evaluation of the same model with the same number of samples: it is the same one again."""
    kept = _kept(name, result)
    if (_written(run, kept) or {}).get("model_digest") == result["model_digest"]:
        for path in (f"{kept}.json", values_of(kept)):
            (run / path).unlink(missing_ok=True)


def _written(run: Run, name: str) -> dict[str, Any] | None:
    """The evaluation of this name, or None if it is missing or damaged."""
    try:
        return _read_json(run / f"{name}.json")
    except (ValueError, FileNotFoundError):
        return None


def read_records(run: Run) -> list[Record]:
    """All evaluations of a run: of the test set first, of more examples first, of more samples first."""
    paths = [run / "evaluation.json", *sorted(run.folder.glob("evaluation-*.json"))]
    records = [_read(path) for path in paths if path.is_file()]
    return sorted(records, key=_order)


def _order(record: Record) -> tuple[Any, ...]:
    result = record.result
    return result["split"] != "test", result["split"], -result["n"], -result["samples"], result["seed"] != 0


def _read(path: Path) -> Record:
    result, values = _read_json(path), path.with_name(values_of(path.stem))
    try:
        array = read_npy(values, result["log_likelihood_sha256"], (result["n"],), AGAIN)
    except ValueError:  # `without_examples` says so
        array = None
    return Record(path.name, result, array)


def _read_json(path: Path) -> dict[str, Any]:
    return read_json(path, Evaluation, AGAIN, more=True)


def records_of(run: Run, model: AnyVAE, epoch: int, which: str) -> tuple[list[Record], list[str]]:
    """The evaluations of one model, and a sentence for each that was of this checkpoint before it changed.

    The model is that of the checkpoint `which` of the run, of this epoch.
    """
    own, records, stale = digest(module_tensors(model)), [], []
    for record in read_records(run):
        result = record.result
        if result["model_digest"] == own:
            records.append(record)
        elif result["checkpoint"] == which and not record.name.endswith(KEPT):  # a new one would not replace those
            stale.append(
                f"{record.name} is not shown: it is of another model (epoch {result['epoch']}, this one is of epoch "
                f"{epoch}). {command(run, result)} renews it."
            )
    return records, stale


def without_examples(run: Run, record: Record) -> str:
    """The sentence for an evaluation whose log p(x) of each example is not known."""
    renew = command(run, record.result)
    return f"log p(x) of each example of {record.name} is missing, or not what was written. {renew} writes it again."


def command(run: Run, result: dict[str, Any]) -> str:
    """The command that makes such an evaluation.

    >>> command(Run("runs/a"), {"split": "train", "number": 10})
    'vaepriors evaluate runs/a --split train --number 10'
    """
    words: list[object] = ["vaepriors", "evaluate", run.folder]
    special = dict(_special(result))
    for name, (option, default) in OPTIONS.items():
        if name == "split" and "file" in result:
            continue
        if name in special or (name not in METHODS.options() and result.get(name, default) != default):
            words += [f"--{option}", result[name]]
    return shlex.join(map(str, words))
