"""Kill runs of every kind at random moments and resume them: do they end with the same bits?

    python tests/kills.py --kills 100      (or: make kills)

Each kind runs once in a process of its own, without a kill. Then the same command is started in a new folder, killed
(SIGKILL) at a random moment, uniform over the time of the whole run, and started again: one to four times, and then
it may finish. Everything in its folder must be what the uninterrupted run wrote: every tensor and value of the
checkpoints, every line of metrics.jsonl, the evaluation. Only times, memory and the list of sessions may differ.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaepriors import checkpoint

SMALL = "--hidden 20 --latent 4 --batch-size 20 --warmup 4 --accelerator cpu --resume"
PIXELS = "--data DATA --hidden 8 --latent 2 --batch-size 20 --epochs 3 --accelerator cpu --resume"
TRAININGS = {
    "vae": f"--data digits {SMALL} --epochs 12",
    "hvae-vamp": f"--data digits {SMALL} --model hvae --prior vamp --components 20 --epochs 8 --snapshots 2 5",
    "vhp-rewo": f"--data digits {SMALL} --prior vhp --prior-hidden 16 --objective rewo --kappa 0.3 --epochs 8",
    "iwae-dreg": f"--data digits {SMALL} --objective iwae --samples 5 --estimator dreg --lr-stages 3 --epochs 10",
    "mog": f"--data digits {SMALL} --prior mog --components 20 --precision 64-true --epochs 10",
    "hvae-exemplar": f"--data digits {SMALL} --model hvae --prior exemplar --exemplars 100 --epochs 8",
    "pixelhvae": f"{PIXELS} --model pixelhvae --prior vamp --components 5 --weighted",
    "stopped-early": f"--data DATA {SMALL} --lr 0.05 --epochs 200 --patience 5",
}
# with every block saved, which is no option of the command line
EVALUATION = """
import sys
from vaepriors.app.evaluation import evaluate_run
from vaepriors.app.run import Run
evaluate_run(Run(sys.argv[1]), 2000, accelerator="cpu", save_every=0.0)
"""
KINDS = (*TRAININGS, "evaluation")
LOCKS = (".lock", ".holder")  # may stay
PAUSES = ("0", "0.2", "30")  # seconds between checkpoints; part of no number


def make_data(folder: Path) -> Path:
    """Custom probabilities, binarised at each visit."""
    x = np.random.default_rng(0).random((150, 4, 4), dtype=np.float32)
    np.save(folder / "custom.npy", x)
    return folder / "custom.npy"


def command(kind: str, run: Path, data: Path, pause: str = "0") -> list[str]:
    """What starts a run of a kind, and resumes it."""
    if kind == "evaluation":
        return [sys.executable, "-c", EVALUATION, str(run)]
    options = [str(data) if word == "DATA" else word for word in TRAININGS[kind].split()]
    return [sys.executable, "-m", "vaepriors", "train", "--out", str(run), *options, "--save-every", pause]


def start(words: Sequence[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the numbers depend on how many
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def finish(words: Sequence[str]) -> str:
    """Run to the end; return what went wrong."""
    process = start(words)
    _, err = process.communicate()
    return "" if process.returncode == 0 else f"status {process.returncode}: {err.strip()}"


def kill(words: Sequence[str], seconds: float) -> bool:
    """Start, and kill after some seconds; return whether there was something to kill."""
    process = start(words)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode < 0


# What must be equal


def differences(one: Path, other: Path) -> list[str]:
    """The files of two runs that are not the same, or are in one of them only."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".ckpt": contents,
        ".npy": np.load,
        ".jsonl": lambda path: timeless_lines(path.read_bytes()),
        ".json": lambda path: timeless(json.loads(path.read_text())),
    }
    names = sorted({path.name for folder in (one, other) for path in folder.iterdir() if path.suffix not in LOCKS})
    names = [name for name in names if name != "previous.ckpt"]  # of which epoch it is depends on the clock
    problems = []
    for name in names:
        paths = [folder / name for folder in (one, other)]
        if not all(path.is_file() for path in paths):
            problems.append(f"{name} is only in {paths[not paths[0].is_file()].parent}")
        elif not same(*map(readers.get(paths[0].suffix, Path.read_bytes), paths)):
            problems.append(f"{name} differs")
    return problems


