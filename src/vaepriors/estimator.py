r"""A scikit-learn estimator: reduce dimensions, score and draw rows of a table by a VAE with a learned prior.

`VariationalAutoencoder` has the methods of `PCA` (`transform`, `inverse_transform`) and of `KernelDensity`
(`score_samples`, `sample`), and works in pipelines and searches.

Real columns are standardised, $u_j = (x_j - m_j) / s_j$, and log-densities are of the data as given:

$$\log p(x) = \log p(u) - \sum_j \log s_j$$

This is done here, in double precision, and not by the model in single precision (`vaepriors.networks.scaling`), which
would round away the spread of a column far from 0, such as a time in seconds.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from vaepriors import training
from vaepriors.app.choices import Count, check_choice, check_value
from vaepriors.app.experiment import MODELS, OBJECTIVES, Experiment, build
from vaepriors.app.train import settings_of
from vaepriors.conditional import unconditional
from vaepriors.data import LIKELIHOODS, Dataset
from vaepriors.data.draws import keep_known
from vaepriors.distributions import point_estimate
from vaepriors.likelihood import ImportanceSampling, check_sizes
from vaepriors.numerics import fixed_numerics, keep_generators, one_at_a_time, seed_of
from vaepriors.vae import eval_mode

__all__ = ["VariationalAutoencoder"]

FLOATS = (np.float64, np.float32)
PARAMETERS = {  # of the estimator, by the field of an experiment
    **{name: name for name in ("prior", "model", "likelihood", "objective", "latent", "hidden", "components")},
    **{name: name for name in ("standardize", "patience", "warmup", "batch_size", "lr", "accelerator")},
    "epochs": "max_epochs",
    "seed": "random_state",
}
ELSEWHERE = ("data", "columns", "layer", "image_size", "condition", "pseudo_conditions", "stream", "devices", "nodes")
OPTIONS = [each.name for each in dataclasses.fields(Experiment) if each.name not in (*PARAMETERS, *ELSEWHERE)]
Array = NDArray[np.floating]


class VariationalAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """Variational autoencoder with a learned prior, for tables of real numbers, bits, counts or categories.

    It is trained in single precision. The trained model computes in double precision on the CPU. Threads take turns.

    Args:
        prior: Prior p(z): `standard`, `mog`, `vamp`, `vamp-data`, `vhp`, `flow`, ... (see `vaepriors train --help`).
        model: Networks for tables: `vae` (gated layers), `hvae` (the same, with two levels of z), `mlp` or `tanh`.
        likelihood: p(x|z): `gaussian`, `student`, `bernoulli`, `poisson`, ... (see `vaepriors train --help`); `auto` is
            bernoulli if every value is 0 or 1, otherwise gaussian.
        objective: What is optimised: `elbo`, `iwae`, `rewo`, ...
        latent: Size of z, of each level.
        hidden: Sizes of the hidden layers of encoder and decoder.
        components: Components of a mixture; the prior's default unless given.
        options: Further options of `vaepriors train` by name, such as `{"weighted": True, "lr_stages": 8}`, except
            those of files, conditions and several devices.
        standardize: Whether real columns are standardised. Densities are of the data as given in both cases.
        validation_fraction: Share of the rows that are kept for early stopping.
        max_epochs: Epochs at most.
        patience: Stop after more epochs than this without a better validation loss.
        warmup: Epochs over which the weight of the divergence grows to 1.
        batch_size: Rows in a step.
        lr: Learning rate of Adam.
        draws: Draws of z for each row in `score_samples`.
        accelerator: Where it is trained: `cpu`, `cuda`, or `auto`.
        random_state: Seed of the initial weights, the validation rows, the training, and all draws.

    Attributes:
        model_: The trained `VAE`, of rows that are standardised: `(X - mean_) / scale_`.
        likelihood_: The likelihood.
        mean_: Mean of each column, of shape `(n_features,)`; 0 for columns that are not standardised.
        scale_: Standard deviation of each column; 1 for columns that are constant or not standardised.
        metrics_: A dict for each epoch: loss, rate and distortion in nats, and others.
        n_iter_: Number of epochs.
        n_features_in_: Number of columns.

    >>> from sklearn.datasets import load_breast_cancer
    >>> x = load_breast_cancer().data
    >>> vae = VariationalAutoencoder(prior="mog", components=5, latent=2, hidden=(16,), max_epochs=3, random_state=0)
    >>> vae.fit_transform(x).shape, vae.sample(4).shape, vae.score_samples(x[:5]).shape
    ((569, 2), (4, 30), (5,))
    """

    def __init__(
        self,
        prior: str = "standard",
        *,
        model: str = "vae",
        likelihood: str = "auto",
        objective: str = "elbo",
        latent: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        components: int | None = None,
        options: dict[str, Any] | None = None,
        standardize: bool = True,
        validation_fraction: float = 0.1,
        max_epochs: int = 500,
        patience: int = 50,
        warmup: int = 20,
        batch_size: int = 100,
        lr: float = 1e-3,
        draws: int = 500,
        accelerator: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.prior = prior
        self.model = model
        self.likelihood = likelihood
        self.objective = objective
        self.latent = latent
        self.hidden = hidden
        self.components = components
        self.options = options
        self.standardize = standardize
        self.validation_fraction = validation_fraction
        self.max_epochs = max_epochs
        self.patience = patience
        self.warmup = warmup
        self.batch_size = batch_size
        self.lr = lr
        self.draws = draws
        self.accelerator = accelerator
        self.random_state = random_state

    @one_at_a_time
    def fit(self, X: ArrayLike, y: object = None) -> "VariationalAutoencoder":
        """Train on rows of a table.

        Args:
            X: Rows, of shape `(n_samples, n_features)`.
            y: Ignored.

        Raises:
            ValueError: If there is one row, a value is missing or infinite, or outside the support of the likelihood,
                or if a parameter is unknown or out of its range.
            Diverged: If the loss is not finite.
            KeyboardInterrupt: On Ctrl-C or SIGTERM, after the epoch.
        """
        self.__dict__.pop("model_", None)  # of an earlier fit, which would not go with the moments of this one
        rows: Array = validate_data(self, X, dtype=FLOATS, ensure_min_samples=2)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        experiment = self._experiment(seed)
        self.likelihood_ = self._choose_likelihood(rows)
        self.mean_, self.scale_ = self._moments(rows)
        dataset = self._dataset(rows, seed)
        with keep_generators():
            torch.manual_seed(seed_of(seed, "weights"))
            model, objective = build(experiment, dataset)
        settings = settings_of(experiment)
        outcome = training.fit(model, objective, dataset, accelerator=self.accelerator, **settings)
        if outcome.reason == "interrupted":  # a search would go on with its next training
            raise KeyboardInterrupt
        self.model_ = unconditional(outcome.load_best(model)).cpu().double()
        self.metrics_, self.n_iter_ = outcome.metrics, outcome.epoch
        self.seed_ = seed
        self._codes = _all_codes(dataset.train if self.likelihood_ == "categorical" else dataset.train[:1])
        self._n_features_out = self._encode(self._standardize(rows[:1])).shape[1]
        return self

    @one_at_a_time
    def transform(self, X: ArrayLike) -> Array:
        """Mean of q(z|x) of each row, of shape `(n_samples, latent)`.

        With two levels it is the mean of z2, and after it the mean of z1 at that z2.
        """
        rows, u = self._check(X)
        return self._encode(u).numpy().astype(rows.dtype, copy=False)

    @one_at_a_time
    def inverse_transform(self, X: ArrayLike) -> Array:
        """Mean of p(x|z) at each z, in the units of the data, of shape `(n_samples, n_features)`.

        Args:
            X: Values of z, of shape `(n_samples, latent)`.
        """
        check_is_fitted(self, "model_")
        z = np.asarray(X, np.float64)
        if z.ndim != 2 or z.shape[1] != self._n_features_out:
            raise ValueError(f"X has shape {z.shape}: give values of z, of shape (n_samples, {self._n_features_out})")
        with torch.no_grad(), fixed_numerics():
            return self._restore(self.model_.decoder(torch.tensor(z)).mean)

    @one_at_a_time
    def score_samples(self, X: ArrayLike, return_std: bool = False) -> Array | tuple[Array, Array]:
        r"""Log-density log p(x) of each row, in nats, by importance sampling with `draws` draws (see `estimate`).

        All rows meet the same random numbers, so that a row's score does not depend on the other rows. The score of a
        row far from the training data is often too low: the encoder's posterior is wrong there, too.

        Args:
            X: Rows, of shape `(n_samples, n_features)`.
            return_std: Whether to return the standard errors, too.

        Returns:
            Shape `(n_samples,)`. With `return_std` a pair: the standard errors are $\sqrt{1/ESS - 1/S}$, from the
            effective sample size of S draws; an error near 1 or above says that more draws are needed.
        """
        _, u = self._check(X)
        method, parts = ImportanceSampling(self.draws), []
        check_sizes(self.model_, u[:1], self.draws, self.draws)
        with fixed_numerics(), torch.no_grad(), eval_mode(self.model_), keep_generators(self.model_):
            torch.manual_seed(seed_of(self.seed_, "prior"))  # of a `Resampled` prior, whose constant is an estimate
            prior = self.model_.prior()
            for row in u.split(1):
                torch.manual_seed(seed_of(self.seed_, "score"))
                parts.append(method.weigh(self.model_, prior, row, self.draws, lambda n: None))
        log_p = torch.cat([part.log_likelihood for part in parts]).numpy() - np.log(self.scale_).sum()
        if not return_std:
            return log_p
        effective = torch.cat([part.effective_samples for part in parts])
        return log_p, (1 / effective - 1 / self.draws).clamp(min=0).sqrt().numpy()

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean of `score_samples` over the rows, in nats."""
        return float(np.mean(self.score_samples(X)))

    @one_at_a_time
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Array:
        """Draw rows, of shape `(n_samples, n_features)`, in the units of the data.

        Args:
            n_samples: Number of rows.
            random_state: Seed of the draws; the estimator's own unless given.
        """
        check_is_fitted(self, "model_")
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}: at least 1 is needed")
        state = self.random_state if random_state is None else random_state
        with keep_generators(self.model_), fixed_numerics():
            torch.manual_seed(seed_of(int(check_random_state(state).randint(2**31 - 1)), "sample"))
            return self._restore(self.model_.sample((n_samples,)))

    def _experiment(self, seed: int) -> Experiment:
        """The choices by name, checked."""
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction is {self.validation_fraction}: it must be between 0 and 1")
        check_value("draws", self.draws, Count)
        options = self.options or {}
        for name in options:
            if name in PARAMETERS:
                raise ValueError(f"options has {name}, which is a parameter: give it as {PARAMETERS[name]}=...")
            check_choice("option", name, OPTIONS)
        check_choice("model", self.model, MODELS)  # a function of the user's is imported by commands alone
        own: Any = {name: getattr(self, parameter) for name, parameter in PARAMETERS.items()}
        own |= {"hidden": tuple(np.atleast_1d(self.hidden).tolist()), "seed": seed}
        experiment = Experiment(**own | options)
        if OBJECTIVES[experiment.objective].facts.get("needs_start", False):
            raise ValueError(f"the objective {self.objective} starts from a trained model: choose another one")
        return experiment

    def _choose_likelihood(self, rows: Array) -> str:
        if self.likelihood != "auto":
            return self.likelihood
        return "bernoulli" if ((rows == 0) | (rows == 1)).all() else "gaussian"

    def _moments(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of each column; 0 and 1 without standardisation."""
        features = rows.shape[1]
        if not self.standardize or LIKELIHOODS[self.likelihood_].discrete:
            return np.zeros(features), np.ones(features)
        mean, scale = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
        constant = scale <= 1e-9 * np.abs(rows).max(0)  # less is rounding
        return mean, np.where(constant, 1.0, scale)

    def _dataset(self, rows: Array, seed: int) -> Dataset:
        """The rows as training and validation sets."""
        u = self._standardize(rows).float()
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(u)))
        valid = min(max(1, round(self.validation_fraction * len(u))), len(u) - 1)
        train, known = order[valid:], LIKELIHOODS[self.likelihood_].known
        unknown = torch.zeros(len(u), dtype=torch.bool) if known is None else ~known(u[train], u).all(1)
        train, held_out = (u[rows] for rows in keep_known(unknown, train, order[:valid]))
        return Dataset("X", train, held_out, held_out, self.likelihood_)

    def _check(self, X: ArrayLike) -> tuple[Array, Tensor]:
        """The rows, and what the model sees of them."""
        check_is_fitted(self, "model_")
        rows: Array = validate_data(self, X, dtype=FLOATS, reset=False)
        u, likelihood = self._standardize(rows), LIKELIHOODS[self.likelihood_]
        inside = likelihood.contains(u).all(1)
        if not inside.all():
            row = int((~inside).nonzero()[0])
            raise ValueError(
                f"row {row} of X has values outside of the support of {self.likelihood_}, {likelihood.support}"
            )
        if likelihood.known is not None and not (known := likelihood.known(self._codes, u)).all():
            row, column = (~known).nonzero()[0].tolist()
            raise ValueError(
                f"row {row} of X has the category {rows[row, column]:.0f} in column {column}, but no training row has "
                "it: merge rare categories, or remove such rows"
            )
        return rows, u

    @torch.no_grad()
    def _encode(self, u: Tensor) -> Tensor:
        with fixed_numerics():
            return point_estimate(self.model_.encoder(u))

    def _standardize(self, rows: Array) -> Tensor:
        return torch.tensor((rows - self.mean_) / self.scale_, dtype=torch.float64)

    def _restore(self, u: Tensor) -> Array:
        return u.numpy() * self.scale_ + self.mean_


def _all_codes(x: Tensor) -> Tensor:
    """As few rows as have every code of each column of x, some several times."""
    codes = [column.unique() for column in x.T]
    return torch.stack([each[torch.arange(max(map(len, codes))).clamp(max=len(each) - 1)] for each in codes], 1)
