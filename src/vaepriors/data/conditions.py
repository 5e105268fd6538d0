"""What a model may be given: a class or covariates of each point, as a vector y.

labels       one-hot classes: those of the labels that the training set has, in their order
covariates   real numbers, taken unchanged
both         the one-hot class, then the covariates
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vaepriors.data.arrays import SPLITS
from vaepriors.data.columns import listed
from vaepriors.data.dataset import Dataset
from vaepriors.limits import check_size
from vaepriors.words import counted

__all__ = [
    "CONDITIONS",
    "WITH_LABELS",
    "check_covariates",
    "check_labels",
    "condition_of",
    "condition_on",
    "y_of",
]

CONDITIONS = ("labels", "covariates", "both")
WITH_LABELS = ("labels", "both")
MOST_CLASSES = 10_000
LARGE = 30.0  # the root mean square of a column of covariates


def condition_on(dataset: Dataset, kind: str, rows: Mapping[str, Tensor] | None = None) -> Dataset:
    """The data set with conditions from its labels, its covariates, or both.

    Args:
        dataset: The data set.
        kind: `labels`, `covariates` or `both`.
        rows: The row of each point where the user has it, by split; by default its row in the split.

    Raises:
        ValueError: If it has none, labels are not whole numbers, or valid or test has a class that train does not have.

    >>> from vaepriors.data import load
    >>> digits = condition_on(load("digits"), "labels")
    >>> digits.conditions["train"].shape, digits.classes
    (torch.Size([1297, 10]), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    """
    if kind not in CONDITIONS:
        raise ValueError(f"unknown condition {kind!r}: choose one of {', '.join(CONDITIONS)}")
    parts: list[dict[str, Tensor]] = []
    doubts = list(dataset.doubts)
    classes: tuple[int | str, ...] = ()
    if kind in WITH_LABELS:
        classes, of_classes = _one_hot(dataset, rows or {})
        parts.append(of_classes)
    if kind in ("covariates", "both"):
        _check_present(dataset, "covariates", dataset.covariates)
        parts.append(dataset.covariates)
        doubts += _far_from_a_unit_scale(dataset.covariates["train"])
    conditions = {split: torch.cat([part[split] for part in parts], -1) for split in SPLITS}
    return replace(dataset, conditions=conditions, classes=classes, doubts=tuple(doubts))


def condition_of(dataset: Dataset, values: Sequence[float | str]) -> Tensor:
    """The y of a class, of covariates, or of a class followed by covariates, of shape `(c,)`.

    Raises:
        ValueError: If the data have no conditions, no such class, or another number of values.

    >>> from vaepriors.data import load
    >>> condition_of(condition_on(load("digits"), "labels"), (3,)).tolist()
    [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    given = f"condition is {' '.join(map(str, values))}"
    if not dataset.conditions:
        raise ValueError(f"{given}, but the model of {dataset.name} has no conditions")
    classes = dataset.classes
    covariates = dataset.conditions["train"].shape[-1] - len(classes)
    if len(values) != bool(classes) + covariates:
        parts = ["a class"] * bool(classes) + [counted(covariates, "covariate")] * bool(covariates)
        raise ValueError(f"{given}: give {' and '.join(parts)}")
    if classes and str(values[0]) not in map(str, classes):
        raise ValueError(f"{given}: choose a class of {listed(classes)}")
    one_hot = [float(str(values[0]) == str(each)) for each in classes]
    try:
        y = torch.tensor([*one_hot, *map(float, values[bool(classes) :])])
    except ValueError as error:
        raise ValueError(f"{given}: covariates are numbers ({error})") from error
    if not y.isfinite().all():
        raise ValueError(f"{given}: covariates are finite numbers")
    return y


def y_of(
    path: Path, dataset: Dataset, labels: Sequence[object] | None, covariates: Tensor | None, where: str = ""
) -> Tensor:
    """The y of each point of another file than the data, of shape `(N, c)`, from its labels and covariates.

    The classes are those of the data, and `where` names the part of the file that has the labels.
    """
    number, parts = dataset.conditions["train"].shape[-1] - len(dataset.classes), []
    numbers = {"labels": int(labels is not None), "covariates": 0 if covariates is None else covariates.shape[1]}
    for kind, needed in {"labels": int(bool(dataset.classes)), "covariates": number}.items():
        if needed and numbers[kind] != needed:
            raise ValueError(
                f"{path} has {numbers[kind] or 'no'} {kind}, but the model is given {dataset.given_in_words()}: store "
                f"them like those of the training data, as train_{kind} beside the points as train, as folders of "
                f"images, or as columns of the kind {kind[:-1]}"
            )
    if dataset.classes and labels is not None:
        place = {str(each): number for number, each in enumerate(dataset.classes)}
        for row, label in enumerate(labels):
            if str(label) not in place:
                raise ValueError(
                    f"{path} has the class {str(label)[:80]!r} in row {row}{where}, which the training set does not "
                    "have: remove such rows"
                )
        codes = torch.tensor([place[str(label)] for label in labels], device="cpu")
        parts.append(F.one_hot(codes, len(dataset.classes)).float())
    if number and covariates is not None:
        parts.append(covariates)
    return torch.cat(parts, 1)


def check_labels(what: str, labels: Tensor, rows: Tensor | None = None) -> None:
    """Refuse labels that are not one whole number for each point."""
    if labels.dim() != 1:
        raise ValueError(f"{what} has shape {tuple(labels.shape)}: labels are (N,), one whole number for each point")
    wrong = torch.zeros_like(labels, dtype=torch.bool)
    if labels.is_floating_point():
        wrong = (labels != labels.floor()) | labels.isinf()
    if wrong.any():
        place = int(wrong.nonzero()[0])
        row = place if rows is None else int(rows[place])
        raise ValueError(
            f"{what} has {labels[place].item():.6g} in row {row}: labels are whole numbers, one for each class; give "
            "real numbers as covariates"
        )


def check_covariates(what: str, covariates: Tensor) -> None:
    """Refuse covariates that are not finite vectors."""
    if covariates.dim() != 2 or not covariates.shape[1]:
        raise ValueError(f"{what} has shape {tuple(covariates.shape)}: covariates are (N, c), a vector for each point")
    bad = (~covariates.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(f"{what} has {covariates[row, column].item()} in row {row}, column {column}: repair it")


def _far_from_a_unit_scale(covariates: Tensor) -> list[str]:
    """A sentence about the first column whose values are large."""
    scale = covariates.double().square().mean(0).sqrt()
    far = (scale > LARGE).nonzero()
    if not len(far):
        return []
    column = int(far[0])
    return [
        f"covariates have values of about {scale[column].item():.3g} in column {column}, which networks see unchanged: "
        "scale them to about 1"
    ]


def _check_present(dataset: Dataset, kind: str, values: Mapping[str, Tensor]) -> None:
    missing = [split for split in SPLITS if split not in values]
    if missing:
        raise ValueError(
            f"{dataset.name} has no {kind}, so a model cannot be given them: a custom .npz has them as "
            f"{', '.join(f'{split}_{kind}' for split in SPLITS)}, a folder as .npy files of these names, a folder of "
            f"images as folders of classes, a table in columns of the kind {kind[:-1]}; leave condition "
            "out, or choose other data"
        )


def _one_hot(dataset: Dataset, rows: Mapping[str, Tensor]) -> tuple[tuple[int | str, ...], dict[str, Tensor]]:
    """The classes of train, and the one-hot class of each point."""
    _check_present(dataset, "labels", dataset.labels)
    for split in SPLITS:
        check_labels(f"{dataset.name}: {split}_labels", dataset.labels[split], rows.get(split))
    classes = dataset.labels["train"].long().unique()
    if len(classes) > MOST_CLASSES:
        raise ValueError(
            f"{dataset.name} has {len(classes)} different labels in {len(dataset.train)} training points, more than "
            f"{MOST_CLASSES} classes: give fewer classes, or covariates"
        )
    number = sum(len(dataset.labels[split]) for split in SPLITS)
    check_size(f"the classes of {number} points, one-hot", 12 * number * len(classes))
    name_of = dataset.label_names.__getitem__ if dataset.label_names else int
    one_hot = {}
    for split in SPLITS:
        labels = dataset.labels[split].long()
        unknown = (~torch.isin(labels, classes)).nonzero()
        if len(unknown):
            place = int(unknown[0])
            row = int(rows[split][place]) if split in rows else place
            raise ValueError(
                f"{dataset.name}: {split} has the class {name_of(int(labels[place]))} in row {row}, which the training "
                "set does not have: remove such rows, or add the class to train"
            )
        one_hot[split] = F.one_hot(torch.searchsorted(classes, labels), len(classes)).float()
    return tuple(map(name_of, classes.tolist())), one_hot
