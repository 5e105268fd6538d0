"""Training steps and 5,000-sample likelihoods: time, memory, the arithmetic floor, and a peer's time beside it.

    make benchmark                             # everything, with pythae in an environment of its own
    python benchmarks/speed.py --models vae hvae --rounds 3 --variants plain
    python benchmarks/speed.py --render        # the tables of docs/speed.md, from results/benchmarks/*.json

Every case is a process of its own (`ours.py`, `theirs.py`), and they take turns, a few steps at a time, so that what
else slows the machine slows all alike. Times are medians over the rounds. The networks and the batch are those of
Tomczak & Welling 2018; the images are noise, on which no time depends.

The floor is the number of operations of the products and convolutions (counted by torch on this code, and compared with
the papers' layer sizes in the tests) over the best rate that this machine reaches in float32 products.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaepriors.app.choices import between_marks, markdown_table
from vaepriors.checkpoint import write_atomically, write_json
from vaepriors.numerics import error_of_products
from vaepriors.store import session

HERE = Path(__file__).parent
ROOT = HERE.parent
MODELS = ("vae", "hvae", "convhvae", "pixelhvae")
PRIORS = ("standard", "vamp")
CONVOLUTIONS = ("convhvae", "pixelhvae")
VARIANTS = {
    "cpu": ("plain", "compile", "bf16", "bf16-compile"),
    "cuda": ("plain", "graph", "compile", "reduce-overhead", "bf16"),
}
COMPILED = ("compile", "reduce-overhead", "bf16-compile")
COLUMNS = (
    "model", "prior", "variant", "ms a step", "floor", "ratio", "GiB", "ms an image", "floor", "ratio",
)  # fmt: skip


class Worker:
    """A process that makes one case, and then does a part of its work on each word it is sent."""

    def __init__(self, python: Path, script: str, model: str, prior: str, variant: str) -> None:
        self.model, self.prior, self.variant = model, prior, variant
        command = [str(python), str(HERE / script), model, prior, variant]
        quiet = os.environ | {"TQDM_DISABLE": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet)
        self.times: dict[str, list[float]] = {"step": [], "image": []}
        self.facts: dict[str, float] = self.ask("facts")

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.model} {self.prior} {self.variant} ended with {self.process.wait()}")
        return json.loads(line)

    def time(self, what: str) -> None:
        calls = self.facts.get("steps_per_call", 1) if what == "step" else 1
        self.times[what].append(self.ask(what) / calls)

    def result(self) -> dict[str, Any]:
        found = {
            f"ms_per_{what}": round(statistics.median(times) * 1e3, 2) for what, times in self.times.items() if times
        }
        spread = {f"{what}s_ms": [round(t * 1e3, 2) for t in times] for what, times in self.times.items() if times}
        memory = {f"{what}_gib": round(gib, 2) for what, gib in self.ask("memory").items()}
        names = {"model": self.model, "prior": self.prior, "variant": self.variant}
        return names | self.facts | found | memory | spread


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second in the best of some matrix products: sizes of the models, and a large square."""
    best = 0.0
    for m, k, n in ((1000, 300, 784), (1000, 600, 600), (2048, 2048, 2048)):
        a, w = torch.randn(m, k, device=device, dtype=dtype), torch.randn(n, k, device=device, dtype=dtype)
        best = max(best, 2 * m * k * n / min(_seconds(a, w) for _ in range(50)))
    return best


def _seconds(a: Tensor, w: Tensor) -> float:
    start = time.perf_counter()
    F.linear(a, w)
    if a.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def rates(device: torch.device) -> dict[str, float]:
    """Rates of products in GFLOP/s, on a CPU also by oneDNN where torch has a switch to it, if they stay exact."""
    found = {"float32": product_rate(device, torch.float32), "bfloat16": product_rate(device, torch.bfloat16)}
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if device.type == "cpu" and matmul is not None:
        before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
        if error_of_products() < 1e-5:  # not where the processor has instructions for bfloat16
            found["float32 by oneDNN"] = product_rate(device, torch.float32)
        matmul.fp32_precision = before
    return {name: round(rate / 1e9, 1) for name, rate in found.items()}


def variants_of(model: str, device: str, asked: Sequence[str] = ()) -> list[str]:
    """The variants of a model to measure on a kind of device: those asked for, or all.

    Convolutions are not compiled: that would take most of the benchmark's time.

    Raises:
        ValueError: If the device does not have one that is asked for, or none is left.
    """
    for variant in asked:
        if variant not in VARIANTS[device]:
            raise ValueError(f"variant {variant} is not for {device}: choose some of {', '.join(VARIANTS[device])}")
    variants = [variant for variant in VARIANTS[device] if variant in (asked or VARIANTS[device])]
    left = [variant for variant in variants if not (model in CONVOLUTIONS and variant in COMPILED)]
    if not left:
        raise ValueError(f"{model} is not measured as {' or '.join(asked)}: add plain, or leave {model} out")
    return left


