"""Training: the loop, early stopping, checkpoints."""

from vaepriors.training.loop import Callback, Diverged, Losses, Outcome, Settings, Training, binarize, fit

__all__ = ["Callback", "Diverged", "Losses", "Outcome", "Settings", "Training", "binarize", "fit"]
