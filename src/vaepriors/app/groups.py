"""The options of an experiment, in groups: the parents of `Experiment`, and the headings of `vaepriors train --help`.

Their fields are those below and the options of the tables of choices.
"""

import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vaepriors.app.choices import Count, CountFromZero, Positive, Table, fields_of, metavar
from vaepriors.app.likelihoods import HEADS
from vaepriors.app.models import MODELS
from vaepriors.app.objectives import OBJECTIVES
from vaepriors.app.priors import PRIORS
from vaepriors.data import CONDITIONS

__all__ = ["CHOICES", "TABLES", "Data", "Goal", "Machine", "Model", "Prior", "Training"]

TABLES: dict[str, Table] = {"likelihood": HEADS, "model": MODELS, "prior": PRIORS, "objective": OBJECTIVES}

if TYPE_CHECKING:

    class _Options:
        def __getattr__(self, name: str) -> Any: ...

    class HeadOptions(_Options): ...

    class ModelOptions(_Options): ...

    class PriorOptions(_Options): ...

    class ObjectiveOptions(_Options): ...
else:
    HeadOptions, ModelOptions, PriorOptions, ObjectiveOptions = map(fields_of, TABLES.values())


def _of(kind: Any) -> Any:
    """How an option with choices of its own is shown in the help; a string, checked by `Experiment`."""
    return tyro.conf.arg(metavar=metavar(kind))


Init = Literal["he", "glorot"]
Stream = Literal["auto", "yes", "no"]
BestFrom = Literal["start", "warmup"]
Accelerator = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "64-true", "bf16-mixed"]


@dataclass(frozen=True)
class Data(HeadOptions):
    """Points x and the distribution of one of them, p(x|z)."""

    data: str = "digits"
    """Data set (see `vaepriors data list`), or the path of a custom .npy, .npz, .csv, .parquet or .h5ad file, or of a
    folder of .npy files or of images."""
    likelihood: Annotated[
        str,
        tyro.conf.arg(
            help="How a custom file is read, and what p(x|z) is. Data sets of the list have their own.\n"
            f"auto: as the values suggest\n{HEADS.describe()}",
            metavar=f"{{auto,{','.join(HEADS)}}}",
        ),
    ] = "auto"
    columns: str | None = None
    """Kinds of columns of a custom table that differ from the guesses: NAME=KIND,..., with a kind of real, positive,
    count, bit, category, size (the size factor of the counts of a row), drop (left out), split (train, valid or test
    for each row), label, or covariate (both for condition)."""
    layer: str | None = None
    """The layer of a custom .h5ad file; X unless given."""
    image_size: Count | None = None
    """Height and width that the images of a folder are scaled to, by their shorter side, and cropped to, around their
    middle. Without it, all images need one size, and keep it."""
    standardize: bool = True
    """Standardise the real columns of a custom table inside of the model; log p(x) is of the data as given."""
    condition: Annotated[str | None, _of(Literal[CONDITIONS])] = None
    """What encoder and decoder are given of each point: labels (a one-hot class), covariates, or both; nothing unless
    given. (digits, dynamic_mnist, fashion_mnist and custom files can have labels; see docs/guide.md.)"""


@dataclass(frozen=True)
class Model(ModelOptions):
    """Encoder and decoder."""

    model: Annotated[
        str,
        tyro.conf.arg(
            help=f"{MODELS.describe()}\nor package.module:function, a custom model: the function gets the data set as "
            "`data`, the options that it has as parameters, and returns a VAE with its prior.",
            metavar=f"{{{','.join(MODELS)}}}|MODULE:FUNCTION",
        ),
    ] = "vae"
    init: Annotated[str, _of(Init)] = "he"
    """Distribution of the initial weights of dense layers: he (as in the authors' program) or glorot (as in the
    paper)."""


@dataclass(frozen=True)
class Prior(PriorOptions):
    """The distribution p(z); in a hierarchy, that of the top level."""

    prior: Annotated[str, PRIORS.argument()] = "standard"


@dataclass(frozen=True)
class Goal(ObjectiveOptions):
    """What is optimised."""

    objective: Annotated[str, OBJECTIVES.argument()] = "elbo"
    samples: Count = 1
    """Draws of z for each x in a training step."""
    warmup: CountFromZero = 100
    """Epochs over which the weight of the divergence in elbo grows to 1; 0 for none. Early stopping counts from then
    on, whatever the objective."""


@dataclass(frozen=True)
class Training:
    """How it is optimised."""

    epochs: Count = 2000
    """Largest number of epochs."""
    patience: CountFromZero = 50
    """Stop after more epochs than this without a better validation loss, counted from the end of the warm-up."""
    best_from: Annotated[str, _of(BestFrom)] = "start"
    """Whether an epoch of the warm-up may give the best model: start (yes, as in the authors' program) or warmup."""
    batch_size: Count = 100
    """Examples in a step, over all devices."""
    lr: Positive = 5e-4
    """Learning rate of Adam."""
    lr_stages: Count = 1
    """Stages of 1, 3, 9, ... epochs over which the learning rate falls to a tenth; constant for 1. (8 in the IWAE
    paper.)"""
    adam_eps: Positive = 1e-8
    """What Adam adds to the root of the second moment. (1e-4 in the IWAE paper.)"""
    normalize: bool = True
    """Divide each gradient by its norm before Adam."""
    epoch_steps: Count | None = None
    """Steps of an epoch, at whose end a checkpoint may be written; a pass over all examples unless given. The next
    epoch continues the same pass."""
    seed: CountFromZero = 0
    """Seed of the initial weights, the order of the data, all noise, and a random split of the data."""


@dataclass(frozen=True)
class Machine:
    """Where and how it is computed."""

    accelerator: Annotated[str, _of(Accelerator)] = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    devices: Count = 1
    """Devices on each node."""
    nodes: Count = 1
    """Nodes (started by torchrun or SLURM)."""
    stream: Annotated[str, _of(Stream)] = "auto"
    """Whether training examples of custom .npy files stay on disk and are read batch by batch: yes, no, or auto: if
    they would take more than half of the memory. The numbers are the same."""
    precision: Annotated[str, _of(Precision)] = "32-true"
    """Numbers of the training step: 32-true, 64-true, or bf16-mixed. Evaluation takes the weights' own precision."""
    compile: bool = False
    """Compile the model with torch.compile: a minute at the start, and then faster steps."""
    graph: bool = False
    """On one CUDA device, replay the training step as one CUDA graph."""


CHOICES: dict[str, tuple[str, ...]] = {
    "likelihood": ("auto", *HEADS),
    **{kind: tuple(table) for kind, table in TABLES.items() if kind != "likelihood"},
    "condition": CONDITIONS,
    "init": typing.get_args(Init),
    "best_from": typing.get_args(BestFrom),
    "accelerator": typing.get_args(Accelerator),
    "stream": typing.get_args(Stream),
    "precision": typing.get_args(Precision),
    **{
        name: typing.get_args(option.kind)
        for table in TABLES.values()
        for name, option in table.options().items()
        if typing.get_origin(option.kind) is Literal
    },
}
