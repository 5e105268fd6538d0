"""The priors by name. In a hierarchy of latent variables it is the prior of the top level."""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from vaepriors import networks, priors
from vaepriors.app.choices import Count, Setting, Size, Sizes, Table, Within, in_words
from vaepriors.conditional import PseudoConditions
from vaepriors.data import Dataset
from vaepriors.limits import check_size
from vaepriors.networks.heads import SoftplusNormalHead
from vaepriors.networks.layers import gated_layers
from vaepriors.vae import VAE

__all__ = ["PRIORS", "classes_of"]

# facts: `component`, of a mixture: (size of x, size of z) -> (learned, fixed) numbers of each component; `drawn`: the
# option that says how many components a training step draws from one for each training example;
# `numbers_of_a_draw`: (experiment) -> numbers that the density of one z needs besides;
# `numbers_of_a_step`: (experiment) -> numbers that the density of all z of a step needs besides;
# `estimated`: whether two calls differ in their density
PRIORS = Table("prior")


@PRIORS.entry("standard")
def standard(setting: Setting) -> nn.Module:
    """N(0, I) (Kingma & Welling 2014)"""
    return priors.StandardNormal(setting.experiment.latent)


@PRIORS.entry("mog", component=lambda event, latent: (2 * latent, 0))
def mog(setting: Setting, *, components: Count = 500) -> nn.Module:
    """K free normals with equal weights (Tomczak & Welling 2018, section 3)

    Args:
        components: Components of a mixture. (The paper takes 1000 for OMNIGLOT.)
    """
    return priors.MixtureOfGaussians(setting.experiment.latent, components)


@PRIORS.entry("vamp", component=lambda event, latent: (event, 0))
def vamp(
    setting: Setting,
    *,
    components: Count = 500,
    weighted: bool = False,
    pseudo_inputs: Literal["auto", "noise", "data"] = "auto",
    pseudo_conditions: Literal["learned", "own"] = "learned",
) -> nn.Module:
    """VampPrior: the posteriors at K learned pseudo-inputs (Tomczak & Welling 2018, eq. 9; weighted: eq. 16)

    Args:
        weighted: Learn the weights of the components.
        pseudo_inputs: Where learned pseudo-inputs start: noise (as in the paper), data (training examples plus a little
            noise), or auto: noise on the paper's data sets, data on others.
        pseudo_conditions: With condition, what the pseudo-inputs are given: learned (soft classes and covariates, and
            one p(z) for all), or own (each belongs to a class, and p(z|y) has those of its class).
    """
    family = setting.dataset.family
    scaling = None if family.scaling is None else family.scaling(setting.dataset.train)
    rows = _rows(pseudo_conditions, components, setting.dataset)
    u = _start(pseudo_inputs, components, setting.dataset, scaling, rows)
    conditions: Tensor | nn.Module | None = None
    if rows is not None:
        conditions = setting.dataset.conditions["train"][rows]
        if pseudo_conditions == "learned":
            conditions = PseudoConditions(conditions, len(setting.dataset.classes))
    return priors.VampPrior(
        _encoder(setting), u, weighted=weighted, bounds=family.bounds, scaling=scaling, conditions=conditions
    )


@PRIORS.entry("vamp-data", component=lambda event, latent: (0, event))
def vamp_data(setting: Setting, *, components: Count = 500, weighted: bool = False) -> nn.Module:
    """The posteriors at K random training examples (Tomczak & Welling 2018, section 4)"""
    dataset = setting.dataset
    if components > len(dataset.train):
        raise ValueError(
            f"components is {components}, but {dataset.name} has only {len(dataset.train)} training examples to take "
            "as pseudo-inputs: choose fewer"
        )
    rows = torch.randperm(len(dataset.train))[:components]
    conditions = dataset.conditions["train"][rows] if dataset.conditions else None
    return priors.VampPrior(
        _encoder(setting), dataset.train[rows], weighted=weighted, learn=False, conditions=conditions
    )


@PRIORS.entry("exemplar", component=lambda event, latent: (0, 0), drawn="exemplars")
def exemplar(setting: Setting, *, exemplars: Annotated[int, Within(2)] = 500) -> nn.Module:
    """Normals around all training examples, with one learned variance (Norouzi, Fleet & Norouzi 2020)

    Args:
        exemplars: Training examples drawn anew as components in each step, which encodes them. (The paper draws half of
            the training set.) Evaluation takes all.
    """
    dataset = setting.dataset
    if exemplars > len(dataset.train):
        raise ValueError(
            f"exemplars is {exemplars}, but {dataset.name} has only {len(dataset.train)} training examples: choose "
            "fewer"
        )
    if dataset.streamed:
        raise ValueError(
            f"the prior exemplar encodes all training examples, but those of {dataset.name} are read from disk batch "
            "by batch: choose --stream no, or another prior such as vamp"
        )
    conditions = dataset.conditions.get("train")
    return priors.ExemplarPrior(_encoder(setting), dataset.train[:], exemplars, conditions=conditions)


