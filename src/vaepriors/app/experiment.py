"""An experiment is a run: all that decides its numbers, as one frozen dataclass.

The command line is its fields, a run's folder stores it, and a row of a paper's table is one of them beside an
expected number. `build` holds every choice by name.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vaepriors import networks, priors
from vaepriors.data import LIKELIHOODS, Dataset
from vaepriors.distributions import Shape
from vaepriors.networks.heads import BernoulliHead, GaussianHead, LogisticHead, SoftplusNormalHead
from vaepriors.networks.layers import gated_layers, relu_layers, start_from_glorot, tanh_layers
from vaepriors.objectives import ELBO, GECO, IWAE, REWO, Objective
from vaepriors.vae import VAE

__all__ = ["MODELS", "OBJECTIVES", "PRIORS", "Experiment", "build", "steps_per_epoch"]

# each with the sizes of its dense hidden layers in the papers
HIDDEN: dict[str, tuple[int, ...]] = {
    "vae": (300, 300),
    "hvae": (300, 300),
    "convhvae": (300, 300),
    "pixelhvae": (300, 300),
    "mlp": (256, 256, 256, 256),
    "conv": (),
    "strided": (256,),
    "tanh": (200, 200),
}
MODELS = tuple(HIDDEN)
MAY_HAVE_NO_HIDDEN = ("conv", "strided")
TWO_LEVELS = ("hvae", "convhvae", "pixelhvae")
# layers of the dense parts, where not gated, and of a hierarchical prior's networks with their sizes in the papers
LAYERS = {"mlp": relu_layers, "strided": relu_layers, "tanh": tanh_layers}
PRIOR_HIDDEN: dict[str, tuple[int, ...]] = {"mlp": (256, 256, 256, 256), "tanh": (100, 100)}  # else (256, 256)
PRIORS = ("standard", "mog", "vamp", "vamp-data", "vhp")
OBJECTIVES = ("elbo", "iwae", "rewo", "rewo-gamma", "geco")
CONSTRAINED = ("rewo", "rewo-gamma", "geco")
CHOICES = {
    "likelihood": ("auto", *LIKELIHOODS),
    "model": MODELS,
    "prior": PRIORS,
    "objective": OBJECTIVES,
    "estimator": ("plain", "stl", "dreg"),
    "pseudo_inputs": ("auto", "noise", "data"),
    "init": ("he", "glorot"),
    "best_from": ("start", "warmup"),
    "accelerator": ("auto", "cpu", "cuda"),
    "precision": ("32-true", "64-true", "bf16-mixed"),
}
AT_LEAST_ONE = ("samples", "latent", "epochs", "batch_size", "lr_stages", "devices", "nodes")
LARGEST = {  # torch's integers have 64 bits, and a layer of more than 10^9 units fits into no memory
    **dict.fromkeys((*AT_LEAST_ONE, "warmup", "patience", "seed", "components", "prior_samples"), 2**63 - 1),
    **dict.fromkeys(("latent", "hidden", "prior_latent", "prior_hidden"), 10**9),
}


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of a run. The defaults are those of Tomczak & Welling 2018."""

    data: str = "digits"
    """Data set (see `vaepriors data list`), or the path of a custom .npy or .npz file."""
    likelihood: str = "auto"
    """How a custom file is read: bernoulli (bits or probabilities), logistic256 (256 gray levels), gaussian (real
    numbers), or auto: as its values suggest. Data sets of the list have their own."""
    model: str = "vae"
    """vae (one level of latent variables), hvae (two), convhvae (two, with convolutions), pixelhvae (convhvae with a
    PixelCNN as decoder), conv (one level, with convolutions), all of gated layers; of layers with ReLU: mlp (one level)
    and strided (one level, convolutions with strides); tanh (one level, the dense networks of the IWAE paper)."""
    prior: str = "standard"
    """standard (normal), mog (mixture of Gaussians), vamp (VampPrior), vamp-data (training examples as fixed
    pseudo-inputs), or vhp (a VAE over z). In a hierarchy it is the prior of the top level."""
    components: int | None = None
    """Components of the mixture priors; 500 unless given. (The paper takes 1000 for OMNIGLOT.)"""
    weighted: bool = False
    """Learn the weights of a VampPrior's components."""
    pseudo_inputs: str = "auto"
    """Where learned pseudo-inputs start: noise (as in the paper), data (training examples plus a little noise), or
    auto: noise on the paper's data sets, data on others."""
    prior_samples: int | None = None
    """Draws of u for each z in the density of vhp; 16 unless given. (With 1 and iwae: the IWAE of two levels.)"""
    prior_hidden: tuple[int, ...] | None = None
    """Sizes of the hidden layers of vhp. Unless given, those of the papers: 256 256, but for mlp 256 256 256 256, and
    for tanh 100 100."""
    prior_latent: int | None = None
    """Size of u in vhp; that of z unless given."""
    objective: str = "elbo"
    """What to optimise: elbo, iwae (importance-weighted bound), or under a bound on the reconstruction error rewo,
    rewo-gamma (the variant of the paper's appendix B.1) or geco."""
    samples: int = 1
    """Draws of z for each x in a training step."""
    estimator: str = "plain"
    """Gradient of iwae: plain, stl (no score term; biased), or dreg (doubly reparametrised; unbiased)."""
    kappa: float | None = None
    """Bound on the root mean squared reconstruction error per dimension, for rewo and geco."""
    nu: float | None = None
    """Speed of the weight in rewo and geco; 1 unless given."""
    sigma: float | None = None
    """Standard deviation of p(x|z) for real-valued data; kappa for rewo and geco, learned for others unless given."""
    latent: int = 40
    """Size of each level of latent variables."""
    hidden: tuple[int, ...] | None = None
    """Sizes of the dense hidden layers. Unless given, those of the papers: 300 300, but for mlp 256 256 256 256, for
    strided 256, for tanh 200 200, and for conv none."""
    init: str = "he"
    """Law of the initial weights of dense layers: he (as in the authors' program) or glorot (as in the paper)."""
    epochs: int = 2000
    """Epochs at the most."""
    warmup: int = 100
    """Epochs over which the weight of the divergence in elbo grows to 1; 0 for none. Early stopping counts from then
    on, whatever the objective."""
    patience: int = 50
    """Stop after more epochs than this without a better validation loss, counted from the end of the warm-up."""
    best_from: str = "start"
    """Whether an epoch of the warm-up may give the best model: start (yes, as in the authors' program) or warmup."""
    batch_size: int = 100
    """Examples in a step, over all devices."""
    lr: float = 5e-4
    """Learning rate of Adam."""
    lr_stages: int = 1
    """Stages of 1, 3, 9, ... epochs over which the learning rate falls to a tenth; constant for 1. (8 in the IWAE
    paper.)"""
    adam_eps: float = 1e-8
    """What Adam adds to the root of the second moment. (1e-4 in the IWAE paper.)"""
    normalize: bool = True
    """Divide each gradient by its norm before Adam."""
    seed: int = 0
    """Seed of the initial weights, the order of the data, all noise, and a random split of the data."""
    accelerator: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    devices: int = 1
    """Devices on each node."""
    nodes: int = 1
    """Nodes (started by torchrun or SLURM)."""
    precision: str = "32-true"
    """Numbers of the training step: 32-true, 64-true, or bf16-mixed. Evaluation takes the weights' own precision."""
    compile: bool = False
    """Compile the model with torch.compile: a minute at the start, and then faster steps."""
    graph: bool = False
    """On one CUDA device, replay the training step as one CUDA graph."""

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            _check_choice(field, getattr(self, field), choices)
        for field in AT_LEAST_ONE:
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}: at least 1 is needed")
        for field in ("warmup", "patience", "seed"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} is {getattr(self, field)}: it cannot be negative")
        self._check_sizes()
        least = 0 if self.model in MAY_HAVE_NO_HIDDEN else 1
        if len(self.sizes) < least or min(self.sizes, default=1) < 1:
            raise ValueError(f"hidden is {self.hidden}: give at least {least} layer of at least 1 unit")
        for field in ("lr", "adam_eps"):
            if not 0 < getattr(self, field) < float("inf"):
                raise ValueError(f"{field} is {getattr(self, field)}: a positive number is needed")
        if self.batch_size % (self.devices * self.nodes):
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared equally by {self.devices * self.nodes} devices: "
                "choose a multiple"
            )
        self._check_prior_options()
        self._check_objective_options()

    def _check_sizes(self) -> None:
        for field, most in LARGEST.items():
            value = getattr(self, field) or 0
            if (max(value) if isinstance(value, tuple) else value) > most:
                raise ValueError(f"{field} is {value}: at most {most} is possible")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the dense hidden layers: `hidden`, or those of the papers."""
        return HIDDEN[self.model] if self.hidden is None else self.hidden

    def _check_prior_options(self) -> None:
        mixture = self.prior not in ("standard", "vhp")
        if not mixture and self.components is not None:
            raise ValueError(
                f"components is {self.components}, but the prior {self.prior} has none: choose mog, vamp or vamp-data"
            )
        if mixture and self.components is None:
            object.__setattr__(self, "components", 500)
        if self.components is not None and self.components < 1:
            raise ValueError(f"components is {self.components}: at least 1 is needed")
        if self.weighted and not self.prior.startswith("vamp"):
            raise ValueError(f"weighted belongs to the priors vamp and vamp-data, not to {self.prior}")
        if self.pseudo_inputs != "auto" and self.prior != "vamp":
            raise ValueError(f"pseudo_inputs belongs to the prior vamp, not to {self.prior}")
        for field in ("prior_samples", "prior_hidden", "prior_latent"):
            if getattr(self, field) is not None and self.prior != "vhp":
                raise ValueError(f"{field} belongs to the prior vhp, not to {self.prior}")
        for field in ("prior_samples", "prior_latent"):
            if getattr(self, field) is not None and getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}: at least 1 is needed")
        if self.prior_hidden is not None and (not self.prior_hidden or min(self.prior_hidden) < 1):
            raise ValueError(f"prior_hidden is {self.prior_hidden}: give at least one layer of at least 1 unit")

    def _check_objective_options(self) -> None:
        constrained = self.objective in CONSTRAINED
        if constrained and self.kappa is None:
            raise ValueError(
                f"the objective {self.objective} needs kappa, the bound on the root mean squared error per dimension: "
                "0.18 for MNIST and 0.02 for the pendulum in the paper"
            )
        for field in ("kappa", "nu"):
            if getattr(self, field) is not None and not constrained:
                raise ValueError(f"{field} belongs to the objectives rewo and geco, not to {self.objective}")
        for field in ("kappa", "nu", "sigma"):
            value = getattr(self, field)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{field} is {value}: a positive number is needed")
        if self.estimator != "plain" and self.objective != "iwae":
            raise ValueError(f"estimator belongs to the objective iwae, not to {self.objective}")
        if constrained and self.model == "pixelhvae":
            raise ValueError(
                f"{self.objective} bounds the error of E[x|z], which a PixelCNN does not have: choose another model"
            )

    @property
    def prior_sizes(self) -> tuple[int, ...]:
        """Sizes of the hidden layers of vhp: `prior_hidden`, or those of the paper."""
        if self.prior_hidden is not None:
            return self.prior_hidden
        return PRIOR_HIDDEN.get(self.model, (256, 256))


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown {field} '{value}': choose one of {', '.join(choices)}{hint}")


def steps_per_epoch(experiment: Experiment, dataset: Dataset) -> int:
    """Batches that show every training example at least once."""
    return -(-len(dataset.train) // min(experiment.batch_size, len(dataset.train)))


def build(experiment: Experiment, dataset: Dataset) -> tuple[VAE, Objective]:
    """The model and the objective of an experiment, with initial weights drawn from torch's global generator.

    Args:
        experiment: The experiment.
        dataset: Its data, for the shape of x, the likelihood, and the pseudo-inputs.

    Returns:
        `VAE` and `Objective`, on the CPU.

    Raises:
        ValueError: If the model or the prior does not fit the data.

    >>> from vaepriors import data
    >>> model, objective = build(Experiment(prior="vamp", components=10), data.load("digits"))
    >>> model.prior.encoder is model.encoder
    True
    """
    latent, hidden = experiment.latent, experiment.sizes
    encoder, decoder = _networks(experiment.model, dataset.event_shape, hidden, latent, _head(experiment, dataset))
    if experiment.model in TWO_LEVELS:
        bottom = networks.conditional(latent, hidden, latent)
        top = _prior(experiment, encoder.get_submodule("top"), dataset)
        prior: nn.Module = priors.TwoLevelPrior(top, bottom, (latent, latent))
    else:
        prior = _prior(experiment, encoder, dataset)
    model = VAE(encoder, decoder, prior)
    if experiment.init == "glorot":
        start_from_glorot(model)
    return model, _objective(experiment, dataset)


def _networks(
    model: str, shape: Shape, hidden: Sequence[int], latent: int, head: Callable[..., nn.Module]
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of a model."""
    match model:
        case "vae":
            return networks.Encoder(shape, hidden, latent), networks.Decoder(shape, hidden, latent, head=head)
        case "mlp":
            encoder = networks.Encoder(shape, hidden, latent, head=SoftplusNormalHead, layers=relu_layers)
            return encoder, networks.Decoder(shape, hidden, latent, head=head, layers=relu_layers)
        case "tanh":
            encoder = networks.Encoder(shape, hidden, latent, head=SoftplusNormalHead, layers=tanh_layers)
            return encoder, networks.Decoder(shape, hidden, latent, head=head, layers=tanh_layers)
        case "conv":
            return networks.conv_encoder(shape, hidden, latent), networks.conv_decoder(shape, hidden, latent, head=head)
        case "strided":
            decoder = networks.strided_decoder(shape, hidden, latent, head=head)
            return networks.strided_encoder(shape, hidden, latent), decoder
        case "hvae":
            levels = networks.hierarchical_encoder(shape, hidden, latent)
            return levels, networks.hierarchical_decoder(shape, hidden, latent, head=head)
        case "convhvae":
            levels = networks.conv_hierarchical_encoder(shape, hidden, latent)
            return levels, networks.conv_hierarchical_decoder(shape, hidden, latent, head=head)
        case "pixelhvae":
            levels = networks.conv_hierarchical_encoder(shape, hidden, latent)
            return levels, networks.pixel_hierarchical_decoder(shape, latent, head=head)
    raise ValueError(f"unknown model '{model}'")


