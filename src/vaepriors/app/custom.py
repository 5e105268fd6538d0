"""Custom models on the command line: `--model package.module:function`.

The function gets the data set as `data`, and those options of `vaepriors train` that it has as parameters; it returns
a `VAE` with its prior, or with `--condition` a `ConditionalVAE`. Its defaults are the defaults of these options:

    def make(data, latent=8, hidden=(64,)):
        shape = data.event_shape
        encoder, decoder = networks.Encoder(shape, hidden, latent), networks.Decoder(shape, hidden, latent)
        return VAE(encoder, decoder, priors.StandardNormal(latent))

Code is imported only while the user names it in the very command (`imported`). The name in a run's folder imports
nothing.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from vaepriors.app.choices import REQUIRED, Choice, Option, Setting
from vaepriors.app.likelihoods import HEADS
from vaepriors.app.models import MODELS
from vaepriors.app.priors import PRIORS
from vaepriors.conditional import AnyVAE, ConditionalVAE
from vaepriors.vae import VAE
from vaepriors.words import a_type

__all__ = ["OPTIONS", "build_custom", "imported", "is_custom", "loaded"]

OPTIONS: dict[str, Option] = MODELS.options() | PRIORS.options() | HEADS.options()  # what a function may ask for
LOADED: dict[str, Choice] = {}  # of this command


def is_custom(name: str) -> bool:
    """Whether the name of a model is that of a function.

    >>> is_custom("mine.models:make"), is_custom("hvae")
    (True, False)
    """
    return ":" in name


def loaded(name: str) -> Choice | None:
    """The custom model of a name, if the user has named it in this command."""
    return LOADED.get(name)


@contextmanager
def imported(names: Iterable[str]) -> Iterator[None]:
    """Import the custom models of these names for the time of a command, also from the current directory."""
    path, folder = list(sys.path), os.getcwd()
    custom = [name for name in names if is_custom(name)]
    if custom:
        sys.path.insert(0, folder)
    try:
        LOADED.update({name: _load(name) for name in custom})
        yield
    finally:
        LOADED.clear()
        sys.path[:] = path


def build_custom(setting: Setting) -> AnyVAE:
    """The model of a custom function."""
    name = setting.experiment.model
    choice = loaded(name)
    if choice is None:
        raise ValueError(
            f"the model {name} is custom code: add --model {name} to import and run it (in Python, model={name!r})"
        )
    model = choice(setting)
    needed = ConditionalVAE if setting.dataset.conditions else VAE
    if not isinstance(model, needed):
        raise ValueError(f"{name} returned {a_type(model)}: return a vaepriors.{needed.__name__}")
    return model


def _load(name: str) -> Choice:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute, None)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and not module.startswith(error.name or module):
            raise  # of what it imports itself
        raise ValueError(f"the model {name} cannot be imported ({error}): give package.module:function") from error
    if not callable(function):
        raise ValueError(f"{module} has no function {attribute!r}: give package.module:function")
    parameters = inspect.signature(function).parameters
    options = {each: _option(name, parameter) for each, parameter in parameters.items() if _is_asked(name, parameter)}
    return Choice(name, _calling(function, parameters), "", options)


def _is_asked(name: str, parameter: inspect.Parameter) -> bool:
    """Whether a parameter is an option of the command line; others keep their defaults."""
    if parameter.name in OPTIONS:
        return True
    optional = parameter.default is not REQUIRED or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    if not optional and parameter.name not in ("data", "dataset"):
        raise ValueError(
            f"{name} has the parameter {parameter.name}, which is no option: give it a default, or name it data or one "
            f"of {', '.join(OPTIONS)}"
        )
    return False


def _option(name: str, parameter: inspect.Parameter) -> Option:
    known, default = OPTIONS[parameter.name], parameter.default
    default = known.default if default is REQUIRED else tuple(default) if isinstance(default, list) else default
    return Option(known.name, known.kind, default, known.help)


def _calling(function: Callable[..., Any], parameters: Iterable[str]) -> Callable[..., Any]:
    """The function as a builder: the data set by name, where it asks for it."""

    def build(setting: Setting, **options: Any) -> Any:
        data = {each: setting.dataset for each in parameters if each in ("data", "dataset")}
        return function(**data, **options)

    return build
