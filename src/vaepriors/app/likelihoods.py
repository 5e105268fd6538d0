"""The likelihoods by name, with the options of their heads: those of `vaepriors.networks.likelihoods`."""

from collections.abc import Callable

from torch import nn

from vaepriors.app.choices import Setting, Table
from vaepriors.networks.likelihoods import LIKELIHOODS

__all__ = ["HEADS", "head_of"]

HEADS = Table("likelihood")
for name, likelihood in LIKELIHOODS.items():
    HEADS.entry(name)(likelihood.head)


def head_of(setting: Setting) -> Callable[..., nn.Module]:
    """The class of the decoder's head, for the likelihood of the data; options of other likelihoods are refused.

    Under a bound on the error, kappa, the papers take the bound as the standard deviation of p(x|z), too.
    """
    experiment, dataset = setting.experiment, setting.dataset
    choice = HEADS.choose(dataset.likelihood)
    try:
        values = HEADS.resolve(choice, {option: getattr(experiment, option) for option in HEADS.options()})
    except ValueError as error:
        raise ValueError(f"{dataset.name} has the likelihood {choice.name}: {error}") from error
    if values.get("sigma", 0) is None:
        values["sigma"] = experiment.kappa
    return dataset.family.head(dataset.train, **values)
