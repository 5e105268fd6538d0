"""Do two versions of the code compute the same numbers? Eight short runs of each, on the same machine.

    python benchmarks/same_numbers.py record old.json --python ../old/.venv/bin/python
    python benchmarks/same_numbers.py record new.json
    python benchmarks/same_numbers.py compare old.json new.json

A record has the metrics of three epochs and an evaluation with 500 samples of each run. Processors differ in the last
bits, so both records must come from one machine.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SMALL = "--latent 4 --batch-size 100 --epochs 3 --warmup 2 --accelerator cpu --seed 1"
RUNS = {
    "vae": "--model vae --prior standard --hidden 32 32",
    "hvae-vamp": "--model hvae --prior vamp --components 20 --weighted --hidden 32 32",
    "conv-mog": "--model conv --prior mog --components 20",
    "convhvae-vamp-data": "--model convhvae --prior vamp-data --components 20 --hidden 32 32",
    "pixelhvae": "--model pixelhvae --prior vamp --components 10 --hidden 32 32",
    "mlp-vhp-rewo": "--model mlp --prior vhp --prior-samples 4 --objective rewo --kappa 0.5 --hidden 32 32",
    "vae-iwae-dreg": "--model vae --objective iwae --samples 5 --estimator dreg --hidden 32 32",
    "two-devices": "--model vae --prior vamp --components 20 --hidden 32 32 --devices 2",
}
MEASURED = {"seconds", "memory"}
EVALUATED = ("nll", "elbo", "rate", "distortion", "active_units")


def record(python: str) -> dict[str, Any]:
    """The numbers of each run, computed with this interpreter."""
    return {name: _run(python, f"{SMALL} {options}".split()) for name, options in RUNS.items()}


def _run(python: str, options: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        call = lambda *words: subprocess.run(  # noqa: E731
            [python, "-m", "vaepriors", *words], check=True, stdout=subprocess.DEVNULL, env=os.environ
        )
        call("train", "--data", "digits", "--out", str(out), *options)
        call("evaluate", str(out), "--samples", "500", "--number", "20")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        (evaluation,) = (json.loads(path.read_text()) for path in out.glob("evaluation*.json"))
    metrics = [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]
    return {"metrics": metrics, "evaluation": {name: evaluation[name] for name in EVALUATED}}


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Places where two records differ by more than 1e-5 relative."""
    if isinstance(old, dict):
        names = sorted(old.keys() | new.keys())
        return [line for name in names for line in differences(old.get(name), new.get(name), f"{place}/{name}")]
    if isinstance(old, list):
        pairs = zip(old, new, strict=True)
        return [line for number, pair in enumerate(pairs) for line in differences(*pair, f"{place}/{number}")]
    numbers = isinstance(old, (int, float)) and isinstance(new, (int, float))
    same = math.isclose(old, new, rel_tol=1e-5) if numbers else old == new
    return [] if same else [f"{place}: {old} {new}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record")
    recorder.add_argument("out", type=Path)
    recorder.add_argument("--python", default=sys.executable)
    comparer = commands.add_parser("compare")
    comparer.add_argument("old", type=Path)
    comparer.add_argument("new", type=Path)
    given = parser.parse_args()
    if given.command == "record":
        given.out.write_text(json.dumps(record(given.python), indent=2) + "\n")
        return
    lines = differences(*(json.loads(path.read_text()) for path in (given.old, given.new)))
    print("\n".join(lines) or "the same numbers")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
