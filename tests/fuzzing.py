"""What the command line promises for any input (see `fuzz_inputs`), and a search for what breaks it.

A command ends with status 0, 1 or 2: no traceback, no warning, no work without end. If the status is not 0, standard
error ends with one line `vaepriors: ...`, and nothing that was there before has changed. If it is 2, nothing new is
there either.

`test_fuzz` tries a few inputs, always the same. This script tries as many as asked for, continues after a failure, and
prints what it tried and what failed, with a command that shows it:

    python tests/fuzzing.py --examples 2000      (or: make fuzz)
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from lightning_fabric.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from fuzz_inputs import Trial, as_words, inputs, prepare, usual
from vaepriors import cli
from vaepriors.app.evaluation import Paused, evaluate_run
from vaepriors.app.run import Run

LIMITS = {signal.SIGPROF: (signal.ITIMER_PROF, 60), signal.SIGALRM: (signal.ITIMER_REAL, 600)}  # of work and of waiting
LOCKS = (".lock", ".holder")  # may stay
SLOW_SECONDS = 20
MEMORY = 6 * 2**30  # what a command may take on top of what this process has
LOOSE = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


class Broken(AssertionError):
    """A promise that was not kept, with a key that is the same for the same fault."""

    def __init__(self, key: str, trial: Trial, detail: str = "") -> None:
        super().__init__(f"{key}\n    {trial}\n    {detail.strip()}")
        self.key = key


class Endless(BaseException):
    """The command takes too long. Not an `Exception`: nobody shall catch it."""


class Processes(BaseException):
    """The command is about to start processes of this program, which is not the command line."""


# What is promised

Command = Callable[[list[str]], object]


def perform(trial: Trial, base: Path, command: Command = cli.main) -> int:
    """Run a trial in a copy of the base; its status. Raises `Broken`."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "here"
        prepare(trial, base, place)
        with contextlib.chdir(place):
            return check(trial, command)


def check(trial: Trial, command: Command) -> int:
    before = content(Path())
    status, err, error = call(trial, command)
    if error is not None:
        raise Broken(f"{type(error).__name__} in {origin(error)}", trial, f"{error}".split("\n")[0][:300]) from error
    if status not in (0, 1, 2):
        raise Broken(f"status {status}", trial, err)
    after = content(Path())
    changed = sorted(name for name in before if after.get(name) != before[name])
    new = sorted(after.keys() - before.keys())
    if status and changed:
        raise Broken(f"{trial.words[0]} ends with status {status}, but changes {kinds(changed)}", trial, err)
    if status == 2 and new:
        raise Broken(f"{trial.words[0]} ends with status 2, but leaves {kinds(new)}", trial, err)
    if status and not (status == 2 and "For full helptext" in err):  # what tyro says of words that are no options
        *others, last = err.splitlines() or [""]
        if not last.startswith("vaepriors: ") or any(line.startswith("vaepriors: ") for line in others):
            raise Broken(f"no single sentence: {masked(err)}", trial, err)
    if status == 0 and reads_damaged_model(trial):
        raise Broken(f"{trial.words[0]} takes a damaged best.ckpt", trial)
    return status


def call(trial: Trial, command: Command = cli.main) -> tuple[Any, str, BaseException | None]:
    """The command line in this process: its status, standard error, and what it raised."""
    out = io.TextIOWrapper(io.BytesIO(), trial.encoding)
    err = io.TextIOWrapper(io.BytesIO(), trial.encoding, "backslashreplace", write_through=True)
    error: BaseException | None = None
    status: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limits(), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            command(list(trial.words))
        except SystemExit as end:
            status = end.code
        except (Exception, Endless, Processes) as raised:
            error = raised
    return status, err.buffer.getvalue().decode(trial.encoding), error


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """For the time of a command: a bound on its seconds and its memory, and no processes."""

    def stop(number: int, _: object) -> None:
        raise Endless(f"not done after {LIMITS[signal.Signals(number)][1]} seconds")

    def refuse(*_: object) -> None:
        raise Processes

    launch, _SubprocessScriptLauncher.launch = _SubprocessScriptLauncher.launch, refuse
    handlers = {number: signal.signal(number, stop) for number in LIMITS}
    for timer, seconds in LIMITS.values():
        signal.setitimer(timer, seconds)
    try:
        with bounded_memory():
            yield
    finally:
        for number, (timer, _) in LIMITS.items():
            signal.setitimer(timer, 0)
            signal.signal(number, handlers[number])
        _SubprocessScriptLauncher.launch = launch


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    if not Path("/proc/self/statm").is_file():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, except for locks. Of a link, where it points to."""
    contents = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            contents[str(path)] = os.fsencode(os.readlink(path))
        elif path.is_file() and path.suffix not in LOCKS:
            contents[str(path)] = path.read_bytes()
        elif path.is_dir():
            contents[str(path)] = b"folder"
    return contents


def kinds(names: Sequence[str]) -> str:
    """The names of files, without those of folders: what is the same for the same fault."""
    return ", ".join(sorted({Path(name).name for name in names})[:3])


def masked(err: str) -> str:
    """Standard error without what differs between trials."""
    return re.sub(r"'[^']*'|[\d.]+|/\S+", "_", err)[:80]


def origin(error: BaseException) -> str:
    """Where an exception left vaepriors, or was raised in it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}vaepriors{os.sep}" in f.filename]
    frames = [f for f in frames if "site-packages" not in f.filename] or traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}"


