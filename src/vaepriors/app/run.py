"""A run on disk: one folder that says what was run, how it went, and where it stands.

    experiment.json    the Experiment, and for each session its commit, versions and hardware
    metrics.jsonl      a line per epoch, with its seconds and the most memory (GiB) used until then
    last.ckpt          everything needed to resume: model, best model, optimiser, objective, epoch, metrics
    previous.ckpt      the last.ckpt before it, in case that is damaged
    best.ckpt          the model of the best validation loss; epoch-N.ckpt, those asked for as snapshots
    evaluation.json    the result of `evaluate`; log_likelihood.npy has log p(x) of each example. Evaluations of another
                       split, number, model or seed have files of their own: evaluation-train-10.json (see `records`)
    run.lock           locked by the process that writes in the folder; run.holder says which one that is

Every checkpoint has the digest of its experiment and data (`identity`), and experiment.json has it too: what does not
belong together is refused.

Random numbers are no part of it: those of an epoch follow from the seed, the epoch's number and the device's
(`seed_of`), so a run that goes on draws what an uninterrupted one would have drawn.
"""

import dataclasses
import errno
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from vaepriors import checkpoint
from vaepriors.app.experiment import Experiment, build
from vaepriors.data import CATALOGUE, Dataset, load
from vaepriors.devices import hardware
from vaepriors.numerics import describe
from vaepriors.reading import check, read_json
from vaepriors.vae import VAE

__all__ = ["Busy", "Run", "identity", "seed_of", "session"]

MAY_CHANGE = {"epochs", "patience", "accelerator", "devices", "nodes", "compile", "graph"}  # when a run goes on
CANNOT_LOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
RESTORE = "restore it, or train in another folder"
LOCKS: dict[Path, FileLock] = {}  # of this process: a command that holds a folder may call another that locks it too


class Busy(ValueError):
    """Another process works in the folder."""


class Session(TypedDict):
    """Where and by what some epochs were computed, in experiment.json."""

    after_epoch: int
    started: str
    commit: str | None
    versions: dict[str, str]
    hardware: str
    numerics: dict[str, Any]  # `numerics.describe`


class Description(TypedDict):
    """experiment.json."""

    experiment: dict[str, Any]
    data_sha256: str  # `Dataset.digest`
    sha256: str  # `identity`
    sessions: list[dict[str, Any]]


class Line(TypedDict):
    """What each line of metrics.jsonl has, beside the numbers of its objective."""

    epoch: int
    loss: float
    rate: float
    distortion: float
    valid_loss: float
    seconds: float


class Values(TypedDict):
    """Beside the tensors of best.ckpt and of snapshots."""

    epoch: int
    loss: float | None


