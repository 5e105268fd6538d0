"""A data set: three disjoint splits of points x and the likelihood p(x|z) that fits them.

The support of x follows from the likelihood:

    bernoulli     x in {0, 1}; probabilities in [0, 1] in a train split that is binarised at each visit (dynamic)
    logistic256   x in [0, 1), 256 bins: level = floor(256 x), stored as the middle of its bin, x = (level + 0.5) / 256
    gaussian      any finite x; the same for student
    poisson       x in {0, 1, 2, ...}; the same for negative_binomial and multinomial
    categorical   x in {0, ..., C - 1}, with C of each column, or channel, from train
    mixed         as the kind of each column says; NaN is a missing cell (see `vaepriors.networks.mixed`)

Dynamic binarisation (Salakhutdinov & Murray, 2008) draws x ~ Bernoulli(probability) at every visit of a training point.
Validation and test points are drawn once, with a seed that never changes, so all runs are evaluated on the same bits.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.arrays import SPLITS
from vaepriors.data.checks import (
    blocks,
    check_columns,
    check_conditions,
    check_known,
    check_points,
    check_shape,
    check_values,
)
from vaepriors.data.draws import binarize_once
from vaepriors.networks.likelihoods import LIKELIHOODS, Likelihood, mixed_of, standardized
from vaepriors.networks.mixed import Column, column_moments
from vaepriors.networks.scaling import Moments, moments

if TYPE_CHECKING:
    from vaepriors.data.examples import Examples

Reader = Callable[["Dataset", Path], "Examples"]
SUBSET = 2**28  # bytes of training points that are looked at, of those that stay on disk
MOST = 100_000  # rows of a table from which the moments of its columns are computed


class Chosen(NamedTuple):
    """Points of a split, with their conditions, the numbers of their classes, and their labels; None without any."""

    x: Tensor
    condition: Tensor | None
    groups: Tensor | None
    labels: Tensor | None
    rows: Tensor | slice  # where they are in the split


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test points, checked against the support of their likelihood.

    Args:
        name: The name of the set in runs and reports.
        train, valid, test: The points as float32, of shape `(N, C, H, W)` for images or `(N, D)` for vectors, with the
            same event shape. `train` may also be bytes, a file, or a dataset of torch (`vaepriors.data.Items`), which
            become such points when rows of it are selected (see `vaepriors.data.rows`).
        likelihood: A name in `vaepriors.data.LIKELIHOODS`, such as `bernoulli`.
        dynamic: Whether `train` holds Bernoulli probabilities, which the training loop binarises at each visit; `valid`
            and `test` are binarised already.
        labels: A class, an angle or the like of each point, by split: `{"train": (N, ...), ...}`. They are used by
            figures and metrics, and by the training only as conditions.
        covariates: Real numbers of each point, of shape `(N, c)`, by split; used only as conditions.
        conditions: What a conditional model is given of each point: y, floats of shape `(N, c)`, by split. Empty for
            models without conditions. `condition_on` makes them from labels or covariates.
        classes: The labels of the classes, or their names, if the first numbers of y are a one-hot class.
        label_names: The names of the labels 0, 1, ..., if they have names.
        segments: Draws points that are stick figures: `(N, D)` -> `(N, lines, 2, 3)`, the two ends of each line.
        pseudo: Mean and standard deviation of the VampPrior's initial pseudo-inputs (Tomczak & Welling, 2018); by
            default these are training images plus noise.
        stored: How a file stored the points, in words, such as its type.
        content: What identifies the training points, such as a digest of their files; the points unless given, and of
            `Items` their type, number and shape.
        doubts: Sentences on what may have been read wrongly, each with a remedy.
        standardize: Whether a model by name standardises the columns of real vectors, inside of the model; the points
            are in their own units.
        columns: The columns of a table, with the kinds that the likelihood `mixed` takes. There, a NaN is a missing
            cell.
        reader: Reads another file as the training data were read, for `read`; by the likelihood unless given.

    Raises:
        ValueError: If a split is empty, has another dtype, number of dimensions or event shape, or holds NaN, infinity,
            values outside the support of the likelihood, or a category that train does not have, or if labels,
            covariates or conditions do not fit the points.

    >>> bits = torch.eye(4)
    >>> data = Dataset("identity", train=bits[:2], valid=bits[2:3], test=bits[3:], likelihood="bernoulli")
    >>> data.event_shape
    torch.Size([4])
    """

    name: str
    train: Any = field(repr=False)  # Points; `Any`, because most programs have a tensor there
    valid: Tensor = field(repr=False)
    test: Tensor = field(repr=False)
    likelihood: str
    dynamic: bool = False
    pseudo: tuple[float, float] | None = None
    labels: dict[str, Tensor] = field(default_factory=dict, repr=False)
    covariates: dict[str, Tensor] = field(default_factory=dict, repr=False)
    conditions: dict[str, Tensor] = field(default_factory=dict, repr=False)
    classes: tuple[int | str, ...] = field(default=(), repr=False)
    label_names: tuple[str, ...] = field(default=(), repr=False)
    segments: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    stored: str = field(default="", repr=False)
    content: str = field(default="", repr=False)
    doubts: tuple[str, ...] = field(default=(), repr=False)
    standardize: bool = field(default=False, repr=False)
    columns: tuple[Column, ...] = field(default=(), repr=False)
    reader: Reader | None = field(default=None, repr=False)

    @property
    def family(self) -> Likelihood:
        """The likelihood, with what it takes from these data."""
        entry = LIKELIHOODS[self.likelihood]
        if self.likelihood == "mixed" and self.columns:
            return mixed_of(self.columns, self.standardize, lambda: self._moments)
        real = entry.real and len(self.event_shape) == 1
        return standardized(entry, lambda: self._moments) if self.standardize and real else entry

    @functools.cached_property
    def _moments(self) -> Moments:
        some = self.train[self._some(MOST)]
        return column_moments(some, self.columns) if self.likelihood == "mixed" else moments(some)

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one point: `(C, H, W)` or `(D,)`."""
        return self.train.shape[1:]

    @property
    def streamed(self) -> bool:
        """Whether the training points are not in memory, but read batch by batch."""
        return getattr(self.train, "streamed", False)

    def fixed_train(self) -> Chosen:
        """The training points as an evaluation sees them: probabilities become pixels once.

        Of points that are read batch by batch it is a random subset of a quarter of a GiB.
        """
        rows = self._some(max(2, SUBSET // (4 * self.event_shape.numel()))) if self.streamed else slice(None)
        chosen = self._choose("train", rows)
        return chosen._replace(x=binarize_once(chosen.x)) if self.dynamic else chosen

    def few_test(self, most: int | None = None) -> Chosen:
        """At most `most` test points, or all, in a random order, which is always the same.

        Many files are in the order of the classes. In this order the first points are of all classes.
        """
        order = np.random.default_rng(0).permutation(len(self.test))
        return self._choose("test", torch.from_numpy(order[:most]))

    def _choose(self, split: str, rows: Tensor | slice) -> Chosen:
        y, labels = self.conditions.get(split), self.labels.get(split)
        groups = y[rows, : len(self.classes)].argmax(-1) if y is not None and self.classes else None
        return Chosen(
            getattr(self, split)[rows],
            None if y is None else y[rows],
            groups,
            None if labels is None else labels[rows],
            rows,
        )

    def read(self, path: Path | str) -> "Examples":
        """Read another file as the training data were read.

        Args:
            path: The file or folder: arrays for a model of arrays, a table with the columns of the model for one of a
                table, with the classes and covariates of its points or rows for a conditional model.

        Returns:
            The pair `x, condition`: the points, and the y of each or None. x is a tensor, or points on disk where they
            would take too much memory.

        Raises:
            ValueError: If it cannot be read, or has another form or other values than the training data.
        """
        from vaepriors.data.other import read_points  # which needs this module

        return (self.reader or read_points)(self, Path(path))

    def check_read(self, x: Tensor, rows: Tensor) -> None:
        """Refuse training points of these rows, read batch by batch, with values outside the support."""
        self._check_values("train", x, rows.tolist())

    def _check_values(self, split: str, x: Tensor, rows: Sequence[int]) -> None:
        probabilities = self.dynamic and split == "train"
        likelihood = None if probabilities else self.family
        check_values(f"{self.name}: {split}", x, likelihood, rows, len(getattr(self, split)))

    def _some(self, most: int) -> Tensor | slice:
        """The rows of at most `most` training points: all of them, or a random subset, which is always the same."""
        number = len(self.train)
        if number <= most:
            return slice(None)
        return torch.from_numpy(np.sort(np.random.default_rng(0).choice(number, most, replace=False, shuffle=False)))

    @property
    def has_images(self) -> bool:
        """Whether points can be shown as images: of one channel or of three."""
        return len(self.event_shape) == 3 and self.event_shape[0] in (1, 3)

    def summary(self) -> str:
        """Describe the set in one line.

        >>> bits = torch.eye(4)
        >>> Dataset("identity", bits[:2], bits[2:3], bits[3:], "bernoulli", stored="float32").summary()
        'identity: 4 vectors of 4, float32 -> bernoulli, split 2/1/1'
        """
        sizes = [len(self.train), len(self.valid), len(self.test)]
        kind = "images" if len(self.event_shape) == 3 else "vectors of"
        stored = f", {self.stored}" if self.stored else ""
        drawn = " (binarised at each visit)" if self.dynamic else " (standardised)" if self.standardize else ""
        return (
            f"{self.name}: {sum(sizes)} {kind} {' x '.join(map(str, self.event_shape))}{stored} -> {self.likelihood}"
            f"{drawn}, split {'/'.join(map(str, sizes))}{f', given {self.given_in_words()}' if self.conditions else ''}"
        )

    def given_in_words(self) -> str:
        """What a model is given of each point, such as `3 classes and 2 covariates`; empty without conditions."""
        if not self.conditions:
            return ""
        covariates, classes = self.conditions["train"].shape[-1] - len(self.classes), len(self.classes)
        parts = [f"{classes} class{'es' * (classes > 1)}"] * bool(classes)
        return " and ".join(parts + [f"{covariates} covariate{'s' * (covariates > 1)}"] * bool(covariates))

    def digest(self) -> str:
        """SHA-256 of the points, their shapes, the likelihood, whether it is dynamic, and conditions; computed once."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self.likelihood} {self.dynamic}".encode())
        for x in (self.train, self.valid, self.test):
            digest.update(f"{tuple(x.shape)}".encode())
            if x is self.train and (content := self.content or getattr(x, "content", "")):
                digest.update(content.encode())
                continue
            for _, block in blocks(x):
                digest.update(block.cpu().contiguous().numpy().data)
        for split, y in sorted(self.conditions.items()):
            digest.update(f"{split} {tuple(y.shape)} {self.classes}".encode())
            digest.update(y.cpu().contiguous().numpy().data)
        if self.columns:
            digest.update(repr(self.columns).encode())
        return digest.hexdigest()

    def __post_init__(self) -> None:
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(f"{self.name}: likelihood {self.likelihood!r} is not one of {', '.join(LIKELIHOODS)}")
        if self.dynamic and self.likelihood != "bernoulli":
            raise ValueError(
                f"{self.name}: dynamic=True binarises the training data, which a {self.likelihood} likelihood does not "
                "take: use likelihood='bernoulli' or dynamic=False"
            )
        if self.pseudo is not None and not self.pseudo[1] >= 0:
            raise ValueError(f"{self.name}: pseudo is (mean, standard deviation), the latter >= 0, not {self.pseudo}")
        for split in SPLITS:
            check_points(f"{self.name}: {split}", getattr(self, split))
        if self.streamed and not LIKELIHOODS[self.likelihood].streams:
            raise ValueError(
                f"{self.name}: the likelihood {self.likelihood} needs all training values at the start, but train is "
                "read batch by batch: give train[:], or choose another likelihood"
            )
        if self.likelihood == "mixed":
            check_columns(self.name, self.train, self.columns)
        for split in SPLITS:
            x = getattr(self, split)
            check_shape(f"{self.name}: {split}", x, self.event_shape)
            if x is not self.train or not self.streamed:  # which was checked when it was opened, or is when it is read
                for rows, block in blocks(x):
                    self._check_values(split, block, rows)
            elif not x.checked:
                self._check_values(split, x[:1], range(1))
            check_known(f"{self.name}: {split}", x, self.train, self.family)
            for kind in ("labels", "covariates", "conditions"):
                values = getattr(self, kind).get(split)
                if values is not None and len(values) != len(x):
                    count = f"{len(values)} {kind}"
                    raise ValueError(f"{self.name}: {split} has {len(x)} points but {count}: one each is needed")
        for kind in ("labels", "covariates"):
            if unknown := [split for split in getattr(self, kind) if split not in SPLITS]:
                raise ValueError(f"{self.name}: {kind} are of {unknown[0]!r}: the splits are {', '.join(SPLITS)}")
        if self.conditions:
            check_conditions(self.name, self.conditions, len(self.classes))
