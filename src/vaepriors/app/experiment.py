"""An experiment: everything that decides the numbers of a run, as one frozen dataclass.

The command line has its fields as options, a run's folder stores it, and a row of a paper's table is an experiment with
an expected number. Its fields are those of `groups`. `build` turns it into objects.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from vaepriors import priors
from vaepriors.app import custom
from vaepriors.app.choices import Choice, Setting, Table, check_choice, check_value
from vaepriors.app.groups import CHOICES, TABLES, Data, Goal, Machine, Model, Prior, Training
from vaepriors.app.likelihoods import HEADS
from vaepriors.app.models import MODELS, TWO_LEVELS
from vaepriors.app.objectives import OBJECTIVES, steps_per_epoch
from vaepriors.app.priors import PRIORS, classes_of
from vaepriors.conditional import AnyVAE, ConditionalVAE, Ignoring, PerClass
from vaepriors.data import Dataset, is_file, load
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
    "Data",
    "Experiment",
    "Goal",
    "Machine",
    "Model",
    "Prior",
    "Training",
    "build",
    "load_data",
    "steps_per_epoch",
]


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
        """An experiment from the values of a JSON file, of this version or one before."""
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

    data: Data = field(default=Data())
    model: Model = field(default=Model())
    prior: Prior = field(default=Prior())
    objective: Goal = field(default=Goal())
    training: Training = field(default=Training())
    machine: Machine = field(default=Machine())

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

    Whether training examples stay on disk, `stream`, is as in the experiment unless given.
    """
    standardize = experiment.standardize and not custom.is_custom(experiment.model)
    options: Any = {name: getattr(experiment, name) for name in ("condition", "columns", "layer", "image_size")}
    options |= {"standardize": standardize, "stream": stream or experiment.stream}
    return load(experiment.data, experiment.seed, experiment.likelihood, **options)


def build(experiment: Experiment, dataset: Dataset) -> tuple[AnyVAE, Objective]:
    """The model and the objective of an experiment, with initial weights drawn from torch's global generator.

    Returns:
        `VAE`, or `ConditionalVAE` for data with conditions, and `Objective`, on the CPU.

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
