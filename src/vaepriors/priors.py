r"""Priors: modules whose call, without arguments, returns the distribution p(z).

Averaged over the data, the ELBO is largest in p(z) for the aggregated posterior
$q(z) = \frac1N \sum_n q(z|x_n)$ (Hoffman & Johnson 2016). It overfits and costs a pass over the data, so K
components approximate it (Tomczak & Welling 2018, section 3):

| prior | p(z) |
|---|---|
| `StandardNormal` | $N(z; 0, I)$ |
| `MixtureOfGaussians` | $\frac1K \sum_k N(z; \mu_k, \mathrm{diag}\,\sigma_k^2)$, both free |
| `VampPrior` | $\sum_k w_k\, q(z|u_k)$: pseudo-inputs $u_k$ learned, or fixed training examples |
| `VHP` | $\int p(z|u)\, N(u; 0, I)\, du$: a VAE over z |
| `SNIS`, `Resampled` | a base prior, weighted by a learned energy (see `vaepriors.energy`) |
| `TwoLevelPrior` | $p(z_2)\, p(z_1|z_2)$, with any of these as $p(z_2)$ |

A call computes the components once; keep the distribution while the parameters do not change.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaepriors.distributions import Chain, DiagonalNormal, NormalMixture
from vaepriors.energy import SNIS, Resampled
from vaepriors.limits import at_least_one
from vaepriors.vae import VAE, Marginal, eval_mode

__all__ = ["SNIS", "VHP", "MixtureOfGaussians", "Resampled", "StandardNormal", "TwoLevelPrior", "VampPrior"]


class StandardNormal(nn.Module):
    """N(0, I) over `features` dimensions.

    >>> StandardNormal(2)().sample((5,)).shape
    torch.Size([5, 2])
    """

    __call__: Callable[..., DiagonalNormal]

    def __init__(self, features: int) -> None:
        super().__init__()
        at_least_one(features=features)
        self.loc: Tensor
        self.scale: Tensor
        self.register_buffer("loc", torch.zeros(features), persistent=False)
        self.register_buffer("scale", torch.ones(features), persistent=False)

    def forward(self) -> DiagonalNormal:
        return DiagonalNormal(self.loc, self.scale)


class MixtureOfGaussians(nn.Module):
    r"""Mixture of K diagonal normals with equal weights, means and variances free (Tomczak & Welling 2018, "MoG").

    Means start as standard normal draws and log-variances at 0 (our choice; the paper does not say).

    Args:
        features: Size of z.
        components: K.

    >>> MixtureOfGaussians(2, components=10)().log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    __call__: Callable[..., NormalMixture]

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        at_least_one(features=features, components=components)
        self.loc = nn.Parameter(torch.randn(components, features))
        self.log_var = nn.Parameter(torch.zeros(components, features))

    def forward(self) -> NormalMixture:
        return NormalMixture(self.loc, torch.exp(self.log_var / 2))


