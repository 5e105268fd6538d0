"""What a new prior gains for a VAE that was trained elsewhere, with a small weight of the divergence.

python benchmarks/pretrained.py [--seeds 3] [--out results/benchmarks/pretrained.json]     # examples/pretrained.py
python benchmarks/pretrained.py --render      # the table of docs/guide.md, from results/benchmarks/pretrained.json
"""

import argparse
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from record import ROOT, Record
from vaepriors.app.choices import markdown_table
from vaepriors.checkpoint import write_json
from vaepriors.store import session


def measure(seeds: int) -> dict[str, Any]:
    here = session(0, torch.device("cpu"))
    example = runpy.run_path(str(ROOT / "examples" / "pretrained.py"))["main"]
    runs = [example(seed=seed) for seed in range(seeds)]
    return {"session": here, "rows": {name: [run[name] for run in runs] for name in runs[0]}}


def table_of(recorded: dict[str, Any]) -> str:
    rows = recorded["rows"].items()
    lines = [[name, f"{np.mean(v):.1f} ± {np.std(v, ddof=1) / len(v) ** 0.5:.1f}"] for name, v in rows]
    return markdown_table(["prior", "log p(x)"], lines)


RECORD = Record("pretrained", "guide.md", table_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RECORD.path)
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    if options.render:
        RECORD.render()
    else:
        write_json(options.out, measure(options.seeds))


if __name__ == "__main__":
    main()
