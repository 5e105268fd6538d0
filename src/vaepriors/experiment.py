"""An experiment is a run: all that decides its numbers, as one frozen dataclass.

The command line is its fields, a run's folder stores it, and a row of a paper's table is one of them beside an
expected number. `build` holds every choice by name.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaepriors import networks, priors
from vaepriors.data import Dataset
from vaepriors.distributions import Shape
from vaepriors.nn import BernoulliHead, GaussianHead, LogisticHead, SoftplusNormalHead, rectified, start_from_glorot
from vaepriors.objectives import ELBO, Objective
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
}
MODELS = tuple(HIDDEN)
MAY_HAVE_NO_HIDDEN = ("conv", "strided")
TWO_LEVELS = ("hvae", "convhvae", "pixelhvae")
PRIORS = ("standard", "mog", "vamp", "vamp-data")
OBJECTIVES = ("elbo",)
CHOICES = {
    "model": MODELS,
    "prior": PRIORS,
    "objective": OBJECTIVES,
    "pseudo_inputs": ("auto", "noise", "data"),
    "init": ("he", "glorot"),
    "best_from": ("start", "warmup"),
    "accelerator": ("auto", "cpu", "cuda"),
    "precision": ("32-true", "64-true", "bf16-mixed"),
}
AT_LEAST_ONE = ("samples", "latent", "epochs", "batch_size", "devices", "nodes")


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of a run. The defaults are those of Tomczak & Welling 2018."""

    data: str = "digits"
    """Data set (see `vaepriors data list`), or the path of a .npy or .npz file of your own."""
    model: str = "vae"
    """vae (one level of latent variables), hvae (two), convhvae (two, with convolutions), pixelhvae (convhvae with a
    PixelCNN as decoder), conv (one level, with convolutions), all of gated layers; of layers with ReLU: mlp (one level)
    and strided (one level, convolutions with strides)."""
    prior: str = "standard"
    """standard (normal), mog (mixture of Gaussians), vamp (VampPrior), or vamp-data (training examples as fixed
    pseudo-inputs). In a hierarchy it is the prior of the top level."""
    components: int | None = None
    """Components of the mixture priors; 500 unless given. (The paper takes 1000 for OMNIGLOT.)"""
    weighted: bool = False
    """Learn the weights of a VampPrior's components."""
    pseudo_inputs: str = "auto"
    """Where learned pseudo-inputs start: noise (as in the paper), data (training examples plus a little noise), or
    auto: noise on the paper's data sets, data on others."""
    objective: str = "elbo"
    """What to maximise: elbo."""
    samples: int = 1
    """Draws of z for each x in a training step."""
    latent: int = 40
    """Size of each level of latent variables."""
    hidden: tuple[int, ...] | None = None
    """Sizes of the dense hidden layers. Unless given, those of the papers: 300 300, but for mlp 256 256 256 256, for
    strided 256, and for conv none."""
    init: str = "he"
    """Law of the initial weights of dense layers: he (as in the authors' program) or glorot (as in the paper)."""
    epochs: int = 2000
    """Epochs at the most."""
    warmup: int = 100
    """Epochs over which the weight of the divergence grows to 1; 0 for none."""
    patience: int = 50
    """Stop after more epochs than this without a better validation loss, counted from the end of the warm-up."""
    best_from: str = "start"
    """Whether an epoch of the warm-up may give the best model: start (yes, as in the authors' program) or warmup."""
    batch_size: int = 100
    """Examples in a step, over all devices."""
    lr: float = 5e-4
    """Learning rate of Adam."""
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
    """Compile the model with torch.compile."""

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            _check_choice(field, getattr(self, field), choices)
        for field in AT_LEAST_ONE:
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}: at least 1 is needed")
        for field in ("warmup", "patience", "seed"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} is {getattr(self, field)}: it cannot be negative")
        least = 0 if self.model in MAY_HAVE_NO_HIDDEN else 1
        if len(self.sizes) < least or min(self.sizes, default=1) < 1:
            raise ValueError(f"hidden is {self.hidden}: give at least {least} layer of at least 1 unit")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr is {self.lr}: a positive number is needed")
        if self.batch_size % (self.devices * self.nodes):
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared equally by {self.devices * self.nodes} devices: "
                "choose a multiple"
            )
        self._check_prior_options()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the dense hidden layers: `hidden`, or those of the papers."""
        return HIDDEN[self.model] if self.hidden is None else self.hidden

    def _check_prior_options(self) -> None:
        if self.prior == "standard" and self.components is not None:
            raise ValueError(
                f"components is {self.components}, but the standard prior has none: choose prior mog, vamp or vamp-data"
            )
        if self.prior != "standard" and self.components is None:
            object.__setattr__(self, "components", 500)
        if self.components is not None and self.components < 1:
            raise ValueError(f"components is {self.components}: at least 1 is needed")
        if self.weighted and not self.prior.startswith("vamp"):
            raise ValueError(f"weighted belongs to the priors vamp and vamp-data, not to {self.prior}")
        if self.pseudo_inputs != "auto" and self.prior != "vamp":
            raise ValueError(f"pseudo_inputs belongs to the prior vamp, not to {self.prior}")


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
    encoder, decoder = _networks(experiment.model, dataset.event_shape, hidden, latent, _head(dataset.likelihood))
    if experiment.model in TWO_LEVELS:
        bottom = networks.conditional(latent, hidden, latent)
        top = _prior(experiment, encoder.get_submodule("top"), dataset)
        prior: nn.Module = priors.TwoLevelPrior(top, bottom, latent)
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
            return networks.Encoder(shape, hidden, latent), networks.Decoder(shape, hidden, latent, head)
        case "mlp":
            encoder = networks.Encoder(shape, hidden, latent, rectified, SoftplusNormalHead)
            return encoder, networks.Decoder(shape, hidden, latent, head, rectified)
        case "conv":
            return networks.conv_encoder(shape, hidden, latent), networks.conv_decoder(shape, hidden, latent, head)
        case "strided":
            decoder = networks.strided_decoder(shape, hidden, latent, head)
            return networks.strided_encoder(shape, hidden, latent), decoder
        case "hvae":
            levels = networks.hierarchical_encoder(shape, hidden, latent)
            return levels, networks.hierarchical_decoder(shape, hidden, latent, head)
        case "convhvae":
            levels = networks.conv_hierarchical_encoder(shape, hidden, latent)
            return levels, networks.conv_hierarchical_decoder(shape, hidden, latent, head)
        case "pixelhvae":
            levels = networks.conv_hierarchical_encoder(shape, hidden, latent)
            return levels, networks.pixel_hierarchical_decoder(shape, latent, head)
    raise ValueError(f"unknown model '{model}'")


def _head(likelihood: str) -> Callable[..., nn.Module]:
    match likelihood:
        case "bernoulli":
            return BernoulliHead
        case "logistic256":
            return LogisticHead
        case "gaussian":
            return GaussianHead
    raise ValueError(f"unknown likelihood '{likelihood}': choose one of bernoulli, logistic256, gaussian")


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
    match experiment.objective:
        case "elbo":
            return ELBO(experiment.warmup, steps_per_epoch(experiment, dataset), experiment.samples)
    raise ValueError(f"unknown objective '{experiment.objective}'")
