"""A known density r that resembles a sample: a mixture of normals, wide and local, weighted by maximum likelihood."""

import math

import torch
from torch import Tensor

__all__ = ["KnownDensity", "fit_density"]

WIDTHS = (1.0, 1.5, 3.0, 10.0)
FULL = 64  # dimensions up to which covariance matrices are full


class KnownDensity:
    """A mixture of C normals, with covariance matrices that are full or diagonal.

    Args:
        means: Of shape `(C, D)`.
        factors: Cholesky factors of the covariance matrices `(C, D, D)`, or standard deviations `(C, D)`.
        weights: Of shape `(C,)`.
    """

    def __init__(self, means: Tensor, factors: Tensor, weights: Tensor) -> None:
        self.means, self.factors, self.weights = means, factors, weights
        self.full = factors.dim() == 3
        if self.full:
            eye = torch.eye(means.shape[1], dtype=means.dtype, device=means.device)
            self.inverse = torch.linalg.solve_triangular(factors, eye.expand_as(factors), upper=False)

    def each(self, y: Tensor) -> Tensor:
        """The log-density of each component at y `(n, D)`, of shape `(n, C)`."""
        noise = y[:, None] - self.means  # (n, C, D)
        if self.full:
            noise = torch.einsum("cij,ncj->nci", self.inverse, noise)
            volume = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        else:
            noise, volume = noise / self.factors, self.factors.log().sum(-1)
        return -0.5 * noise.square().sum(-1) - volume - 0.5 * y.shape[1] * math.log(2 * math.pi)

    def log_prob(self, y: Tensor) -> Tensor:
        parts = [(self.each(part) + self.weights.log()).logsumexp(-1) for part in y.split(500)]
        return torch.cat(parts)

    def sample(self, n: int) -> Tensor:
        k = torch.multinomial(self.weights, n, replacement=True)
        noise = torch.randn(n, self.means.shape[1], dtype=self.means.dtype, device=self.means.device)
        if not self.full:
            return self.means[k] + self.factors[k] * noise
        parts = [(self.factors[i] @ e[..., None])[..., 0] for i, e in zip(k.split(500), noise.split(500), strict=True)]
        return self.means[k] + torch.cat(parts)


def fit_density(y: Tensor) -> KnownDensity:
    """Fit r to draws.

    Half of the draws give the components, the other half their weights, by steps of EM. Wide components keep a tenth of
    the weight, so that p / r is bounded where p is no wider than ten times the sample.

    Args:
        y: Draws, of shape `(n, D)`.
    """
    first, second = y[: len(y) // 2], y[len(y) // 2 :]
    means, factors = _normals(first) if y.shape[1] <= FULL else _wide_diagonal(first)
    even = torch.full_like(means[:, 0], 1 / len(means))
    log_prob = torch.cat([KnownDensity(means, factors, even).each(part) for part in second.split(500)])
    weights = even
    for _ in range(30):
        weights = (log_prob + weights.clamp(min=1e-12).log()).softmax(-1).mean(0)
    wide = torch.zeros_like(weights)
    wide[: len(WIDTHS)] = 1 / len(WIDTHS)
    return KnownDensity(means, factors, 0.9 * weights + 0.1 * wide)


def _wide_diagonal(y: Tensor) -> tuple[Tensor, Tensor]:
    widths = torch.tensor(WIDTHS, dtype=y.dtype, device=y.device)[:, None]
    return y.mean(0).expand(len(WIDTHS), -1), widths * y.std(0).clamp(min=1e-12)


def _normals(y: Tensor) -> tuple[Tensor, Tensor]:
    """Wide normals with the covariance of the draws, and local ones with that of the neighbours of some draws."""
    n, dims = y.shape
    wide = torch.linalg.cholesky(_covariance(y))
    centres = 128 if dims <= 4 else 32
    neighbours = min(max(32, 4 * dims), n // 4)
    scaled = y / y.std(0).clamp(min=1e-12)
    near = y[torch.cdist(scaled[:centres], scaled).topk(neighbours, largest=False).indices]  # (centres, neighbours, D)
    local = torch.linalg.cholesky(_covariance(near))
    means = torch.cat([y.mean(0).expand(len(WIDTHS), -1), near.mean(1), near.mean(1)])
    return means, torch.cat([torch.stack([width * wide for width in WIDTHS]), local, 2 * local])


def _covariance(y: Tensor) -> Tensor:
    """Covariance matrices of draws `(..., n, D)`, shrunk towards their diagonal so that they have a factor."""
    n, dims = y.shape[-2:]
    centred = y - y.mean(-2, keepdim=True)
    covariance = centred.mT @ centred / n
    diagonal = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1).clamp(min=1e-24))
    share = min(1.0, dims / n) if n > 2 * dims else 0.9
    return (1 - share) * covariance + share * diagonal + 1e-9 * diagonal
