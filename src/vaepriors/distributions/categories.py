"""Categories."""

import torch
from torch import Tensor
from torch.distributions import Categorical

from vaepriors.distributions.shaped import Shape

__all__ = ["Codes"]


class Codes(Categorical):
    """Categories as codes 0, 1, ..., K - 1 in the dtype of the logits.

    The mean is that of the code. It is like the data where categories are in order, as grades are.

    >>> p = Codes(logits=torch.tensor([0.5, 0.0, 0.5]).log(), validate_args=False)
    >>> p.mean, p.sample().dtype
    (tensor(1.), torch.float32)
    """

    @property
    def mean(self) -> Tensor:
        return (self.probs * self._codes()).sum(-1)

    @property
    def variance(self) -> Tensor:
        return (self.probs * (self._codes() - self.mean[..., None]).square()).sum(-1)

    def _codes(self) -> Tensor:
        return torch.arange(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return super().sample(torch.Size(sample_shape)).to(self.logits.dtype)
