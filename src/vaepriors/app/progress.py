"""Progress on the terminal, and curves for TensorBoard."""

import codecs
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from vaepriors.training import Callback

__all__ = ["TensorBoard", "TrainingBar", "counting_bar", "make_console"]


def make_console() -> Console:
    """Where the commands print: as wide as the terminal, or, into a file or a pipe, wide enough for their tables.

    Words are shown as they are: a path may have brackets or colons that mean something to rich.
    """
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 160
    return console


def use_plain_signs() -> None:
    """Let the standard streams replace signs that their encoding does not have: +- for ±, and ASCII for boxes."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign) or ascii(sign)[1:-1] for sign in signs), error.end


_PLAIN = {"±": "+-", "…": "...", "•": "*"} | {
    chr(code): "-" if chr(code) in "─━╌╍┄┅┈┉═╴╶╸╺╼╾" else "|" if chr(code) in "│┃║╎╏┆┇┊┋╵╷╹╻╽╿" else "+"
    for code in range(0x2500, 0x2580)
}


class _Speed(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} steps/s")


class TrainingBar(Callback):
    """A bar over the steps of a training with epoch, losses, speed and time left.

    Where the output is no terminal, a line now and then instead.

    Args:
        console: Where to.
        folder: The run's, for the headline.
    """

    def __init__(self, console: Console, folder: Path) -> None:
        self.console, self.folder = console, folder
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[loss]}"),
            _Speed(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.progress.add_task("", loss="")
        self.epochs, self.steps_per_epoch = 0, 0

    def __enter__(self) -> "TrainingBar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, epoch: int, epochs: int, steps: int) -> None:
        self.epochs, self.steps_per_epoch = epochs, steps
        self.console.print(f"run in {self.folder}" + (f", going on after epoch {epoch}" if epoch else ""))
        self._show(epoch, loss="")

    def steps(self, n: int) -> None:
        self.progress.advance(self.task, n)

    def epoch(self, line: dict[str, Any]) -> None:
        loss = f"loss {line['loss']:.2f}  valid {line['valid_loss']:.2f}"
        self._show(line["epoch"], loss)
        if not self.console.is_terminal and line["epoch"] % max(1, self.epochs // 40) == 0:
            self.console.print(f"epoch {line['epoch']}/{self.epochs}  {loss}  {line['seconds']:.1f} s")

    def _show(self, epoch: int, loss: str) -> None:
        total, done = self.epochs * self.steps_per_epoch, epoch * self.steps_per_epoch
        self.progress.update(
            self.task, total=total, completed=done, loss=loss, description=f"epoch {epoch}/{self.epochs}"
        )


class TensorBoard(Callback):
    """Every number of metrics.jsonl as a curve, in the run's folder.

    Raises:
        ImportError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("tensorboard is not installed: pip install 'vaepriors[tensorboard]'") from error
        self.open = lambda: SummaryWriter(str(folder))

    def start(self, epoch: int, epochs: int, steps: int) -> None:
        self.writer = self.open()  # makes the folder, which a mistake found earlier must not

    def epoch(self, line: dict[str, Any]) -> None:
        for name, value in line.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, line["epoch"])
        self.writer.flush()


@contextmanager
def counting_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar to be called with how many are done and how many there are; it is not seen before."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)
