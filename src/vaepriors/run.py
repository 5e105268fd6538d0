"""A run on disk: one folder that says what was run, how it went, and where it stands.

    experiment.json    the Experiment, and for each session its commit, versions and hardware
    metrics.jsonl      a line per epoch, with its seconds and the most memory (GiB) used until then
    last.ckpt          everything needed to go on: model, best model, optimiser, objective, epoch
    best.ckpt          the model of the best validation loss; epoch-N.ckpt, those asked for as snapshots
    evaluation.json    the result of `evaluate`; log_likelihood.npy has log p(x) of each example. Evaluations of another
                       split, number, model or seed have files of their own: evaluation-train-10.json (see `records`)

Random numbers are no part of it: those of an epoch follow from the seed, the epoch's number and the device's
(`seed_of`), so a run that goes on draws what an uninterrupted one would have drawn.
"""

import dataclasses
import hashlib
import json
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaepriors import checkpoint
from vaepriors.data import Dataset, load
from vaepriors.experiment import Experiment, build
from vaepriors.machine import hardware
from vaepriors.numerics import describe
from vaepriors.vae import VAE

__all__ = ["Run", "seed_of", "session"]

MAY_CHANGE = {"epochs", "patience", "accelerator", "devices", "nodes", "compile", "graph"}  # when a run goes on


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from any numbers and words, without the correlations that neighbouring seeds may have.

    >>> seed_of(0, "epoch", 1) != seed_of(0, "epoch", 2)
    True
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Run:
    """The folder of a run.

    Args:
        folder: Where it is, or shall be.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def exists(self) -> bool:
        return (self / "experiment.json").is_file()

    def description(self) -> dict[str, Any]:
        """What experiment.json says.

        Raises:
            ValueError: If there is no run, or its file cannot be read.
        """
        path = self / "experiment.json"
        if not path.is_file():
            raise ValueError(f"{self.folder} holds no run (no experiment.json): give the folder of a training run")
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is not readable as JSON ({error}): restore it or train anew") from error
        if "experiment" not in content:
            raise ValueError(f"{path} has no experiment in it: restore it or train anew")
        return content

    def experiment(self) -> Experiment:
        """The experiment of the run, also when this version knows other fields than the one that wrote it."""
        fields = self.description()["experiment"]
        known = {field.name for field in dataclasses.fields(Experiment)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(f"{self.folder} was made by another version: it has the unknown fields {unknown}")
        # JSON has no tuples
        values: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return Experiment(**values)

    def check_same(self, experiment: Experiment) -> None:
        """Refuse to go on as another experiment than was begun, but for its length and its devices.

        Raises:
            ValueError: If another field differs.
        """
        stored = self.experiment()
        for field in sorted({field.name for field in dataclasses.fields(Experiment)} - MAY_CHANGE):
            was, given = getattr(stored, field), getattr(experiment, field)
            if was != given:
                raise ValueError(
                    f"{self.folder} was trained with {field} {was}, not {given}: choose another --out for that"
                )

    def write_description(self, experiment: Experiment, sessions: list[dict[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"experiment": dataclasses.asdict(experiment), "sessions": sessions}
        checkpoint.write_atomically(self / "experiment.json", (json.dumps(content, indent=2) + "\n").encode())

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs so far; a last line cut short by a kill is left out."""
        path = self / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        if lines and not lines[-1].endswith("}"):
            lines.pop()
        return [json.loads(line) for line in lines]

    def keep_metrics(self, epochs: int) -> None:
        """Drop the lines of epochs that the last checkpoint does not know; they will be run again."""
        lines = [json.dumps(line) + "\n" for line in self.metrics() if line["epoch"] <= epochs]
        checkpoint.write_atomically(self / "metrics.jsonl", "".join(lines).encode())

    def add_metrics(self, line: dict[str, Any]) -> None:
        with (self / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def dataset(self) -> Dataset:
        experiment = self.experiment()
        return load(experiment.data, experiment.seed, experiment.likelihood)

    def model(self, dataset: Dataset, which: str = "best") -> tuple[VAE, dict[str, Any]]:
        """The trained model, on the CPU, with the values stored beside it (its epoch and loss).

        Args:
            dataset: The run's data.
            which: `best`, `last`, or `epoch-N` of a snapshot.

        Raises:
            ValueError: If `which` is none of these, or the run has no such checkpoint yet, or it does not fit the
                experiment.
        """
        if not re.fullmatch(r"best|last|epoch-\d+", which):  # a path would read another run
            raise ValueError(f"which is {which!r}: choose best, last, or epoch-N of a snapshot")
        path = self / f"{which}.ckpt"
        if not path.is_file():
            raise ValueError(f"{self.folder} has no {which}.ckpt yet: train for at least one epoch")
        with torch.random.fork_rng(devices=[]):
            model, _ = build(self.experiment(), dataset)
        tensors, values = checkpoint.load(path)
        prefix = "model."
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        if any(tensor.dtype == torch.float64 for tensor in own.values()):
            model = model.double()
        checkpoint.load_module(model, own)
        return model.eval(), values


def session(epoch: int, device: torch.device) -> dict[str, Any]:
    """Where and by what the epochs after `epoch` were computed."""
    import vaepriors

    return {
        "after_epoch": epoch,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {
            "vaepriors": vaepriors.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "hardware": hardware(device),
        "numerics": describe(),
    }


def _commit() -> str | None:
    """The commit of the code, with a plus sign if it was changed since; None outside of a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # else the checkout is another project's
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
