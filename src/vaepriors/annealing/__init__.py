r"""Annealed importance sampling from q(z|x) to p(z|x), and bounds on log p(x) from both sides.

A chain of draws follows a path of T + 1 densities from the posterior to the model (Neal 2001; Wu, Burda, Salakhutdinov
& Grosse 2017),

$$f_k(z) = q(z|x)^{1 - \beta_k}\, p(x, z)^{\beta_k}, \qquad 0 = \beta_0 < \dots < \beta_T = 1, \qquad
  \log w = \sum_{k=1}^T (\beta_k - \beta_{k-1}) \log \frac{p(x, z_{k-1})}{q(z_{k-1}|x)},$$

where $z_0 \sim q(z|x)$ and $z_k$ is drawn from $z_{k-1}$ by a transition that leaves $f_k$ invariant: Hamiltonian Monte
Carlo. Then $\mathbb{E}[w] = p(x)$, for any number of chains and any T; with T = 1 it is importance sampling.

The step sizes of each x and each temperature are adapted in chains of a preliminary run with draws of their own. The
chains that are weighed take them as they are, so the estimate stays unbiased.

If z is an exact draw from p(z|x), the same path from T to 0 gives a weight with $\mathbb{E}[1/w] = 1/p(x)$. Such draws
are known for data that the model has drawn itself, and there log p(x) lies between the two estimates on average
(bidirectional Monte Carlo; Grosse, Ghahramani & Adams 2015). Where p(x|z) takes the size factor s of a row from x, as
`Counts` does, the bounds are on log p(x|s = 1): the draws have s = 1.

Where the prior is a VAE over z, with the latent u, its density is only estimated. The chains are then in [u, z], from
q(u|z) q(z|x) to p(x|z) p(z|u) p(u), which has the same p(x).
"""

from vaepriors.annealing.method import Annealing, Bounds, bidirectional
from vaepriors.annealing.simulation import Simulated, simulate

__all__ = ["Annealing", "Bounds", "Simulated", "bidirectional", "simulate"]
