"""Training of named rows, each a run of the command line that goes on with what was begun."""

from pathlib import Path

from vaepriors import cli
from vaepriors.run import Run


def train(rows: dict[str, list[str]], runs: Path) -> None:
    """Train every row, a name and its options, in the folder of that name."""
    for name, options in rows.items():
        try:
            cli.main(["train", *options, "--resume", "--out", str(runs / name)])
        except SystemExit as end:
            if end.code:
                raise


def finished(runs: Path, pattern: str) -> list[Path]:
    """The folders of runs that have reached their last epoch."""
    folders = [folder for folder in sorted(runs.glob(pattern)) if Run(folder).exists()]
    return [folder for folder in folders if len(Run(folder).metrics()) >= Run(folder).experiment().epochs]
