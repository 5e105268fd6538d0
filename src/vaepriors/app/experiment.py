"""An experiment: everything that decides the numbers of a run, as one frozen dataclass.

The command line has its fields as options, a run's folder stores it, and a row of a paper's table is an experiment with
an expected number. Its fields are those below and the options of the tables of choices. `build` turns it into objects.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from torch import nn

from vaepriors import priors
from vaepriors.app import custom
from vaepriors.app.choices import (
    Choice,
    Count,
    CountFromZero,
    Positive,
    Setting,
    Table,
    check_choice,
    check_value,
    fields_of,
    metavar,
)
from vaepriors.app.likelihoods import HEADS
from vaepriors.app.models import MODELS, TWO_LEVELS
from vaepriors.app.objectives import OBJECTIVES, steps_per_epoch
from vaepriors.app.priors import PRIORS, classes_of
from vaepriors.conditional import AnyVAE, ConditionalVAE, Ignoring, PerClass
from vaepriors.data import CONDITIONS, Dataset, is_file, load
from vaepriors.data.columns import parse_columns
from vaepriors.networks.layers import start_from_glorot
from vaepriors.objectives import Objective
from vaepriors.reading import check
from vaepriors.vae import VAE

__all__ = [
    "CHOICES",
    "MODELS",
    "OBJECTIVES",
    "PRIORS",
    "TABLES",
    "TWO_LEVELS",
    "CommandLine",
    "Experiment",
    "build",
    "load_data",
    "steps_per_epoch",
]

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


def _chosen(kind: str, first: str = "") -> Any:
    """How the option that chooses an entry is shown in the help."""
    table = TABLES[kind]
    return tyro.conf.arg(help=f"{first}{table.describe()}", metavar=f"{{{','.join(table)}}}")


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

    prior: Annotated[str, _chosen("prior")] = "standard"


@dataclass(frozen=True)
class Goal(ObjectiveOptions):
    """What is optimised."""

    objective: Annotated[str, _chosen("objective")] = "elbo"
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


@dataclass(frozen=True)
class Experiment(Machine, Training, Goal, Prior, Model, Data):
    """Everything that decides the numbers of a run. The defaults are those of Tomczak & Welling 2018.

    An option of a choice that is None gets the default of the chosen entry, if that has such an option.

    Raises:
        ValueError: If a name is unknown, an option does not belong to what is chosen, or a value is out of its limits.

    >>> Experiment(prior="mog").components, Experiment().components, Experiment(model="mlp").hidden
    (500, None, (256, 256, 256, 256))
    """

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) is not None and not (name == "model" and custom.is_custom(self.model)):
                self._check_choice(name, choices)
        for name, kind in typing.get_type_hints(Experiment, include_extras=True).items():
            if getattr(self, name) is not None:
                check_value(name, getattr(self, name), kind)
        if self.columns is not None:
            parse_columns(self.columns)
        for table, choice, names in self._chosen():
            values = table.resolve(choice, {name: getattr(self, name) for name in names})
            for name, value in values.items():
                object.__setattr__(self, name, value)
        self._check_together()

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if name == "prior" and custom.is_custom(self.model):
            if self.prior not in ("standard", "custom"):
                raise ValueError(f"prior is {self.prior}, but {self.model} returns its own: leave it out")
            object.__setattr__(self, "prior", "custom")
        else:
            check_choice(name, getattr(self, name), choices)

    def _chosen(self) -> list[tuple[Table, Choice, Mapping[str, Any]]]:
        """The chosen entries, each with its table and all options that it decides about."""
        chosen: list[tuple[Table, Choice, Mapping[str, Any]]]
        chosen = [(OBJECTIVES, OBJECTIVES[self.objective], OBJECTIVES.options())]
        if custom.is_custom(self.model):
            own = custom.loaded(self.model)  # without it, the options are those of a run that was trained
            return chosen if own is None else [*chosen, (MODELS, own, custom.OPTIONS)]
        chosen += [(table, table[getattr(self, table.kind)], table.options()) for table in (MODELS, PRIORS)]
        known = self.likelihood != "auto"  # else with the data
        return [*chosen, (HEADS, HEADS[self.likelihood], HEADS.options())] if known else chosen

    def _check_together(self) -> None:
        """Checks of several options."""
        processes = self.devices * self.nodes
        if self.batch_size % processes:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared equally by {processes} devices: choose a multiple"
            )
        if self.pseudo_conditions == "own" and self.condition not in ("labels", "both"):
            raise ValueError("pseudo_conditions is own, but the model is given no class: add condition labels")
        if self.pseudo_conditions == "own" and self.prior != "vamp":
            raise ValueError(
                f"pseudo_conditions is own, but the prior {self.prior} does not see the class: choose the prior vamp"
            )
        needs_mean = OBJECTIVES[self.objective].facts.get("needs_mean", False)
        if needs_mean and self.model in MODELS and not MODELS[self.model].facts.get("mean", True):
            raise ValueError(
                f"{self.objective} bounds the error of E[x|z], which a PixelCNN does not have: choose another model"
            )

    def given(self) -> dict[str, Any]:
        """The options that are not at their defaults, those of the chosen entries included."""
        defaults = {field.name: field.default for field in dataclasses.fields(Experiment)}
        for table, choice, _ in self._chosen():
            if not custom.is_custom(choice.name):
                defaults |= {name: option.default for name, option in table.options_of(choice, vars(self)).items()}
        return {name: getattr(self, name) for name in defaults if getattr(self, name) != defaults[name]}

    def replace(self, **changes: Any) -> "Experiment":
        """The experiment with other values; options at the default of an old choice get that of the new one.

        `dataclasses.replace` would keep the defaults of the old choice.

        >>> Experiment(prior="mog").replace(prior="vhp").components is None
        True
        """
        return Experiment(**self.given() | changes)

    @classmethod
    def read(cls, values: dict[str, Any]) -> "Experiment":
        """An experiment from the values of a JSON file, of this version or one before.

        Raises:
            ValueError: If there is an unknown field, or a value is of another type or out of its limits.
        """
        hints = typing.get_type_hints(Experiment)
        unknown = sorted(values.keys() - hints.keys())
        if unknown:
            raise ValueError(f"it has the unknown fields {unknown}, of another version")
        for name, value in values.items():
            check(value, hints[name], name)
        values = {"standardize": not is_file(values.get("data", cls.data))} | values  # earlier versions did not
        plain: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}  # JSON has no tuples
        return cls(**{name: value for name, value in plain.items() if not _is_other_default(name, value, plain)})


@dataclass(frozen=True)
class CommandLine:
    """The options of an experiment in groups, for the help of `vaepriors train`."""

    data: Data = Data()
    model: Model = Model()
    prior: Prior = Prior()
    objective: Goal = Goal()
    training: Training = Training()
    machine: Machine = Machine()

    def experiment(self) -> Experiment:
        values: dict[str, Any] = {}
        for group in vars(self).values():
            values |= vars(group)
        return Experiment(**values)

    @classmethod
    def of(cls, experiment: Experiment) -> "CommandLine":
        """The options of an experiment, without those at their defaults."""
        given: dict[str, Any] = experiment.given()
        groups: dict[str, Any] = {}
        for group in dataclasses.fields(cls):
            default: Any = group.default
            names = {field.name for field in dataclasses.fields(default)}
            groups[group.name] = dataclasses.replace(default, **{name: given[name] for name in names & given.keys()})
        return cls(**groups)


def _is_other_default(name: str, value: Any, values: dict[str, Any]) -> bool:
    """Whether a value is only the default of entries that were not chosen, which versions before recorded."""
    for kind, table in TABLES.items():
        choice = table.get(values.get(kind, getattr(Experiment, kind)))
        if choice is not None and name not in table.options_of(choice, values) and name in table.options():
            return value in [each.options[name].default for each in table.values() if name in each.options]
    return False


def load_data(experiment: Experiment, stream: str | None = None) -> Dataset:
    """The data of an experiment, with its conditions; a custom model sees them unchanged.

    Args:
        experiment: The experiment.
        stream: Whether training examples stay on disk, `yes`, `no` or `auto`; as in the experiment unless given.

    Raises:
        ValueError, FileNotFoundError: As in `vaepriors.data.load`.
    """
    standardize = experiment.standardize and not custom.is_custom(experiment.model)
    options: Any = {name: getattr(experiment, name) for name in ("condition", "columns", "layer", "image_size")}
    options |= {"standardize": standardize, "stream": stream or experiment.stream}
    return load(experiment.data, experiment.seed, experiment.likelihood, **options)


def build(experiment: Experiment, dataset: Dataset) -> tuple[AnyVAE, Objective]:
    """The model and the objective of an experiment, with initial weights drawn from torch's global generator.

    Args:
        experiment: The experiment.
        dataset: Its data, for the shape of x, the likelihood, and the pseudo-inputs.

    Returns:
        `VAE`, or `ConditionalVAE` for data with conditions, and `Objective`, on the CPU.

    Raises:
        ValueError: If the model or the prior does not fit the data.

    >>> from vaepriors import data
    >>> model, objective = build(Experiment(prior="vamp", components=10), data.load("digits"))
    >>> model.prior.encoder is model.encoder
    True
    """
    if bool(experiment.condition) != bool(dataset.conditions):
        raise ValueError(
            f"condition is {experiment.condition}, but {dataset.name} has "
            f"{dataset.given_in_words() or 'nothing'} as conditions: load the data with the same condition"
        )
    setting = Setting(experiment, dataset)
    model = custom.build_custom(setting) if custom.is_custom(experiment.model) else _build_model(setting)
    if experiment.init == "glorot":
        start_from_glorot(model)
    return model, OBJECTIVES[experiment.objective](setting)


def _build_model(setting: Setting) -> AnyVAE:
    experiment = setting.experiment
    choice = MODELS[experiment.model]
    encoder, decoder, bottom, top = choice(setting)
    prior: nn.Module = PRIORS[experiment.prior](dataclasses.replace(setting, encoder=top, model=choice))
    if experiment.pseudo_conditions == "own":
        prior = PerClass(prior, classes_of(experiment.components, setting.dataset))
    elif setting.dataset.conditions:
        prior = Ignoring(prior)
    sizes = (experiment.latent, experiment.latent)
    prior = prior if bottom is None else priors.TwoLevelPrior(prior, bottom, sizes)
    return ConditionalVAE(encoder, decoder, prior) if setting.dataset.conditions else VAE(encoder, decoder, prior)
