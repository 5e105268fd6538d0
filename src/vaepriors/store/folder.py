"""Where a training keeps its checkpoints and metrics: in a folder, or in memory.

    experiment.json    the settings, the digest of the data, and for each session its commit, versions and hardware
    metrics.jsonl      a line per epoch
    last.ckpt          everything needed to resume; previous.ckpt is the one before it, in case that is damaged
    best.ckpt          the model of the best validation loss; epoch-N.ckpt, those asked for as snapshots
    run.lock           locked by the process that writes in the folder; run.holder says which one that is

Every checkpoint has the digest of what it belongs to, and experiment.json has it too: files that do not belong together
are refused.
"""

import errno
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from vaepriors import checkpoint
from vaepriors.data import Dataset
from vaepriors.devices import hardware
from vaepriors.numerics import describe
from vaepriors.reading import check, read_json

__all__ = ["Busy", "Folder", "Memory", "Store", "load_weights", "session"]

CANNOT_LOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
RESTORE = "restore it, or train in another folder"
LOCKS: dict[Path, FileLock] = {}  # of this process: a command that holds a folder may call another that locks it too
Tensors = dict[str, Tensor]


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

    experiment: dict[str, Any]  # the settings
    data_sha256: str  # `Dataset.digest`
    sha256: str  # of what the checkpoints belong to
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


class Store(Protocol):
    """What `fit` needs of the place where it keeps its checkpoints and metrics."""

    def lock(self, mine: bool = True, create: bool = False) -> AbstractContextManager[None]:
        """Keep other processes from writing there."""

    def check(self, settings: dict[str, Any], data: Dataset) -> None:
        """Refuse a training other than the one that is there."""

    def begin(self, settings: dict[str, Any], data: Dataset, session: dict[str, Any], metrics: list[str]) -> None:
        """Record a session, when all is restored, and the metrics of the epochs so far."""

    def has(self, which: str) -> bool:
        """Whether there is a checkpoint of this name."""

    def load_checkpoint(self, which: str) -> tuple[Tensors, dict[str, Any]]:
        """The tensors and values of a checkpoint: `last`, `best`, or `epoch-N`."""

    def save_checkpoint(self, which: str, tensors: Tensors, values: dict[str, Any]) -> None: ...

    def keep_previous(self) -> None:
        """Keep the last checkpoint before another one replaces it."""

    def add_metrics(self, line: dict[str, Any]) -> None: ...

    def remedy(self, which: str) -> str:
        """What to do about a damaged checkpoint."""


