"""What the files of a training hold, beside tensors: the forms that they are checked against."""

import json
from typing import Any, TypedDict

from vaepriors.reading import check

__all__ = ["Description", "LastValues", "Line", "Session", "Values", "metrics_of"]


class Session(TypedDict):
    """Where and by what some epochs were computed, in experiment.json."""

    after_epoch: int
    started: str
    commit: str | None
    versions: dict[str, str]
    hardware: str
    numerics: dict[str, Any]  # `numerics.describe`


class Description(TypedDict):
    """experiment.json."""

    experiment: dict[str, Any]  # the settings
    data_sha256: str  # `Dataset.digest`
    sha256: str  # of what the checkpoints belong to
    sessions: list[dict[str, Any]]


class Line(TypedDict):
    """What each line of metrics.jsonl has, beside the numbers of its objective."""

    epoch: int
    loss: float
    rate: float
    distortion: float
    valid_loss: float
    seconds: float


class Values(TypedDict):
    """Beside the tensors of best.ckpt and of snapshots."""

    epoch: int
    loss: float | None


class LastValues(TypedDict):
    """Beside the tensors of last.ckpt."""

    epoch: int
    best_loss: float | None
    best_epoch: int
    waited: int


def metrics_of(text: str, epoch: int) -> dict[str, Any]:
    """The line of this epoch in metrics.jsonl."""
    line = json.loads(text)
    check(line, Line, more=True)
    if line["epoch"] != epoch:
        raise ValueError(f"epoch is {line['epoch']}, not {epoch}")
    for name, value in line.items():
        if isinstance(value, str | bool | list | dict):
            raise ValueError(f"{name} is no number")
    return line