def measure(models: Sequence[str], rounds: int, peer: Path | None, asked: Sequence[str] = ()) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = {model: variants_of(model, device.type, asked) for model in models}
    workers = []
    for model in models:
        for prior in PRIORS:
            workers += [Worker(Path(sys.executable), "ours.py", model, prior, variant) for variant in chosen[model]]
            if peer and model == "vae":
                workers.append(Worker(peer, "theirs.py", model, prior, "pythae"))
                workers.append(Worker(peer, "theirs.py", model, prior, "pythae-trainer"))
    for number in range(rounds):
        for worker in workers:
            if worker.model in CONVOLUTIONS and device.type == "cpu" and number >= 3:
                continue  # seconds a step, and half a minute an image
            worker.time("step")
            if worker.variant in ("plain", "pythae"):
                worker.time("image")
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {
        "session": session(0, device),
        "rounds": rounds,
        "gflops_per_second": rates(device),
        "cases": [worker.result() for worker in workers],
    }


def render(result: dict[str, Any]) -> str:
    """The tables of a recorded benchmark, in Markdown."""
    rate, cases = max(v for k, v in result["gflops_per_second"].items() if k != "bfloat16"), result["cases"]
    each = ", ".join(f"{value:g} in {name}" for name, value in result["gflops_per_second"].items())
    versions, rounds = result["session"]["versions"], f"{result['rounds']} rounds"
    if result["rounds"] > 3 and any(case["model"] in CONVOLUTIONS for case in cases):
        rounds += " (3 for convolutions on a CPU)"
    lines = [
        f"{result['session']['hardware']}; torch {versions['torch']}; commit {result['session']['commit']}; medians of "
        f"{rounds}; GFLOP/s: {each}.",
        "",
    ]
    rows = []
    for case in cases:
        cells = [case["model"], case["prior"], case["variant"]]
        for what, memory in (("step", f"{case['step_gib']:.2f}"), ("image", None)):
            ms, flops = case.get(f"ms_per_{what}"), case.get(f"gflop_per_{what}")
            floor = None if flops is None else flops / rate * 1e3
            cells += [_number(ms), _number(floor), "" if ms is None or floor is None else f"{ms / floor:.2f}"]
            cells += [] if memory is None else [memory]
        rows.append(cells)
    return "\n".join([*lines, markdown_table(COLUMNS, rows)])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def ratios(result: dict[str, Any]) -> list[str]:
    """How many times as long the peer takes, and the VampPrior beside the standard prior; a line each."""
    case = {(c["model"], c["prior"], c["variant"]): c for c in result["cases"]}
    lines = []
    for prior in PRIORS:
        if ("vae", prior, "pythae") not in case:
            continue
        theirs, trainer = case["vae", prior, "pythae"], case["vae", prior, "pythae-trainer"]
        for variant in ("plain", "compile", "reduce-overhead", "graph"):
            if ("vae", prior, variant) in case:
                ours = case["vae", prior, variant]["ms_per_step"]
                step = f"{theirs['ms_per_step'] / ours:.2f} ({trainer['ms_per_step'] / ours:.2f} in its own trainer)"
                lines.append(f"pythae's step takes {step} times as long as ours, VAE, {prior} prior, {variant}")
        image = theirs["ms_per_image"] / case["vae", prior, "plain"]["ms_per_image"]
        lines.append(f"pythae's likelihood takes {image:.1f} times as long as ours, VAE, {prior} prior")
    for (model, prior, variant), found in case.items():
        if variant.startswith("bf16") and (model, prior, "plain") in case:
            times = case[model, prior, "plain"]["ms_per_step"] / found["ms_per_step"]
            lines.append(f"a step in float32, plain, takes {times:.2f} times as long, {model}, {prior}, {variant}")
        if prior == "vamp" and "pythae" not in variant:
            times = found["ms_per_step"] / case[model, "standard", variant]["ms_per_step"]
            lines.append(f"VampPrior (K = 500) over the standard prior, {model}, {variant}: {times:.2f} times the step")
    return lines


def replaced(text: str, name: str, result: dict[str, Any]) -> str:
    """The text with the tables of a result between its two marks."""
    return between_marks(text, name, "\n".join([render(result), "", *(f"* {line}" for line in ratios(result))]))


def rendered(text: str) -> str:
    """The text of docs/speed.md with its tables made anew from the recorded benchmarks."""
    for path in sorted((ROOT / "results" / "benchmarks").glob("speed-*.json")):
        text = replaced(text, path.stem, json.loads(path.read_text()))
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rounds", type=int, default=15)
    every = list(dict.fromkeys(variant for variants in VARIANTS.values() for variant in variants))
    parser.add_argument("--variants", nargs="+", choices=every, default=(), help="all that the device has unless given")
    parser.add_argument("--peer", type=Path, help="a Python that has pythae 0.1.2")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--render", action="store_true", help="only put the recorded tables into docs/speed.md")
    given = parser.parse_args()
    if given.render:
        page = ROOT / "docs" / "speed.md"
        write_atomically(page, rendered(page.read_text()).encode())
        return
    try:
        result = measure(given.models, given.rounds, given.peer, given.variants)
    except ValueError as error:
        parser.error(str(error))
    print(render(result), *ratios(result), sep="\n")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.out, result)


if __name__ == "__main__":
    main()
