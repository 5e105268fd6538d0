r"""The posterior that importance weighting implies (Cremer, Morris & Duvenaud 2017).

A model trained by the importance-weighted bound has another posterior than its encoder: the one that resampling K draws
of q(z|x) by their weights implies.
"""

import math

import torch
from torch import Tensor

from vaepriors.distributions import Shape
from vaepriors.limits import at_least_one
from vaepriors.vae import VAE, at_device_of, eval_mode

__all__ = ["ImpliedPosterior"]


class ImpliedPosterior:
    r"""The posterior that importance weighting implies for one x (Cremer, Morris & Duvenaud 2017, section 3).

    K draws of q(z|x), one of which is kept with probability in proportion to its weight $w(z) = p(x, z) / q(z|x)$,
    follow

    $$q_{EW}(z) = \mathbb{E}_{z_2, \dots, z_K \sim q}\left[ \frac{p(x, z)}
      {\frac1K \left( w(z) + \sum_{k \ge 2} w(z_k) \right)} \right],$$

    which is q for K = 1 and tends to p(z|x). Its ELBO lies between the bound of K draws and log p(x), strictly for
    K > 1 unless q is the exact posterior.

    Args:
        model: The model.
        x: One example, of shape `event`, on any device.
        samples: K.

    Raises:
        ValueError: If `samples` < 1.
    """

    def __init__(self, model: VAE, x: Tensor, samples: int) -> None:
        at_least_one(samples=samples)
        self.model, self.x, self.samples = model, at_device_of(model, x), samples

    @torch.no_grad()
    def log_prob(self, z: Tensor, draws: int = 1000, chunk: int = 10_000) -> Tensor:
        """log q_EW(z) of points, in nats and float64, of shape `(G,)`.

        Args:
            z: Points, of shape `(G, latent)`.
            draws: Number of sets of K - 1 draws to average over; the same sets for all points.
            chunk: Pairs decoded at a time, and a hundred times as many pairs of a point and a set.
        """
        model, x = self.model, self.x
        with eval_mode(model):
            q, prior = model.encoder(x), model.prior()
            known, log_q = model.given(q, prior), q.log_prob(z).double()
            if self.samples == 1:
                return log_q
            joint = [model.decoder(some).log_prob(x) + prior.log_prob(some) for some in z.split(chunk)]
            number, others = draws * (self.samples - 1), []
            for start in range(0, number, chunk):
                others.append(known(x, min(chunk, number - start)).log_weight.double())
        log_joint = torch.cat(joint).double()
        rest = torch.cat(others).view(draws, -1).logsumexp(1)  # log of the sum of the other weights
        size = max(1, 100 * chunk // draws)
        means = [
            (torch.logaddexp(rest, own[:, None]) - math.log(self.samples)).neg().logsumexp(1)  # over (size, draws)
            for own in (log_joint - log_q).split(size)
        ]
        return log_joint + torch.cat(means) - math.log(draws)

    @torch.no_grad()
    def sample(self, shape: Shape = ()) -> Tensor:
        """Draws, of shape `(*shape, latent)`: one of K draws of the encoder, chosen by weight."""
        number = math.prod(shape)
        with eval_mode(self.model):
            terms = self.model(self.x, self.samples * number)
        log_weight = terms.log_weight.view(number, self.samples)
        chosen = torch.distributions.Categorical(logits=log_weight).sample()
        assert terms.z is not None
        return terms.z.view(number, self.samples, -1)[torch.arange(number), chosen].view(*shape, -1)
