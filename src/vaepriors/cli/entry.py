"""The entry point: which command the words name, and what becomes of its errors."""

import argparse
import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import vaepriors
from vaepriors.app.custom import imported
from vaepriors.app.experiment import CommandLine, Experiment
from vaepriors.app.parsing import parse
from vaepriors.app.terminal import use_plain_signs
from vaepriors.cli.datasets import data
from vaepriors.cli.evaluation import evaluate
from vaepriors.cli.reports import compare, report
from vaepriors.cli.shared import complain, warn
from vaepriors.cli.training import refit, train
from vaepriors.cli.use import encode, impute, interpolate, sample

__all__ = ["COMMANDS", "main"]

DESCRIPTION = "Variational autoencoders with learned priors. `vaepriors --version` prints the versions."
REPRODUCE_ABOUT = "The papers' tables: every row is an experiment beside the paper's number."


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `vaepriors`."""
    try:
        use_plain_signs()
        with warnings.catch_warnings():
            warnings.showwarning = warn
            status = _run(sys.argv[1:] if arguments is None else arguments)
    except (ValueError, FileNotFoundError, ImportError) as error:
        status = complain(error, 2)
    except OSError as error:
        status = complain(error, 1)
    except KeyboardInterrupt:
        status = complain("interrupted; run the same command to continue (train: with --resume)", 130)
    raise SystemExit(status)


def _run(arguments: Sequence[str]) -> int:
    options = _peek(arguments)
    with imported(options.model):
        return _run_command(arguments, options)


def _run_command(arguments: Sequence[str], options: argparse.Namespace) -> int:
    if arguments[:1] == ["--version"]:
        print(f"vaepriors {vaepriors.__version__}, torch {torch.__version__}")
        return 0
    if arguments[:1] == ["reproduce"]:
        from vaepriors.papers import commands as papers

        return parse(papers.COMMANDS, arguments[1:], "vaepriors reproduce", REPRODUCE_ABOUT)()
    commands = COMMANDS | {"train": functools.partial(train, options=CommandLine.of(_stored_experiment(options)))}
    return parse(commands, arguments, "vaepriors", DESCRIPTION)()


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


def reproduce() -> int:
    """Repeat the papers' tables: list the rows, run some, show the results beside the paper's numbers."""
    return _run(["reproduce", "--help"])


COMMANDS: dict[str, Callable[..., int]] = {
    "train": train,
    "refit": refit,
    "evaluate": evaluate,
    "sample": sample,
    "encode": encode,
    "impute": impute,
    "report": report,
    "compare": compare,
    "interpolate": interpolate,
    "data": data,
    "reproduce": reproduce,
}