def reads_damaged_model(trial: Trial) -> bool:
    """Whether the command computes with a model some of whose bits are not those that were saved."""
    if trial.damage is None or trial.damage[:2] not in (("best.ckpt", "flip"), ("best.ckpt", "cut")):
        return False
    return trial.words[0] in ("evaluate", "sample", "report", "compare", "interpolate") and "last" not in trial.words


# The folder that the trials start from


def make_base(folder: Path) -> Path:
    """Small data of every kind, and two finished runs with all that the commands write into a run."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    np.save(folder / "vectors.npy", generator.normal(size=(40, 3)))
    np.save(folder / "levels.npy", levels)
    np.save(folder / "wide.npy", (levels.repeat(4, 2).repeat(4, 3)[:, :1] > 127).astype(np.uint8))
    splits = {"train": 23, "valid": 6, "test": 5}
    images = {name: generator.random((n, 4, 4), dtype=np.float32) for name, n in splits.items()}
    np.savez(folder / "images.npz", **images)
    for name, prior in (("run", "vamp"), ("other", "standard")):
        options = {**usual("train"), "data": (str(folder / "images.npz"),), "out": (str(folder / name),)}
        options |= {"epochs": ("2",), "prior": (prior,), "snapshots": ("1",)}
        must("train", *as_words(options))
        must("evaluate", str(folder / name), *as_words(usual("evaluate")))
        must("interpolate", str(folder / name), *as_words(usual("interpolate")))
        with contextlib.suppress(Paused):
            evaluate_run(Run(folder / name), 50, accelerator="cpu", until=0.0)
    return folder


def must(*words: str) -> None:
    status, err, error = call(Trial(words))
    if status != 0:
        raise RuntimeError(f"vaepriors {shlex.join(words)} ends with status {status}: {err}{error!r}")


class Ledger:
    """What was tried and what came of it; of each failure, the shortest command with its files.

    Args:
        base: The folder that the trials start from.
        place: Where the folders of failures go.
    """

    def __init__(self, base: Path, place: Path) -> None:
        self.base, self.place = base, place
        self.tried: Counter[tuple[str, str]] = Counter()
        self.failures: dict[str, tuple[int, Trial, Broken]] = {}

    def fill(self, kind: str, strategy: st.SearchStrategy[Trial], count: int, first: int) -> None:
        """Try inputs of a kind; which ones follows from the seed."""

        @seed(first)
        @settings(LOOSE, max_examples=count, phases=[Phase.generate])
        @given(strategy)
        def each(trial: Trial) -> None:
            self.add(kind, trial)

        each()

    def add(self, kind: str, trial: Trial) -> None:
        """Perform a trial and count it."""
        began = time.process_time()
        try:
            result = f"status {perform(trial, self.base)}"
        except Broken as failure:
            result = "failed"
            count, shortest, first = self.failures.get(failure.key, (0, trial, failure))
            if not count:
                print(f"failed: {failure}", flush=True)
            if len(str(trial)) < len(str(shortest)):
                shortest, first = trial, failure
            self.failures[failure.key] = (count + 1, shortest, first)
        self.tried[kind, result] += 1
        if time.process_time() - began > SLOW_SECONDS:
            print(f"slow: {time.process_time() - began:.0f} s for {trial}", flush=True)

    def show(self) -> None:
        """Print what was tried, and of each failure a folder and a command."""
        columns = sorted({result for _, result in self.tried})
        print(f"\n{'':12}" + "".join(f"{name:>12}" for name in columns))
        for kind in sorted({kind for kind, _ in self.tried}):
            print(f"{kind:12}" + "".join(f"{self.tried[kind, name]:12}" for name in columns))
        print(f"{sum(self.tried.values())} inputs, {sum(count for count, _, _ in self.failures.values())} failures")
        for number, (count, trial, failure) in enumerate(self.failures.values(), 1):
            place = self.place / f"failure-{number}"
            prepare(trial, self.base, place)
            print(f"\n{number}. ({count} times, cd {place}) {failure}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Try inputs that make no sense on the command line of vaepriors.")
    parser.add_argument("--examples", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("options", "files", "runs"), help="of one kind")
    parser.add_argument("--out", type=Path, help="folder of the failures; a new one unless given")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    place = (asked.out or Path(tempfile.mkdtemp(prefix="vaepriors-fuzz-"))).resolve()
    ledger = Ledger(make_base(place / "base"), place)
    kinds = {kind: made for kind, made in inputs(ledger.base).items() if asked.only in (None, kind)}
    for kind, strategy in kinds.items():
        ledger.fill(kind, strategy, asked.examples // len(kinds), asked.seed)
    ledger.show()
    raise SystemExit(1 if ledger.failures else 0)


if __name__ == "__main__":
    main()