def _head(experiment: Experiment, dataset: Dataset) -> Callable[..., nn.Module]:
    if experiment.sigma is not None and dataset.likelihood != "gaussian":
        raise ValueError(
            f"sigma is {experiment.sigma}, but {dataset.name} has a {dataset.likelihood} likelihood: "
            "it belongs to real-valued data"
        )
    match dataset.likelihood:
        case "bernoulli":
            return BernoulliHead
        case "logistic256":
            return LogisticHead
        case "gaussian":
            return partial(GaussianHead, scale=experiment.kappa if experiment.sigma is None else experiment.sigma)
    raise ValueError(f"unknown likelihood '{dataset.likelihood}': choose one of bernoulli, logistic256, gaussian")


def _prior(experiment: Experiment, encoder: nn.Module, dataset: Dataset) -> nn.Module:
    """The prior of the top level, whose encoder is given."""
    k = experiment.components or 0
    match experiment.prior:
        case "mog":
            return priors.MixtureOfGaussians(experiment.latent, k)
        case "vamp":
            bounds = None if dataset.likelihood == "gaussian" else (0.0, 1.0)
            u = _initial_pseudo_inputs(experiment.pseudo_inputs, k, dataset)
            return priors.VampPrior(encoder, u, weighted=experiment.weighted, bounds=bounds)
        case "vamp-data":
            if k > len(dataset.train):
                raise ValueError(
                    f"components is {k}, but {dataset.name} has only {len(dataset.train)} training examples to take "
                    "as pseudo-inputs: choose fewer"
                )
            u = dataset.train[torch.randperm(len(dataset.train))[:k]]
            return priors.VampPrior(encoder, u, weighted=experiment.weighted, learn=False)
        case "vhp":
            latent, hidden = experiment.latent, experiment.prior_sizes
            size, layers = experiment.prior_latent or latent, LAYERS.get(experiment.model, gated_layers)
            upper = networks.Encoder((latent,), hidden, size, head=SoftplusNormalHead, layers=layers)
            lower = networks.conditional(size, hidden, latent, head=SoftplusNormalHead, layers=layers)
            inner = VAE(upper, lower, priors.StandardNormal(size))
            return priors.VHP(inner, 16 if experiment.prior_samples is None else experiment.prior_samples)
    return priors.StandardNormal(experiment.latent)