@PRIORS.entry("vhp", estimated=True, numbers_of_a_draw=lambda e: e.prior_samples * (e.prior_latent or e.latent))
def vhp(
    setting: Setting, *, prior_samples: Count = 16, prior_hidden: Sizes | None = None, prior_latent: Size | None = None
) -> nn.Module:
    """A VAE over z, importance-weighted (Klushyn et al. 2019, eq. 8 to 10)

    Args:
        prior_samples: Draws of u for each z in the density of vhp. (With 1 and iwae: the IWAE of two levels.)
        prior_hidden: Sizes of the hidden layers of the prior; those of the model's paper unless given.
        prior_latent: Size of u in vhp; that of z unless given.
    """
    facts = {} if setting.model is None else setting.model.facts
    layers, hidden = facts.get("layers", gated_layers), prior_hidden or facts.get("prior_hidden", (256, 256))
    latent = setting.experiment.latent
    size = prior_latent or latent
    upper = networks.Encoder((latent,), hidden, size, head=SoftplusNormalHead, layers=layers)
    lower = networks.conditional(size, hidden, latent, head=SoftplusNormalHead, layers=layers)
    return priors.VHP(VAE(upper, lower, priors.StandardNormal(size)), prior_samples)


@PRIORS.entry("flow", only={"bins": ("flow", "nsf")})
def flow(
    setting: Setting,
    *,
    flow: Literal["nsf", "maf"] = "nsf",
    transforms: Count = 3,
    bins: Annotated[int, Within(2)] | None = 8,
    prior_hidden: Sizes = (64, 64),
) -> nn.Module:
    """Autoregressive flow of zuko, the extra `flow` (nsf: Durkan et al. 2019; maf: Papamakarios et al. 2017)

    Args:
        flow: Transforms of a flow: nsf (neural splines) or maf (masked, affine).
        transforms: Autoregressive transforms of a flow.
        bins: Pieces of each spline of a flow nsf.
    """
    try:
        from zuko.flows import MAF, NSF
    except ImportError as error:
        raise ValueError("the prior flow needs zuko: install the extra, pip install 'vaepriors[flow]'") from error
    latent = setting.experiment.latent
    splines = {} if bins is None else {"bins": bins}
    sizes = (latent, *prior_hidden, latent * (2 if bins is None else 3 * bins - 1))
    weights = sum(a * b for a, b in pairwise(sizes))
    check_size(f"a flow of {transforms} transforms (prior_hidden {in_words(prior_hidden)})", 8 * transforms * weights)
    device = torch.empty(0).device
    with torch.device("cpu"):  # its masks are computed from values, which memory-free tensors do not have
        make = {"nsf": NSF, "maf": MAF}[flow]
        module = make(latent, transforms=transforms, hidden_features=prior_hidden, **splines)
    return module.to(device)


Base = Literal["standard", "mog", "vamp", "flow"]


@PRIORS.entry("snis", estimated=True, numbers_of_a_step=lambda e: e.proposals * e.latent)
def snis(
    setting: Setting, *, base: Base = "standard", proposals: Count = 1024, prior_hidden: Sizes = (100, 100)
) -> nn.Module:
    """A base prior with a learned energy, by self-normalised importance sampling (Lawson et al. 2019)

    Args:
        base: The prior that snis and resampled draw from; its own options can be given, too. Flows draw slowly: each
            coordinate takes a pass of the network.
        proposals: Draws of the base of which snis chooses one.
    """
    energy = networks.scalar(setting.experiment.latent, prior_hidden, bias=False)
    return priors.SNIS(PRIORS[base](setting), energy, proposals)


@PRIORS.entry("resampled", estimated=True)
def resampled(
    setting: Setting,
    *,
    base: Base = "standard",
    truncation: Annotated[int, Within(1, 10**6)] = 100,
    prior_hidden: Sizes = (100, 100),
) -> nn.Module:
    """A base prior whose draws are accepted by a learned probability: LARS (Bauer & Mnih 2019)

    Args:
        truncation: Draws of the base of which resampled accepts one; it accepts the last always.
    """
    acceptance = networks.scalar(setting.experiment.latent, prior_hidden)
    return priors.Resampled(PRIORS[base](setting), acceptance, truncation)


def _encoder(setting: Setting) -> nn.Module:
    assert setting.encoder is not None
    return setting.encoder


def classes_of(components: int, dataset: Dataset) -> Tensor:
    """The class of each component, if components belong to classes: 0, 1, ... in turn."""
    if components < len(dataset.classes):
        raise ValueError(
            f"components is {components}, but {dataset.name} has {len(dataset.classes)} classes, each with components "
            f"of its own: give at least {len(dataset.classes)}"
        )
    return torch.arange(components) % len(dataset.classes)


def _rows(kind: str, k: int, dataset: Dataset) -> Tensor | None:
    """Random training examples, whose conditions pseudo-inputs start with; None without conditions."""
    if not dataset.conditions:
        return None
    if kind == "learned":
        return torch.randint(len(dataset.train), (k,))
    of_examples = dataset.conditions["train"][:, : len(dataset.classes)].argmax(-1)
    order = torch.randperm(len(of_examples))
    members = [order[of_examples[order] == each] for each in range(len(dataset.classes))]
    return torch.stack([members[c][place % len(members[c])] for place, c in enumerate(classes_of(k, dataset).tolist())])


def _start(start: str, k: int, dataset: Dataset, scaling: nn.Module | None, rows: Tensor | None) -> Tensor:
    """Draws from the normal distribution that the paper chose for its data, or training examples plus N(0, 0.01^2).

    The examples are scaled first, if there is a module for it.
    """
    noise = torch.randn(k, *dataset.event_shape)
    if start == "noise" and dataset.pseudo is None:
        raise ValueError(f"no noise for pseudo-inputs is known for {dataset.name}: choose pseudo_inputs data")
    if start == "data" or dataset.pseudo is None:
        x = dataset.train[torch.randint(len(dataset.train), (k,)) if rows is None else rows]
        return (x if scaling is None else scaling(x)) + 0.01 * noise
    mean, scale = dataset.pseudo
    return mean + scale * noise
