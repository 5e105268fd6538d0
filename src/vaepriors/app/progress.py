"""Progress on the terminal, and curves for TensorBoard."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from vaepriors.training import Callback

__all__ = ["TensorBoard", "TrainingBar"]


class _Speed(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} steps/s")


class TrainingBar(Callback):
    """A bar over the steps of a training, with epoch, losses, speed and time left.

    If the output is not a terminal, it prints up to 40 lines instead.

    Args:
        console: The console to print to.
        folder: The folder of the run, for the first line.
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
        self.console.print(f"run in {self.folder}" + (f", resuming after epoch {epoch}" if epoch else ""))
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
        self.writer = self.open()  # creates the folder, so only after all checks

    def epoch(self, line: dict[str, Any]) -> None:
        for name, value in line.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, line["epoch"])
        self.writer.flush()