def _initial_pseudo_inputs(start: str, k: int, dataset: Dataset) -> Tensor:
    """Draws from the normal law that the paper chose for its data sets, or training examples plus N(0, 0.01^2)."""
    noise = torch.randn(k, *dataset.event_shape)
    if start == "noise" and dataset.pseudo is None:
        raise ValueError(f"no noise for pseudo-inputs is known for {dataset.name}: choose pseudo_inputs data")
    if start == "data" or dataset.pseudo is None:
        return dataset.train[torch.randint(len(dataset.train), (k,))] + 0.01 * noise
    mean, scale = dataset.pseudo
    return mean + scale * noise


def _objective(experiment: Experiment, dataset: Dataset) -> Objective:
    kappa, nu = experiment.kappa or 0.0, 1.0 if experiment.nu is None else experiment.nu
    match experiment.objective:
        case "elbo":
            return ELBO(experiment.warmup, steps_per_epoch(experiment, dataset), experiment.samples)
        case "iwae":
            return IWAE(experiment.samples, experiment.estimator)
        case "rewo":
            return REWO(kappa, nu, samples=experiment.samples)
        case "rewo-gamma":
            return REWO(kappa, nu, samples=experiment.samples, scheme="gamma")
        case "geco":
            return GECO(kappa, nu, samples=experiment.samples)
    raise ValueError(f"unknown objective '{experiment.objective}'")
