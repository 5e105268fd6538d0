"""What the commands share: the console, options that several have, the run that they work on, and complaints."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vaepriors.app.terminal import make_console

if TYPE_CHECKING:
    from vaepriors.app.run import Run

__all__ = ["CustomModel", "Which", "complain", "console", "open_run"]

Which = Annotated[str, tyro.conf.arg(help="The model: best, last, or epoch-N of a snapshot.")]
CustomModel = Annotated[
    str | None,
    tyro.conf.arg(help="Where the run has a custom model: its package.module:function again, to import it."),
]
console = make_console()


def open_run(folder: Path, *named: str | None) -> "Run":
    """The run in a folder, whose model is one of those that the user named, if any."""
    from vaepriors.app.run import Run

    run, models = Run(folder), [name for name in named if name is not None]
    if models and run.experiment().model not in models:
        raise ValueError(f"{folder} was trained with the model {run.experiment().model}, not {' or '.join(models)}")
    return run


def complain(what: object, status: int) -> int:
    """Print one line: a name in it may hold a line break or other control characters, which are shown escaped."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(what))
    print(f"vaepriors: {line}", file=sys.stderr)
    return status