class VampPrior(nn.Module):
    r"""Variational mixture of posteriors, $p(z) = \sum_k w_k\, q(z|u_k)$ (Tomczak & Welling 2018, eq. 9 and 16).

    The components are the encoder's own posteriors at K pseudo-inputs: the prior holds the *same* module as the
    model and trains it too. Learned pseudo-inputs are free parameters, clamped to the range of the data before
    the encoder; a pixel outside it gets no gradient (see `clamped_share`). With `learn=False` the pseudo-inputs are
    fixed: with random training examples, this is the paper's "VampPrior data".

    The encoder must return normal distributions with diagonal covariance over vectors, such as `DiagonalNormal` or
    torch's `Independent(Normal(...), 1)`. This is checked at construction, by their density.

    Sampling draws a component by its weight. (The authors' program takes the first n pseudo-inputs.)

    Args:
        encoder: Module, x -> q(z|x). For a hierarchy, the one of the top level.
        pseudo_inputs: Initial $u$, of shape `(K, *event)`, the event shape of the data.
        weighted: Learn the weights, $w = \mathrm{softmax}(\text{logits})$; otherwise $w_k = 1/K$.
        learn: Learn the pseudo-inputs.
        bounds: Range of the data, to which learned pseudo-inputs are clamped; None for no clamp.

    Raises:
        ValueError: If `pseudo_inputs` is not a tensor of at least one event that the encoder takes, if its values are
            outside the bounds or not finite, or if the encoder's distribution is not a diagonal normal.

    >>> from vaepriors import networks
    >>> prior = VampPrior(networks.Encoder((1, 4, 4), [16], latent=2), torch.rand(10, 1, 4, 4))
    >>> prior().sample((3,)).shape
    torch.Size([3, 2])
    """

    __call__: Callable[..., NormalMixture]

    def __init__(
        self,
        encoder: nn.Module,
        pseudo_inputs: Tensor,
        *,
        weighted: bool = False,
        learn: bool = True,
        bounds: tuple[float, float] | None = (0.0, 1.0),
    ) -> None:
        super().__init__()
        _check_values(pseudo_inputs)
        if learn and bounds is not None:
            _check_bounds(pseudo_inputs, bounds)
        _check_diagonal_normal(encoder, pseudo_inputs)
        self.encoder = encoder
        self.bounds = bounds if learn else None
        pseudo_inputs = pseudo_inputs.detach().clone()
        self.pseudo_inputs: Tensor
        if learn:
            self.pseudo_inputs = nn.Parameter(pseudo_inputs)
        else:
            self.register_buffer("pseudo_inputs", pseudo_inputs)
        self.logits = nn.Parameter(pseudo_inputs.new_zeros(len(pseudo_inputs))) if weighted else None

    def inputs(self) -> Tensor:
        """The clamped pseudo-inputs, of shape `(K, *event)`."""
        return self.pseudo_inputs if self.bounds is None else self.pseudo_inputs.clamp(*self.bounds)

    def forward(self) -> NormalMixture:
        q = self.encoder(self.inputs())
        return NormalMixture(q.mean, q.stddev, self.logits)

    @torch.no_grad()
    def clamped_share(self) -> Tensor:
        """Share of pseudo-pixels at or beyond a bound; those beyond it get no gradient."""
        if self.bounds is None:
            return self.pseudo_inputs.new_zeros(())
        low, high = self.bounds
        return ((self.pseudo_inputs <= low) | (self.pseudo_inputs >= high)).float().mean()


def _check_values(pseudo_inputs: Tensor) -> None:
    if not isinstance(pseudo_inputs, Tensor):
        raise ValueError(f"pseudo_inputs is a {type(pseudo_inputs).__name__}: give a tensor of shape (K, *event)")
    if pseudo_inputs.dim() < 1 or len(pseudo_inputs) < 1:
        raise ValueError(f"pseudo_inputs has shape {tuple(pseudo_inputs.shape)}: give (K, *event) with K at least 1")
    if not pseudo_inputs.is_floating_point():
        raise ValueError(f"pseudo_inputs is {pseudo_inputs.dtype}: convert it with pseudo_inputs.float()")
    if not pseudo_inputs.isfinite().all():
        raise ValueError("pseudo_inputs has values that are not finite: start it from data or from noise")


def _check_bounds(pseudo_inputs: Tensor, bounds: tuple[float, float]) -> None:
    low, high = bounds
    slack = 0.1 * (high - low)  # for training images plus a little noise
    least, most = pseudo_inputs.min().item(), pseudo_inputs.max().item()
    if least < low - slack or most > high + slack:
        raise ValueError(
            f"pseudo_inputs span [{least:.4g}, {most:.4g}], and would be clamped to the bounds [{low:g}, {high:g}]: "
            "give the range of the data as bounds, or bounds=None"
        )