def contents(path: Path) -> tuple[dict[str, Any], Any]:
    """Tensors and values of a checkpoint, with its lines of metrics without times."""
    tensors, values = checkpoint.load(path)
    lines = tensors.pop("metrics.lines", None)
    return tensors, [values, None if lines is None else timeless_lines(bytes(lines.numpy()))]


def timeless_lines(content: bytes) -> list[dict[str, Any]]:
    return [timeless(json.loads(line)) for line in content.decode().splitlines()]


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    """Without times, memory, and sessions (a killed run has more of them)."""
    return {name: value for name, value in values.items() if name not in ("seconds", "memory", "sessions")}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and any(isinstance(value, torch.Tensor) for value in one.values()):
        return one.keys() == other.keys() and all(bits(one[name]) == bits(other[name]) for name in one)
    return bits(one) == bits(other) if isinstance(one, np.ndarray) else bool(one == other)


def bits(array: Any) -> tuple[Any, ...]:
    array = np.asarray(array)
    return array.dtype, array.shape, array.tobytes()


# Rounds


class Kind:
    """Runs of one kind: the uninterrupted one, and those to be compared with it.

    Args:
        name: One of `KINDS`.
        folder: Where they go.
        data: The custom data set.
        chance: Decides about moments.
    """

    def __init__(self, name: str, folder: Path, data: Path, chance: random.Random) -> None:
        self.name, self.folder, self.data, self.chance = name, folder, data, chance
        self.kills, self.rounds, self.failures = 0, 0, 0
        self.seed = folder / "trained"  # what an evaluation starts from
        if name == "evaluation":
            self.must(command("vae", self.seed, data))
        began = time.monotonic()
        self.must(command(name, self.new("whole"), data))
        self.seconds = time.monotonic() - began
        print(f"{name}: {self.seconds:.2f} s without a kill", flush=True)

    def must(self, words: Sequence[str]) -> None:
        if problem := finish(words):
            raise SystemExit(f"{self.name}, without a kill: {problem}")

    def new(self, name: str) -> Path:
        run = self.folder / name
        if self.name == "evaluation":
            shutil.copytree(self.seed, run)
        return run

    def round(self) -> None:
        """Kill a run one to four times, let it end, and compare it."""
        self.rounds += 1
        run = self.new(f"killed-{self.rounds}")
        moments = []
        for _ in range(self.chance.randint(1, 4)):
            moment = self.chance.uniform(0, self.seconds)
            if kill(self.again(run), moment):  # else it was done before
                moments.append(moment)
        self.kills += len(moments)
        problem = finish(self.again(run))
        problems = [problem] if problem else differences(self.folder / "whole", run)
        self.failures += bool(problems)
        at = ", ".join(f"{moment:.2f}" for moment in moments)
        print(f"{self.name}: killed at {at} of {self.seconds:.2f} s: {'; '.join(problems) or 'the same'}", flush=True)
        if not problems:
            shutil.rmtree(run)

    def again(self, run: Path) -> list[str]:
        return command(self.name, run, self.data, self.chance.choice(PAUSES))


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill runs at random moments and compare what they end with.")
    parser.add_argument("--kills", type=int, default=100, help="how many at least, over all kinds")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="of these kinds")
    parser.add_argument("--out", type=Path, help="folder of the runs; a new one unless given")
    asked = parser.parse_args()
    place = (asked.out or Path(tempfile.mkdtemp(prefix="vaepriors-kills-"))).resolve()
    place.mkdir(parents=True, exist_ok=True)
    data, chance = make_data(place), random.Random(asked.seed)
    kinds = [Kind(name, place / name, data, chance) for name in asked.only]
    while sum(kind.kills for kind in kinds) < asked.kills:
        min(kinds, key=lambda kind: kind.kills).round()
    print(f"\n{'kind':16}{'runs':>8}{'kills':>8}{'failures':>10}")
    for kind in kinds:
        print(f"{kind.name:16}{kind.rounds:8}{kind.kills:8}{kind.failures:10}")
    failures = sum(kind.failures for kind in kinds)
    print(f"{sum(kind.kills for kind in kinds)} kills, {failures} failures" + (f": see {place}" if failures else ""))
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
