"""The priors by name. In a hierarchy of latent variables it is the prior of the top level."""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from vaepriors import networks, priors
from vaepriors.app.choices import Count, Setting, Size, Sizes, Table, Within, in_words
from vaepriors.data import LIKELIHOODS, Dataset
from vaepriors.limits import check_size
from vaepriors.networks.heads import SoftplusNormalHead
from vaepriors.networks.layers import gated_layers
from vaepriors.vae import VAE

__all__ = ["PRIORS"]

# facts: `component`, of a mixture: (size of x, size of z) -> (learned, fixed) numbers of each component;
# `numbers_of_a_draw`: (experiment) -> numbers that the density of one z needs besides
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
) -> nn.Module:
    """VampPrior: the posteriors at K learned pseudo-inputs (Tomczak & Welling 2018, eq. 9; weighted: eq. 16)

    Args:
        weighted: Learn the weights of the components.
        pseudo_inputs: Where learned pseudo-inputs start: noise (as in the paper), data (training examples plus a little
            noise), or auto: noise on the paper's data sets, data on others.
    """
    bounds = LIKELIHOODS[setting.dataset.likelihood].bounds
    u = _start(pseudo_inputs, components, setting.dataset)
    return priors.VampPrior(_encoder(setting), u, weighted=weighted, bounds=bounds)


@PRIORS.entry("vamp-data", component=lambda event, latent: (0, event))
def vamp_data(setting: Setting, *, components: Count = 500, weighted: bool = False) -> nn.Module:
    """The posteriors at K random training examples (Tomczak & Welling 2018, section 4)"""
    dataset = setting.dataset
    if components > len(dataset.train):
        raise ValueError(
            f"components is {components}, but {dataset.name} has only {len(dataset.train)} training examples to take "
            "as pseudo-inputs: choose fewer"
        )
    u = dataset.train[torch.randperm(len(dataset.train))[:components]]
    return priors.VampPrior(_encoder(setting), u, weighted=weighted, learn=False)


@PRIORS.entry("vhp", numbers_of_a_draw=lambda e: e.prior_samples * (e.prior_latent or e.latent))
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


@PRIORS.entry("flow")
def flow(
    setting: Setting, *, transforms: Count = 3, bins: Annotated[int, Within(2)] = 8, prior_hidden: Sizes = (64, 64)
) -> nn.Module:
    """Neural spline flow of zuko, the extra `flow` (Durkan et al. 2019)

    Args:
        transforms: Autoregressive transforms of a flow.
        bins: Pieces of each spline of a flow.
    """
    try:
        from zuko.flows import NSF
    except ImportError as error:
        raise ValueError("the prior flow needs zuko: install the extra, pip install 'vaepriors[flow]'") from error
    latent = setting.experiment.latent
    sizes = (latent, *prior_hidden, latent * (3 * bins - 1))
    weights = sum(a * b for a, b in pairwise(sizes))
    check_size(f"a flow of {transforms} transforms (prior_hidden {in_words(prior_hidden)})", 8 * transforms * weights)
    device = torch.empty(0).device
    with torch.device("cpu"):  # its masks are computed from values, which memory-free tensors do not have
        module = NSF(latent, transforms=transforms, bins=bins, hidden_features=prior_hidden)
    return module.to(device)


def _encoder(setting: Setting) -> nn.Module:
    assert setting.encoder is not None
    return setting.encoder


def _start(start: str, k: int, dataset: Dataset) -> Tensor:
    """Draws from the normal distribution that the paper chose for its data, or training examples plus N(0, 0.01^2)."""
    noise = torch.randn(k, *dataset.event_shape)
    if start == "noise" and dataset.pseudo is None:
        raise ValueError(f"no noise for pseudo-inputs is known for {dataset.name}: choose pseudo_inputs data")
    if start == "data" or dataset.pseudo is None:
        return dataset.train[torch.randint(len(dataset.train), (k,))] + 0.01 * noise
    mean, scale = dataset.pseudo
    return mean + scale * noise