@torch.no_grad()
def _check_diagonal_normal(encoder: nn.Module, pseudo_inputs: Tensor) -> None:
    """Compare the density of q(z|u) with that of a diagonal normal, at two points of each component."""
    try:
        with eval_mode(encoder):
            q = encoder(pseudo_inputs)
    except (RuntimeError, ValueError, IndexError) as error:
        shape = tuple(pseudo_inputs.shape[1:])
        raise ValueError(f"pseudo_inputs have event shape {shape}, which the encoder does not take: {error}") from error
    k = len(pseudo_inputs)
    if tuple(q.batch_shape) != (k,) or len(q.event_shape) != 1:
        raise ValueError(
            f"the encoder of {k} pseudo_inputs returned a distribution of batch shape {tuple(q.batch_shape)} and event "
            f"shape {tuple(q.event_shape)}, expected ({k},) and (latent,): one vector z for each input"
        )
    try:
        mean, stddev = q.mean, q.stddev
    except NotImplementedError as error:
        raise ValueError(
            f"the encoder returns a {type(q).__name__}, which has no mean in closed form: give an encoder "
            "of diagonal normals, such as the `top` of a hierarchical encoder"
        ) from error
    for step in (0.5, -2.0):
        z = mean + step * stddev
        if not torch.allclose(q.log_prob(z), DiagonalNormal(mean, stddev).log_prob(z), rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"the encoder returns a {type(q).__name__} that is not a normal with diagonal covariance: "
                "mix such posteriors with torch.distributions.MixtureSameFamily instead"
            )


class VHP(nn.Module):
    r"""Variational hierarchical prior, a VAE over z (Klushyn et al. 2019, eq. 8 to 10).

    $$\log p_K(z) = \log \frac1K \sum_k \frac{p(z|u_k)\, p(u_k)}{q(u_k|z)}, \qquad u_k \sim q(u|z)$$

    is at most $\log p(z)$ on average, and $p_K$ equals $p$ on average. So the loss is a bound, and the
    importance-sampled likelihood is unbiased, for any K. Two calls of `log_prob` differ. Samples are exact: u from
    N(0, I), z from p(z|u). With K = 1 and an `IWAE` objective, the model is the IWAE of two levels.

    Args:
        vae: A VAE whose data are z.
        samples: K.

    Raises:
        ValueError: If `samples` < 1, or the data of the VAE are not vectors.

    >>> from vaepriors import networks
    >>> inner = VAE(networks.Encoder((2,), [8], 2), networks.conditional(2, [8], 2), StandardNormal(2))
    >>> VHP(inner, samples=16)().log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    __call__: Callable[..., Marginal]

    def __init__(self, vae: VAE, samples: int) -> None:
        super().__init__()
        at_least_one(samples=samples)
        self.vae, self.samples = vae, samples
        with torch.random.fork_rng(devices=[]), eval_mode(vae):
            self.event_shape = vae.sample().shape
        if len(self.event_shape) != 1:
            raise ValueError(f"the VAE draws events of shape {tuple(self.event_shape)}: a prior is over vectors z")

    def forward(self) -> Marginal:
        return Marginal(self.vae, self.samples, self.event_shape)


class TwoLevelPrior(nn.Module):
    """p(z2) p(z1|z2), over z = [z2, z1] (Tomczak & Welling 2018, eq. 11 to 13).

    Args:
        top: Module, () -> p(z2).
        bottom: Module, z2 -> p(z1|z2).
        sizes: Sizes of z2 and z1.

    >>> from vaepriors import networks
    >>> prior = TwoLevelPrior(StandardNormal(2), networks.conditional(2, [8], 3), sizes=(2, 3))
    >>> prior().sample((4,)).shape
    torch.Size([4, 5])
    """

    __call__: Callable[..., Chain]

    def __init__(self, top: nn.Module, bottom: nn.Module, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.top, self.bottom, self.sizes = top, bottom, sizes

    def forward(self) -> Chain:
        return Chain(self.top(), self.bottom, self.sizes)
