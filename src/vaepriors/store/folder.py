"""A store on disk."""

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from vaepriors import checkpoint
from vaepriors.data import Dataset
from vaepriors.reading import check, read_json
from vaepriors.store.files import Description, LastValues, Session, Values, metrics_of
from vaepriors.store.lock import Lock
from vaepriors.store.protocol import Tensors, check_data, check_settings

__all__ = ["RESTORE", "Folder"]

RESTORE = "restore it, or train in another folder"


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
    def _lock(self) -> Lock:
        return Lock(self.folder)

    @contextmanager
    def lock(self, mine: bool = True, create: bool = False, wait: float = 0.5) -> Iterator[None]:
        """Keep other processes from writing in the folder (see `Lock`); every command that writes there does so inside.

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
        with self._lock.hold(wait) if mine else nullcontext():
            yield

    def check_free(self) -> None:
        """Refuse a folder in which another process works, before the work for which it will be locked."""
        self._lock.check_free()

    def is_busy(self) -> bool:
        """Whether another process works in the folder."""
        return self._lock.is_busy()

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
                lines.append(metrics_of(line, number))
            except (ValueError, RecursionError) as error:
                remedy = f"{self.command_to_resume()} repairs it from last.ckpt"
                raise ValueError(f"{path} is damaged in line {number} ({error}): {remedy}") from error
        try:
            return [*lines, metrics_of(rest, len(lines) + 1)] if rest else lines
        except (ValueError, RecursionError):
            return lines

    def write_metrics(self, lines: list[str], known: bool) -> None:
        """Write metrics.jsonl as the last checkpoint knows it; later epochs will be run again.

        If the lines are known, they were there before, so that other ones are damaged.
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
            others = [path.stem for path in sorted(self.folder.glob("*.ckpt")) if path.stem != "previous"]
            remedy = f": choose {' or '.join(others)}" if others else " yet: train for at least one epoch"
            raise ValueError(f"{self.folder} has no {which}.ckpt{remedy}")
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

    def save_checkpoint(self, which: str, tensors: Tensors, values: dict[str, Any]) -> None:
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
        if self._has_checkpoints():
            content = self.description()
            check_settings(str(self.folder), content["experiment"], settings)
            check_data(str(self.folder), content["data_sha256"], data)

    def begin(self, settings: dict[str, Any], data: Dataset, session: dict[str, Any], metrics: list[str]) -> None:
        before = self.description() if self.exists() else {}
        data_sha256 = before["data_sha256"] if self._has_checkpoints() else data.digest()
        self.write_metrics(metrics, known=bool(metrics))
        self.write_settings(settings, [*before.get("sessions", []), session], data_sha256)

    def _has_checkpoints(self) -> bool:
        """Whether anything was trained that other settings or data could spoil."""
        return any(self.folder.glob("*.ckpt"))

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