class LastValues(TypedDict):
    """Beside the tensors of last.ckpt."""

    epoch: int
    best_loss: float | None
    best_epoch: int
    waited: int


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

    @property
    def lock_path(self) -> Path:
        return self / "run.lock"

    @contextmanager
    def lock(self, mine: bool = True, create: bool = False, wait: float = 0.5) -> Iterator[None]:
        """Keep other processes from writing in the folder; every command that writes there does so inside of it.

        The system frees the lock when its process dies. A process that holds it can take it again. On the first time,
        what killed processes left half-written is removed.

        Where a file system cannot lock, that is said in a line and the work goes on. A shared disk may lock for each
        machine alone (NFS before version 4 without its lock daemon, some parallel file systems): start no two commands
        on one folder from two machines there.

        Args:
            mine: Whether this process is the one that writes. The others of a run on several devices take no lock.
            create: Make the folder if it is not there. Without it there must be a run.
            wait: Seconds to wait for another process, which may only be looking.

        Raises:
            Busy: If another process holds it.
            ValueError: If there is no run.
        """
        if create and mine:
            self.folder.mkdir(parents=True, exist_ok=True)
        elif not create:
            self.description()
        path = self.lock_path.resolve()  # the same lock from any directory
        lock = LOCKS.setdefault(path, _file_lock(path))
        if not mine or lock.is_locked or not self._acquire(lock, wait):
            yield
            return
        try:
            for folder in (self.folder, self / "report"):
                checkpoint.sweep(folder)
            holder = {"pid": os.getpid(), "host": platform.node()}
            checkpoint.write_atomically(self._holder_path, json.dumps(holder).encode())
            yield
        finally:
            self._holder_path.unlink(missing_ok=True)
            lock.release()

    @property
    def _holder_path(self) -> Path:
        return self.lock_path.with_suffix(".holder")

    def _acquire(self, lock: FileLock, wait: float) -> bool:
        """Whether the lock was taken; False where there are no locks."""
        try:
            lock.acquire(timeout=wait)
        except Timeout as error:
            raise self._busy() from error
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in CANNOT_LOCK:
                raise
            print(f"{self.folder} cannot be locked on this disk: run one command at a time in it", file=sys.stderr)
            return False
        return True

    def _busy(self) -> Busy:
        try:
            holder = json.loads(self._holder_path.read_bytes())
            who = f"process {holder['pid']:d} on {holder['host']}"
        except (OSError, ValueError, TypeError, KeyError):  # it has just taken the lock, or just died
            who = "another process"
        return Busy(f"{self.folder} is in use by {who}: wait for it, or choose another folder")

    def check_free(self) -> None:
        """Look early, before the work for which the folder will be locked.

        Raises:
            Busy: If another process works in the folder.
        """
        if self.is_busy():
            raise self._busy()

    def is_busy(self) -> bool:
        """Whether another process works in the folder."""
        own = LOCKS.get(self.lock_path.resolve())
        if not self.lock_path.is_file() or (own is not None and own.is_locked):
            return False
        lock = _file_lock(self.lock_path)
        try:
            lock.acquire(timeout=0.2)  # another process may only be looking, too
        except Timeout:
            return True
        except (NotImplementedError, OSError):
            return False
        lock.release()
        return False

    def description(self) -> dict[str, Any]:
        """The content of experiment.json.

        Raises:
            ValueError: If there is no run, or its file cannot be read.
        """
        path = self / "experiment.json"
        if not path.is_file():
            raise ValueError(f"{self.folder} holds no run (no experiment.json): give the folder of a training run")
        content = read_json(path, Description, RESTORE)
        for each in content["sessions"]:
            try:
                check(each, Session, "sessions", more=True)
            except ValueError as error:
                raise ValueError(f"{path} is damaged, or of another version: {error}; {RESTORE}") from error
        return content

    def experiment(self) -> Experiment:
        """The experiment of the run, also when this version knows more fields than the one that wrote it.

        Raises:
            ValueError: If it is damaged, or not the one that was written.
        """
        path, content = self / "experiment.json", self.description()
        hints = typing.get_type_hints(Experiment)
        unknown = sorted(content["experiment"].keys() - hints.keys())
        if unknown:
            raise ValueError(f"{path} was made by another version: it has the unknown fields {unknown}")
        try:
            for name, value in content["experiment"].items():
                check(value, hints[name], name)
            # JSON has no tuples
            values: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in content["experiment"].items()}
            experiment = Experiment(**values)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}; {RESTORE}") from error
        if identity(experiment, content["data_sha256"]) != content["sha256"]:
            raise ValueError(f"{path} was changed: its experiment does not match its digest; {RESTORE}")
        return experiment

    def check_folder(self, experiment: Experiment) -> None:
        """Refuse to train in the folder of another experiment, or in one whose checkpoints belong to another.

        Raises:
            ValueError: If its experiment or a checkpoint is another one, or experiment.json is lost.
        """
        paths = sorted(self.folder.glob("*.ckpt"))
        if not self.exists():
            if paths:
                raise ValueError(f"{paths[0]} has no experiment.json beside it: restore that, or choose another --out")
            return
        self.check_same(experiment)
        for path in paths:
            try:
                self._check_owner(path)
            except checkpoint.Damaged:
                continue  # it will be refused if it is needed, and replaced if not
        if (self / "previous.ckpt").is_file() and not (self / "last.ckpt").is_file():
            raise ValueError(
                f"{self / 'last.ckpt'} is missing: {self._step_back()} goes back to the checkpoint before it, or "
                "choose another --out"
            )

    def _check_owner(self, path: Path) -> None:
        if checkpoint.owner(path) != self.description()["sha256"]:
            raise ValueError(
                f"{path} belongs to another experiment or other data than experiment.json beside it: put back the file "
                "that belongs there, or choose another folder"
            )

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

    def check_data(self, dataset: Dataset) -> None:
        """Compare a data set with the one that the run was trained on.

        Raises:
            ValueError: If it is another one.
        """
        content = self.description()
        if dataset.digest() == content["data_sha256"]:
            return
        name = content["experiment"]["data"]
        files = [source.path for source in CATALOGUE[name].sources] if name in CATALOGUE else []
        if name in CATALOGUE and not files:  # computed, and another processor may round otherwise
            print(f"{name} differs in some bits from the data of {self.folder}: computed elsewhere?", file=sys.stderr)
            return
        where = f"{name} ({', '.join(files)})" if files else name
        raise ValueError(
            f"{where} is not the data set that {self.folder} was trained on (its digest differs): restore it, or train "
            "on the new one in another folder"
        )

    def write_description(self, experiment: Experiment, sessions: list[dict[str, Any]], data_sha256: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "experiment": dataclasses.asdict(experiment),
            "data_sha256": data_sha256,
            "sha256": identity(experiment, data_sha256),
            "sessions": sessions,
        }
        checkpoint.write_atomically(self / "experiment.json", (json.dumps(content, indent=2) + "\n").encode())

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs so far; a last line cut short by a kill is left out.

        Raises:
            ValueError: If another line is damaged.
        """
        path, lines = self / "metrics.jsonl", []
        text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
        whole, _, rest = text.rpartition("\n")
        for number, line in enumerate(whole.split("\n") if whole else [], 1):
            try:
                lines.append(_metrics_of(line, number))
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{path} is damaged in line {number} ({error}): {self._resume()} repairs it from last.ckpt"
                ) from error
        try:
            return [*lines, _metrics_of(rest, len(lines) + 1)] if rest else lines
        except (ValueError, RecursionError):
            return lines

    def write_metrics(self, lines: list[str], known: bool) -> None:
        """Write metrics.jsonl as the last checkpoint knows it; later epochs will be run again.

        Args:
            lines: The lines of the epochs so far.
            known: Whether they were there before, so that other ones are damaged.
        """
        path, content = self / "metrics.jsonl", "".join(lines).encode()
        if known and not (path.is_file() and path.read_bytes().startswith(content)):
            print(f"{path} was damaged or missing: repaired from last.ckpt", file=sys.stderr)
        checkpoint.write_atomically(path, content)

    def add_metrics(self, line: dict[str, Any]) -> None:
        with (self / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def dataset(self) -> Dataset:
        """The data of the run.

        Raises:
            ValueError: If they cannot be read, or are not those that it was trained on.
            FileNotFoundError: If they are not there.
        """
        experiment = self.experiment()
        try:
            dataset = load(experiment.data, experiment.seed, experiment.likelihood)
        except ValueError as error:
            raise ValueError(f"the data of {self / 'experiment.json'}: {error}") from error
        self.check_data(dataset)
        return dataset

    def load_checkpoint(self, which: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and values of a checkpoint.

        Raises:
            ValueError: If there is none, or it is damaged, or of another experiment; the message says what is left.
        """
        path = self / f"{which}.ckpt"
        if not path.is_file():
            raise ValueError(f"{self.folder} has no {which}.ckpt yet: train for at least one epoch")
        try:
            tensors, values = checkpoint.load(path)
        except checkpoint.Damaged as error:
            raise ValueError(f"{error}; {self.remedy(which)}") from error
        self._check_owner(path)
        try:
            check(values, LastValues if which in ("last", "previous") else Values)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}; {self.remedy(which)}") from error
        return tensors, values

    def save_checkpoint(self, which: str, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Write a checkpoint, with the digest of its experiment and data."""
        checkpoint.save(self / f"{which}.ckpt", tensors, values, of=self.description()["sha256"])

    def keep_previous(self) -> None:
        """Keep last.ckpt as previous.ckpt, before another one replaces it."""
        last, previous = self / "last.ckpt", self / "previous.ckpt"
        if not last.is_file():
            return
        partial = checkpoint.partial_of(previous)
        try:
            os.link(last, partial)  # not renamed: at every moment there is a last.ckpt
            os.replace(partial, previous)
        except OSError:  # no links on this disk
            checkpoint.write_atomically(previous, last.read_bytes())
        finally:
            partial.unlink(missing_ok=True)

    def remedy(self, which: str) -> str:
        """What to do about a damaged checkpoint."""
        if which == "last" and self._is_whole("previous"):
            epoch = checkpoint.load(self / "previous.ckpt")[1]["epoch"]
            remedy = f"{self._step_back()} && {self._resume()} resumes after epoch {epoch}"
        elif which == "best" and self._is_whole("last"):
            return f"{self._resume()} writes it again from last.ckpt"
        else:
            remedy = "it cannot be restored: train in another folder"
        return f"{remedy}; best.ckpt can still be used" if self._is_whole("best") and which != "best" else remedy

    def _is_whole(self, which: str) -> bool:
        path = self / f"{which}.ckpt"
        try:
            checkpoint.load(path)
            return checkpoint.owner(path) == self.description()["sha256"]
        except (OSError, ValueError):
            return False

    def _step_back(self) -> str:
        return shlex.join(["mv", str(self / "previous.ckpt"), str(self / "last.ckpt")])

    def _resume(self) -> str:
        return shlex.join(["vaepriors", "train", "--out", str(self.folder), "--resume"])

    def model(self, dataset: Dataset, which: str = "best") -> tuple[VAE, dict[str, Any]]:
        """The trained model, on the CPU, with the values stored beside it (its epoch and loss).

        Args:
            dataset: The run's data.
            which: `best`, `last`, or `epoch-N` of a snapshot.

        Raises:
            ValueError: If `which` is none of these, if the run has no such checkpoint yet, or if it is damaged or does
                not fit the experiment.
        """
        if not re.fullmatch(r"best|last|epoch-\d+", which):  # a path would read another run
            raise ValueError(f"which is {which!r}: choose best, last, or epoch-N of a snapshot")
        tensors, values = self.load_checkpoint(which)
        with torch.random.fork_rng(devices=[]):
            model, _ = build(self.experiment(), dataset)
        prefix = "model."
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        if any(tensor.dtype == torch.float64 for tensor in own.values()):
            model = model.double()
        try:
            checkpoint.load_module(model, own)
        except ValueError as error:
            raise ValueError(f"{self / which}.ckpt: {error}") from error
        return model.eval(), values


def identity(experiment: Experiment, data_sha256: str) -> str:
    """The digest of all that may not change when a run is resumed: the experiment's options and its data.

    Options at their default are left out, so that it stays the same when a later version has more of them. The data's
    place is left out too: files may be moved.
    """
    fixed = {field.name for field in dataclasses.fields(Experiment)} - MAY_CHANGE - {"data"}
    default = Experiment()
    options = {name: getattr(experiment, name) for name in fixed}
    options = {name: value for name, value in options.items() if value != getattr(default, name)}
    return hashlib.sha256(json.dumps([options, data_sha256], sort_keys=True).encode()).hexdigest()


def _file_lock(path: Path) -> FileLock:
    """A lock that refuses where the system has none, instead of one that would outlive its process."""
    options: Any = {"fallback_to_soft": False} if hasattr(FileLock, "fallback_to_soft") else {}
    return FileLock(path, **options)


def _metrics_of(text: str, epoch: int) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    line = json.loads(text)
    check(line, Line, more=True)
    if line["epoch"] != epoch:
        raise ValueError(f"epoch is {line['epoch']}, not {epoch}")
    for name, value in line.items():
        if isinstance(value, str | bool | list | dict):
            raise ValueError(f"{name} is no number")
    return line


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

    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # else the checkout is another project's
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
