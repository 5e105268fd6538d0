"""The sections about the training and the experiment."""

import dataclasses
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from vaepriors.app.origin import origin
from vaepriors.app.report import page
from vaepriors.app.report.curves import curves
from vaepriors.app.report.page import Part, drawn
from vaepriors.app.report.subject import Subject
from vaepriors.words import counted

__all__ = ["duration_in_words", "experiment", "training"]


def training(subject: Subject) -> Iterator[Part]:
    """How the training went, and its curves."""
    if not subject.metrics:
        if subject.run is not None:
            yield "No epoch has ended yet."
        return
    last = subject.metrics[-1]
    best = min(_judged(subject), key=lambda line: line["valid_loss"])
    duration = duration_in_words(sum(line["seconds"] for line in subject.metrics))
    yield (
        f"{counted(len(subject.metrics), 'epoch')} in {duration}. The best validation loss is {best['valid_loss']:.2f} "
        f"nats, of epoch {best['epoch']}; the last one {last['valid_loss']:.2f}."
    )
    if subject.run is not None and origin(subject.run) is not None:
        yield "The losses are rates: only the prior was trained."
    if len(subject.metrics) < subject.epochs:
        yield "The training ended before the last epoch: stopped early, interrupted, or still running."
    names = "losses, rate, distortion" + (", the weight of the divergence" if "beta" in last else "")
    yield drawn("training", curves(subject.metrics), f"Curves over the epochs: {names}.", f"By epoch: {names}.")


def _judged(subject: Subject) -> list[dict[str, Any]]:
    """The epochs that may have given the best model."""
    options = None if subject.run is None else subject.run.experiment()
    if options is None or options.best_from == "start":
        return subject.metrics
    return [line for line in subject.metrics if line["epoch"] >= options.warmup] or subject.metrics


def experiment(subject: Subject) -> Iterator[Part]:
    """What the run was made with; nothing without a folder."""
    run = subject.run
    if run is None:
        return
    parameters = sum(p.numel() for p in subject.model.parameters())
    sizes = ", ".join(f"{len(getattr(subject.data, split))} {split}" for split in ("train", "valid", "test"))
    yield (
        f"{parameters:,} parameters; {sizes}; examples of shape {tuple(subject.data.event_shape)}, likelihood "
        f"{subject.data.likelihood}."
    )
    if memory := max((line.get("memory", 0.0) for line in subject.metrics), default=0.0):
        yield f"The training used at most {memory:.2f} GiB of memory."
    sessions = [
        [
            str(each["after_epoch"]),
            f"{datetime.fromisoformat(each['started']).astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            each["commit"] or "unknown",
            ", ".join(f"{name} {version}" for name, version in each["versions"].items()),
            each["hardware"],
        ]
        for each in run.description()["sessions"]
    ]
    yield page.Table("sessions", sessions, ["after epoch", "started", "commit", "versions", "hardware"])
    values = dataclasses.asdict(run.experiment())  # None where the chosen entries have no such option
    options = [[name, _word(value)] for name, value in values.items() if value is not None]
    yield page.Table("options", options, ["option", "value"])


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def duration_in_words(seconds: float) -> str:
    """Seconds in a unit that is easy to read.

    >>> duration_in_words(8.2), duration_in_words(90), duration_in_words(9000)
    ('8.2 seconds', '1.5 minutes', '2.5 hours')
    """
    size, unit = (3600, "hours") if seconds >= 3600 else (60, "minutes") if seconds >= 60 else (1, "seconds")
    return f"{seconds / size:.1f} {unit}"
