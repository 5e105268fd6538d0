"""Training from a file that stays on disk: its memory, and its speed beside training from memory.

    python benchmarks/streaming.py [--rounds 20] [--gigabytes 20] [--out results/benchmarks/streaming.json]
    python benchmarks/streaming.py --render     # the section of docs/speed.md, from results/benchmarks/streaming.json

Speed: the dense HVAE of Tomczak & Welling 2018 on images of 28 x 28 random bytes, whose file was just written, so that
it is in the page cache. The sides train the same model in one process, and take turns of one short epoch, in another
order in each round; after the last round they must have the same weights. A ratio is the median over rounds of a side's
steps in a second over those of the first side in the same round.

Memory: the same training on a sparse file of zeros, in a process of its own. The number is the largest resident memory
of that process (VmHWM), which includes pages of files.
"""

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from record import Record
from vaepriors import fit
from vaepriors.app.choices import markdown_table
from vaepriors.app.experiment import Experiment, build
from vaepriors.checkpoint import write_json
from vaepriors.data import Dataset, own
from vaepriors.objectives import ELBO
from vaepriors.store import Memory, session
from vaepriors.vae import VAE

SHAPE = (28, 28)
SIDES = {
    "bytes in memory": lambda path: load(path, "no"),
    "float32 in memory": lambda path: as_float32(load(path, "no")),
    "file on disk": lambda path: load(path, "yes"),
}


def load(path: Path, stream: str) -> Dataset:
    return own.load(path, likelihood="logistic256", stream=stream)


def as_float32(data: Dataset) -> Dataset:
    return Dataset(data.name, data.train[:], data.valid, data.test, data.likelihood)


class Side:
    """A training that goes on by one epoch in each call."""

    def __init__(self, data: Dataset, steps: int, rounds: int) -> None:
        torch.manual_seed(0)
        self.data, self.store = data, Memory()
        self.model: VAE = build(Experiment(data="mine.npy", likelihood="logistic256", model="hvae"), data)[0]
        self.options: dict[str, Any] = {"epochs": rounds, "epoch_steps": steps, "accelerator": "cpu", "deadline": 0.0}

    def __call__(self) -> float:
        """Train for an epoch; return its steps in a second."""
        outcome = fit(self.model, ELBO(), self.data, store=self.store, **self.options)
        return self.options["epoch_steps"] / outcome.metrics[-1]["seconds"]

    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


def measure_speed(folder: Path, rounds: int, steps: int, images: int) -> dict[str, Any]:
    """Steps in a second from each side.

    Args:
        folder: Where the files are written; the training set is in the page cache then.
        rounds: Epochs of each side, of which the first is not counted.
        steps: Steps of an epoch.
        images: Size of the training set.
    """
    generator = np.random.default_rng(0)
    for name, number in {"train": images, "valid": 100, "test": 100}.items():
        np.save(folder / f"{name}.npy", generator.integers(0, 256, (number, *SHAPE), dtype=np.uint8))
    sides = {name: Side(read(folder), steps, rounds + 1) for name, read in SIDES.items()}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in random.Random(number).sample(list(sides), len(sides)):
            speeds[name].append(sides[name]())
    weights = [side.weights() for side in sides.values()]
    first = next(iter(speeds))
    return {
        "images": images,
        "steps": steps,
        "rounds": rounds,
        "weights_are_equal": all(torch.equal(weights[0], each) for each in weights),
        "cases": [case(name, each[1:], speeds[first][1:]) for name, each in speeds.items()],
    }


def case(name: str, speeds: list[float], first: list[float]) -> dict[str, Any]:
    """The record of a side: median and quartiles of its speed, and the median of the ratios to the first side."""
    ratios = [each / other for each, other in zip(speeds, first, strict=True)]
    low, _, high = statistics.quantiles(speeds, n=4) if len(speeds) > 1 else [speeds[0]] * 3
    return {
        "side": name,
        "steps_per_second": round(statistics.median(speeds), 2),
        "quartiles": [round(low, 2), round(high, 2)],
        "ratio": round(statistics.median(ratios), 3),
    }


def sparse(path: Path, images: int) -> None:
    """A file of images of zeros, which takes no room on the disk."""
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (images, *SHAPE)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + images * SHAPE[0] * SHAPE[1])


def peak_gib() -> float:
    """The largest resident memory of this process so far, pages of files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**20


def train_large(path: Path, epochs: int, steps: int, answer: Callable[[dict[str, Any]], None]) -> None:
    torch.set_num_threads(1)
    peaks = {"start": peak_gib()}
    began = time.perf_counter()
    data = own.load(path, likelihood="logistic256")
    seconds, peaks["checked"] = time.perf_counter() - began, peak_gib()
    side = Side(data, steps, epochs)
    for _ in range(epochs):
        side()
    peaks["trained"] = peak_gib()
    content = {name: round(value, 3) for name, value in peaks.items()}
    answer({"streamed": data.streamed, "seconds_to_check": round(seconds, 1), "peak_gib": content})


def measure_memory(folder: Path, gigabytes: float, epochs: int = 3, steps: int = 100) -> dict[str, Any]:
    """The peak memory of a training on a file of this size."""
    path, images = folder / "large.npy", round(gigabytes * 1e9 / (SHAPE[0] * SHAPE[1]))
    sparse(path, images)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=train_large, args=(path, epochs, steps, theirs.send))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    path.unlink()
    return {"file_bytes": images * SHAPE[0] * SHAPE[1], "images": images, "epochs": epochs, "steps": steps, **result}


def render(result: dict[str, Any]) -> str:
    """The record as a table of Markdown and a sentence."""
    speed, memory = result["speed"], result["memory"]
    columns = ("training set", "steps a second", "quartiles", "times the first")
    rows = [
        [each["side"], f"{each['steps_per_second']:.1f}", "{:.1f} to {:.1f}".format(*each["quartiles"]), each["ratio"]]
        for each in speed["cases"]
    ]
    table = markdown_table(columns, [[str(cell) for cell in row] for row in rows])
    about, peak = result["session"], memory["peak_gib"]
    return (
        f"{about['hardware']}; commit {about['commit']}; {speed['rounds']} rounds of {speed['steps']} steps, "
        f"{speed['images']:,} images.\n\n{table}\n\n"
        f"A training on {memory['file_bytes'] / 1e9:.0f} GB, {memory['images']:,} images, had at most "
        f"{peak['trained']:.2f} GiB of resident memory: {peak['start']:.2f} GiB after the imports, "
        f"{peak['checked']:.2f} GiB after the check of all values, which took {memory['seconds_to_check']:.0f} s."
    )


RECORD = Record("streaming", "speed.md", render)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--render", action="store_true", help="only put the record into docs/speed.md")
    given = parser.parse_args()
    if given.render:
        RECORD.render()
        return
    torch.set_num_threads(given.threads)
    result: dict[str, Any] = {"session": session(0, torch.device("cpu")), "threads": given.threads}
    with tempfile.TemporaryDirectory() as folder:
        result["memory"] = measure_memory(Path(folder), given.gigabytes)
    with tempfile.TemporaryDirectory() as folder:
        result["speed"] = measure_speed(Path(folder), given.rounds, given.steps, given.images)
    print(render(result))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.out, result)


if __name__ == "__main__":
    main()