class Memory:
    """A `Store` that ends with the process.

    >>> store = Memory()
    >>> store.has("last")
    False
    """

    def __init__(self) -> None:
        self.checkpoints: dict[str, tuple[Tensors, dict[str, Any]]] = {}
        self.lines: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {}
        self.data_sha256 = ""

    def lock(self, mine: bool = True, create: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def check(self, settings: dict[str, Any], data: Dataset) -> None:
        if self.checkpoints:
            check_settings("this store", self.settings, settings)
            check_data("this store", self.data_sha256, data)

    def begin(self, settings: dict[str, Any], data: Dataset, session: dict[str, Any], metrics: list[str]) -> None:
        self.settings, self.data_sha256 = settings, data.digest()
        self.lines = [json.loads(line) for line in metrics]

    def has(self, which: str) -> bool:
        return which in self.checkpoints

    def load_checkpoint(self, which: str) -> tuple[Tensors, dict[str, Any]]:
        if not self.has(which):
            raise ValueError(f"the store has no {which} model yet: train for at least one epoch")
        return self.checkpoints[which]

    def save_checkpoint(self, which: str, tensors: Tensors, values: dict[str, Any]) -> None:
        self.checkpoints[which] = {name: tensor.detach().clone() for name, tensor in tensors.items()}, values

    def keep_previous(self) -> None:
        pass

    def add_metrics(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs so far."""
        return self.lines

    def remedy(self, which: str) -> str:
        return "train with another store"


class Folder:
    """A `Store` on disk. Killed at any moment and called again, `fit` ends with the very same numbers.

    Args:
        folder: Where it is, or shall be.
    """

    THEN = ", then "  # between a command and what resumes the training

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
                remedy = f"{self.command_to_resume()} repairs it from last.ckpt"
                raise ValueError(f"{path} is damaged in line {number} ({error}): {remedy}") from error
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

    def has(self, which: str) -> bool:
        return (self / f"{which}.ckpt").is_file()

    def load_checkpoint(self, which: str) -> tuple[Tensors, dict[str, Any]]:
        """The tensors and values of a checkpoint.

        Raises:
            ValueError: If it is missing, damaged, or of another experiment; the message says what can still be used.
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
        """Write a checkpoint, with the digest of what it belongs to."""
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
            remedy = f"{self._step_back()}{self.THEN}{self.command_to_resume()} resumes after epoch {epoch}"
        elif which == "best" and self._is_whole("last"):
            return f"{self.command_to_resume()} writes it again from last.ckpt"
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

    def command_to_resume(self) -> str:
        """What resumes the training, for a sentence."""
        return "the same call of fit"

    def _check_owner(self, path: Path) -> None:
        if checkpoint.owner(path) != self.description()["sha256"]:
            raise ValueError(
                f"{path} belongs to another experiment or other data than experiment.json beside it: put back the file "
                "that belongs there, or choose another folder"
            )

    def check(self, settings: dict[str, Any], data: Dataset) -> None:
        """Refuse a training with other settings or other data than the one in the folder.

        Raises:
            ValueError: If they differ, or experiment.json is lost.
        """
        self.check_files()
        if self.exists():
            content = self.description()
            check_settings(str(self.folder), content["experiment"], settings)
            check_data(str(self.folder), content["data_sha256"], data)

    def begin(self, settings: dict[str, Any], data: Dataset, session: dict[str, Any], metrics: list[str]) -> None:
        before = self.description() if self.exists() else {}
        data_sha256 = before.get("data_sha256") or data.digest()
        self.write_metrics(metrics, known=bool(metrics))
        self.write_settings(settings, [*before.get("sessions", []), session], data_sha256)

    def write_settings(self, settings: dict[str, Any], sessions: list[dict[str, Any]], data_sha256: str) -> None:
        """Write experiment.json."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sha256 = self.identify(settings, data_sha256)
        content = {"experiment": settings, "data_sha256": data_sha256, "sha256": sha256, "sessions": sessions}
        checkpoint.write_json(self / "experiment.json", content)

    def identify(self, settings: dict[str, Any], data_sha256: str) -> str:
        """The digest of what the checkpoints belong to."""
        return hashlib.sha256(json.dumps([settings, data_sha256], sort_keys=True).encode()).hexdigest()

    def check_files(self) -> None:
        """Refuse checkpoints that belong to something else.

        Raises:
            ValueError: If a checkpoint is another one's, or experiment.json or last.ckpt is lost.
        """
        paths = sorted(self.folder.glob("*.ckpt"))
        if not self.exists():
            if paths:
                raise ValueError(f"{paths[0]} has no experiment.json beside it: restore that, or choose another folder")
            return
        for path in paths:
            try:
                self._check_owner(path)
            except checkpoint.Damaged:
                continue  # it will be refused if it is needed, and replaced if not
        if (self / "previous.ckpt").is_file() and not (self / "last.ckpt").is_file():
            raise ValueError(
                f"{self / 'last.ckpt'} is missing: {self._step_back()} goes back to the checkpoint before it, or "
                "choose another folder"
            )


def check_settings(where: str, stored: dict[str, Any], settings: dict[str, Any], other: str = "another store") -> None:
    """Refuse to resume with other settings; `other` is where these can be trained.

    Raises:
        ValueError: If one differs.
    """
    for name in sorted(stored.keys() | settings.keys()):
        if stored.get(name) != settings.get(name):
            was, given = stored.get(name), settings.get(name)
            raise ValueError(f"{where} was trained with {name} {was}, not {given}: choose {other} for that")


def check_data(where: str, data_sha256: str, data: Dataset) -> None:
    """Refuse to resume with other data.

    Raises:
        ValueError: If the digest differs.
    """
    if data.digest() != data_sha256:
        raise ValueError(
            f"{data.name} is not the data set that {where} was trained on (its digest differs): restore it, or train "
            "on the new one in another folder"
        )


def load_weights(model: nn.Module, source: "Store | Path | str", which: str = "best") -> nn.Module:
    """Load a trained model's weights into a model of the same structure.

    Args:
        model: The model, whose weights are replaced.
        source: The folder or store of the training.
        which: `best`, `last`, or `epoch-N` of a snapshot.

    Returns:
        The same model, in evaluation mode.

    Raises:
        ValueError: If there is no such checkpoint, or it is damaged or of another model.
    """
    tensors, _ = (Folder(source) if isinstance(source, Path | str) else source).load_checkpoint(which)
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    checkpoint.load_module(model, weights)
    return model.eval()


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
        "commit": commit_of(Path(vaepriors.__file__).parent),
        "versions": {
            "vaepriors": vaepriors.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "hardware": hardware(device),
        "numerics": describe(),
    }


def commit_of(package: Path) -> str | None:
    """The commit of the code in a folder, with a plus sign if it was changed since; None outside of a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # else the checkout is another project's
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
