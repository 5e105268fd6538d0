"""What the commands share: the console, options that several have, complaints and warnings."""

import sys
from typing import Annotated, Any, Literal

import tyro

from vaepriors.app.terminal import make_console

__all__ = ["CustomModel", "Split", "Which", "check_seed", "complain", "console", "warn"]

Split = Literal["test", "valid", "train"]
Which = Annotated[str, tyro.conf.arg(help="The model: best, last, or epoch-N of a snapshot.")]
CustomModel = Annotated[
    str | None,
    tyro.conf.arg(help="Where the run has a custom model: its package.module:function again, to import it."),
]
console = make_console()


def check_seed(seed: int) -> None:
    """Refuse a seed that torch does not take."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}: choose 0 to {2**63 - 1}")


def complain(what: object, status: int) -> int:
    """Print one line: a name in it may hold a line break or other control characters, which are shown escaped."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(what))
    print(f"vaepriors: {line}", file=sys.stderr)
    return status


def warn(message: object, *_: Any, **__: Any) -> None:
    """Print a warning on one line; it may replace `warnings.showwarning`."""
    complain(f"warning: {message}", 0)
