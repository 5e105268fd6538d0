"""The lock of a folder: one process at a time writes there.

    run.lock      locked by the process that writes; the system frees it when the process dies
    run.holder    which process that is

Where a file system cannot lock, that is said in a line and the work goes on. A shared disk may lock for each machine
alone (NFS before version 4 without its lock daemon, some parallel file systems): start no two commands on one folder
from two machines there.
"""

import errno
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vaepriors import checkpoint

__all__ = ["LOCKS", "Busy", "Lock"]

CANNOT_LOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
LOCKS: dict[Path, FileLock] = {}  # of this process: a command that holds a folder may call another that locks it too


class Busy(ValueError):
    """Another process works in the folder."""


class Lock:
    """The lock of a folder. A process that holds it can take it again.

    Args:
        folder: The folder, or where it shall be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "run.lock"
        self.holder = self.path.with_suffix(".holder")

    @contextmanager
    def hold(self, wait: float) -> Iterator[None]:
        """Hold the lock. On the first time, what killed processes left half-written is removed.

        `Busy` is raised if another process, which may only be looking, still holds it after `wait` seconds.
        """
        path = self.path.resolve()  # the same lock from any directory
        lock = LOCKS.setdefault(path, _file_lock(path))
        if lock.is_locked or not self._acquire(lock, wait):
            yield
            return
        try:
            for folder in (self.folder, self.folder / "report"):
                checkpoint.sweep(folder)
            holder = {"pid": os.getpid(), "host": platform.node()}
            checkpoint.write_atomically(self.holder, json.dumps(holder).encode())
            yield
        finally:
            self.holder.unlink(missing_ok=True)
            lock.release()

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
            holder = json.loads(self.holder.read_bytes())
            who = f"process {holder['pid']:d} on {holder['host']}"
        except (OSError, ValueError, TypeError, KeyError):  # it has just taken the lock, or just died
            who = "another process"
        return Busy(f"{self.folder} is in use by {who}: wait for it, or choose another folder")

    def check_free(self) -> None:
        """Refuse a folder in which another process works."""
        if self.is_busy():
            raise self._busy()

    def is_busy(self) -> bool:
        """Whether another process works in the folder."""
        own = LOCKS.get(self.path.resolve())
        if not self.path.is_file() or (own is not None and own.is_locked):
            return False
        lock = _file_lock(self.path)
        try:
            lock.acquire(timeout=0.2)  # another process may only be looking, too
        except Timeout:
            return True
        except (NotImplementedError, OSError):
            return False
        lock.release()
        return False


def _file_lock(path: Path) -> FileLock:
    """A lock that refuses where the system has none, instead of one that would outlive its process."""
    options: Any = {"fallback_to_soft": False} if hasattr(FileLock, "fallback_to_soft") else {}
    return FileLock(path, **options)
