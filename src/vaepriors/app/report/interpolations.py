"""The section about interpolations."""

import shlex
from collections.abc import Iterator
from typing import Any, Literal, NotRequired, TypedDict

from vaepriors.app.report import page
from vaepriors.app.report.page import Part
from vaepriors.app.report.subject import Subject
from vaepriors.app.run import Run
from vaepriors.reading import read_json
from vaepriors.words import counted

__all__ = ["interpolated", "interpolations"]


def interpolations(subject: Subject) -> Iterator[Part]:
    """How smooth the interpolations are, and their pictures; nothing without a folder."""
    run = subject.run
    if run is None:
        return
    result = interpolated(run)
    if result is None:
        yield f"None yet: run {_command('interpolate', run)}{' --condition ...' if subject.data.conditions else ''}."
        return
    if result["epoch"] != subject.epoch:
        yield (
            f"Those in interpolation.json are not shown: they are of another model (epoch {result['epoch']}, this one "
            f"is of epoch {subject.epoch}). {_renewal(run, subject.which, result)} renews them."
        )
        return
    words = {"graph": "along paths", "graph_resampled": "along 50 points of them", "straight": "along straight lines"}
    rows = [[words[name], f"{v['mean']:.4f} ± {v['sd']:.4f}"] for name, v in result["smoothness"].items()]
    given = f". All are given {' '.join(result['condition'])}" if "condition" in result else ""
    yield (
        f"Through {counted(result['graphs'], 'graph')} of {result['nodes']} draws of the prior, each joined to its "
        f"{result['neighbors']} nearest; {result['pairs_without_path']} of {result['graphs'] * result['pairs']} pairs "
        f"have no path{given}. Lower is smoother."
    )
    for name, alt in (
        ("interpolation", "Interpolations: along the path above the straight line, for each pair."),
        ("graph", "The graph of draws of the prior in the latent plane, with some paths."),
    ):
        if (run / f"{name}.png").is_file():
            yield page.Picture(name, (run / f"{name}.png").read_bytes(), alt, alt)
    yield page.Table("smoothness", rows, ["smoothness (lower is smoother)", "mean ± standard deviation"])


def interpolated(run: Run) -> dict[str, Any] | None:
    """The result of `interpolate`; None if it has not been called."""
    file, remedy = run / "interpolation.json", f"interpolate again: {_command('interpolate', run)}"
    return read_json(file, Measured, remedy, more=True) if file.is_file() else None


class Smoothness(TypedDict):
    """Over pairs."""

    mean: float
    sd: float


class Measured(TypedDict):
    """What a report needs of interpolation.json."""

    epoch: int
    seed: int
    nodes: int
    neighbors: int
    graphs: int
    pairs: int
    pairs_without_path: int
    condition: NotRequired[list[str]]
    smoothness: dict[Literal["graph", "graph_resampled", "straight"], Smoothness]


def _renewal(run: Run, which: str, result: dict[str, Any]) -> str:
    """The command that makes such interpolations of the model `which`."""
    options = [word for name in ("nodes", "neighbors", "graphs", "pairs") for word in (f"--{name}", result[name])]
    options += ["--which", which] * (which != "best") + ["--seed", result["seed"]] * (result["seed"] != 0)
    options += ["--condition", *result["condition"]] if "condition" in result else []
    return _command("interpolate", run, *options)


def _command(name: str, run: Run, *options: object) -> str:
    """A command on a run, as one types it into a shell."""
    return shlex.join(["vaepriors", name, *map(str, (run.folder, *options))])
