r"""What the codes tell about the class: the mutual information I(z; y).

Under the aggregated posterior, z and y have the joint distribution $q(z, y) = \pi_y\, q(z|y)$, with
$q(z|y) = \frac{1}{N_y} \sum_{n: y_n = y} q(z|x_n, y_n)$. Any classifier r(y|z) that does not depend on the draws gives
a lower bound (Barber & Agakov 2003, The IM algorithm),

$$I(z; y) \ge H(y) + \mathbb{E}_{q(z, y)} \log r(y|z),$$

which is exact for $r = q(y|z) \propto \pi_y\, q(z|y)$. The classifier here is made of the posteriors of other examples,
$r(y|z) \propto \pi_y\, \hat q(z|y)^{1/T}$. The temperature T keeps few or narrow posteriors from being sure of a wrong
class; it is chosen on the other half of the draws.

If a conditional model leaves z nothing to say about y, as it should where p(z) is the same for all y, this is 0.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaepriors.analysis.surgery import aggregated_log_prob
from vaepriors.conditional import AnyVAE, batches
from vaepriors.vae import at_device_of, eval_mode

__all__ = ["Information", "Labelled", "class_information"]

TEMPERATURES = [2.0**k for k in range(17)]


class Labelled(NamedTuple):
    """Examples with their classes."""

    x: Tensor  # (N, *event)
    labels: Tensor  # (N,), whole numbers from 0
    condition: Tensor | None = None  # y, for a `ConditionalVAE`

    def to(self, device: torch.device) -> "Labelled":
        """The same on a device."""
        y = self.condition
        return Labelled(self.x.to(device), self.labels.to(device), None if y is None else y.to(device))


class Information(NamedTuple):
    """A lower bound on I(z; y), in nats, with its standard error over the draws."""

    value: float
    se: float
    entropy: float  # H(y), the upper limit of I


@torch.no_grad()
def class_information(model: AnyVAE, train: Labelled, test: Labelled, *, block: int = 2**22) -> Information:
    """A lower bound on the mutual information of codes and classes (see above).

    Args:
        model: The model, conditional or not.
        train: Examples whose posteriors make the classifier.
        test: Other examples, each with one draw of z, at least four. Their labels are among those of `train`.
        block: Numbers in memory at a time.

    Raises:
        ValueError: If there are fewer than four test examples, or one has a class that `train` does not have.
    """
    device = at_device_of(model, train.labels).device
    train, test = train.to(device), test.to(device)
    classes, labels = train.labels.unique(return_counts=True), test.labels
    if len(labels) < 4 or not torch.isin(labels, classes[0]).all():
        raise ValueError(
            f"{len(labels)} test examples of the classes {labels.unique().tolist()}: at least 4 are needed, and of the "
            f"classes of train, {classes[0].tolist()}"
        )
    with eval_mode(model):
        z = torch.cat([at.encoder(some).sample() for at, some in batches(model, test.x, test.condition, 1000)])
        log_q = torch.stack([_of_class(model, train, int(each), z, block) for each in classes[0]], -1)  # (S, classes)
    log_share = (classes[1] / len(train.labels)).double().log()
    place = torch.searchsorted(classes[0], labels)
    own = torch.stack(
        [(log_share + log_q / t).log_softmax(-1).gather(-1, place[:, None])[:, 0] for t in TEMPERATURES]
    )  # (T, S): log r(y|z)
    log_r = _crossed(own)
    counts = torch.bincount(place, minlength=len(classes[0])).double()
    gain = log_r - (counts / len(labels)).log()[place]
    entropy = -(torch.xlogy(counts, counts / len(labels))).sum().item() / len(labels)
    return Information(gain.mean().item(), gain.std().item() / math.sqrt(len(gain)), entropy)


def _of_class(model: AnyVAE, train: Labelled, label: int, z: Tensor, block: int) -> Tensor:
    """log q(z|y) of draws, under the aggregated posterior of the training examples of a class."""
    members = train.labels == label
    condition = None if train.condition is None else train.condition[members]
    return aggregated_log_prob(model, train.x[members], z, condition, block=block)


def _crossed(own: Tensor) -> Tensor:
    """log r(y|z) of each draw, at the best temperature of the other half of the draws."""
    halves = [torch.arange(len(own[0]), device=own.device) % 2 == half for half in (0, 1)]
    log_r = torch.empty_like(own[0])
    for here, there in (halves, reversed(halves)):
        log_r[here] = own[own[:, there].mean(-1).argmax(), here]
    return log_r
