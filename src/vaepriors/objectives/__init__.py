"""Objectives: called with a model and data, they return a scalar loss in nats per data point, and its `Terms`."""

from vaepriors.objectives.constrained import ELBO, GECO, IWAE, REWO, Objective, PriorFit

__all__ = ["ELBO", "GECO", "IWAE", "REWO", "Objective", "PriorFit"]
