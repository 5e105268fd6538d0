"""Recorded results: one small JSON file a run, and the table that README.md shows of them.

python -m vaepriors.results record runs/a --paper -83.19 --source "Tomczak & Welling 2018, Table 1"
python -m vaepriors.results render README.md
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaepriors.checkpoint import write_atomically
from vaepriors.run import Run

__all__ = ["record", "render", "replace_table"]

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def record(run: Run, folder: Path, paper: float | None = None, source: str | None = None, note: str = "") -> Path:
    """Write what a run found, and how, as a JSON file named after the run.

    Args:
        run: An evaluated run.
        folder: Where to.
        paper: The number of a paper in the row's unit: log-likelihood in nats, or bits per dimension.
        source: Where the paper has it.
        note: What a reader must know besides.

    Raises:
        ValueError: If the run has not been evaluated.
    """
    evaluation = run / "evaluation.json"
    if not evaluation.is_file():
        raise ValueError(f"{run.folder} has no evaluation.json: run vaepriors evaluate {run.folder} first")
    metrics = run.metrics()
    content = {
        **run.description(),
        "epochs_run": len(metrics),
        "gib": max((line["memory"] for line in metrics if "memory" in line), default=None),  # older runs have none
        "hours": round(sum(line["seconds"] for line in metrics) / 3600, 3),
        "evaluation": json.loads(evaluation.read_text()),
        "paper": paper,
        "source": source,
        "note": note,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.folder.name}.json"
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
    return path


def render(folder: Path) -> str:
    """The table of all results of a folder, in Markdown; the same files give the same text."""
    head = [
        "| data | model | prior | ours | paper | examples | epochs (best) | rate, init | seed | hours, hardware |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [_row(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    return "\n".join([*head, *rows])


def _row(result: dict[str, Any]) -> str:
    experiment, found = result["experiment"], result["evaluation"]
    if experiment["data"] in ("frey_faces", "histopathology"):
        scale = found["bits_per_dim"] / found["nll"]
        ours = f"{found['bits_per_dim']:.3f} ± {found['nll_se'] * scale:.3f} bits"
    else:
        ours = f"{-found['nll']:.2f} ± {found['nll_se']:.2f}"
    paper = "" if result["paper"] is None else f"{result['paper']}"
    hardware = result["sessions"][-1]["hardware"]
    cells = [
        experiment["data"], experiment["model"], experiment["prior"], ours, paper, str(found["n"]),
        f"{result['epochs_run']} ({found['epoch']})", f"{experiment['lr']:g}, {experiment.get('init', 'he')}",
        str(experiment["seed"]), f"{result['hours']:.2f}, {hardware}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def replace_table(text: str, table: str) -> str:
    """The text with the table between its two marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m vaepriors.results", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record", help="write a run's result")
    recorder.add_argument("run", type=Path)
    recorder.add_argument("--paper", type=float)
    recorder.add_argument("--source")
    recorder.add_argument("--note", default="")
    recorder.add_argument("--to", type=Path, default=Path("results"))
    renderer = commands.add_parser("render", help="put the table into a file")
    renderer.add_argument("file", type=Path)
    renderer.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    try:
        if given.command == "record":
            print(record(Run(given.run), given.to, given.paper, given.source, given.note))
        else:
            text = replace_table(given.file.read_text(), render(given.results))
            write_atomically(given.file, text.encode())
    except ValueError as error:
        sys.exit(f"vaepriors.results: {error}")


if __name__ == "__main__":
    main()
