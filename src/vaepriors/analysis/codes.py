r"""Codes: one z for each x, the mean of q(z|x).

With two levels, q(z2|x) q(z1|x, z2), a code is the mean of z2, and after it the mean of z1 at that z2. (The mean of z1
over draws of z2 is another one, without a closed form.)
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vaepriors.conditional import AnyVAE, check_condition, given
from vaepriors.data import Points
from vaepriors.distributions import point_estimate
from vaepriors.limits import at_least_one
from vaepriors.numerics import fixed_numerics
from vaepriors.vae import eval_mode

__all__ = ["codes"]


@fixed_numerics()
@torch.no_grad()
def codes(
    model: AnyVAE,
    x: Points,
    *,
    condition: Tensor | None = None,
    chunk: int = 100,
    progress: Callable[[int], None] = lambda examples: None,
) -> Tensor:
    """The mean of q(z|x) of each x, of shape `(batch, latent)`, on the CPU.

    For an encoder whose distribution has no mean in closed form, it is a draw.

    Args:
        model: The model, in evaluation mode during the call.
        x: Data, of shape `(batch, *event)`: a tensor, or points on disk, which are read some at a time.
        condition: The y of each x, of shape `(batch, c)`, for a `ConditionalVAE`.
        chunk: Examples encoded at a time.
        progress: Called with the number of examples just finished.

    Raises:
        ValueError: If `chunk` < 1, or conditions are missing or not those of the model.

    >>> from vaepriors import VAE, StandardNormal, networks
    >>> model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), StandardNormal(2))
    >>> codes(model, torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """
    at_least_one(chunk=chunk, **{"the number of examples": len(x)})
    check_condition(model, condition, len(x))
    weights, parts = next(model.parameters()), []
    with eval_mode(model):
        for start in range(0, len(x), chunk):
            some = x[start : start + chunk].to(weights)
            y = None if condition is None else condition[start : start + chunk].to(some)
            parts.append(point_estimate(given(model, y).encoder(some)).cpu())
            progress(len(some))
    return torch.cat(parts)
