r"""Training: the loop, early stopping, checkpoints.

    for each epoch:  draw the order of the examples; for each batch:  loss, terms = objective(model, x)
                     validation loss at weight 1; a line of metrics; now and then a checkpoint

The training set stays on the device, or on disk if it is too large; a batch is a selection of rows, and probabilities
become pixels on the device, anew at every visit. Shapes never change: the last batch of an epoch is filled up from the
epoch's first examples. No step reads the device; sums are read once an epoch.
"""

from vaepriors.training.fitting import fit
from vaepriors.training.loop import Training
from vaepriors.training.losses import Losses, binarize
from vaepriors.training.outcome import Callback, Diverged, Outcome
from vaepriors.training.settings import PRECISIONS, Settings

__all__ = [
    "PRECISIONS",
    "Callback",
    "Diverged",
    "Losses",
    "Outcome",
    "Settings",
    "Training",
    "binarize",
    "fit",
]
