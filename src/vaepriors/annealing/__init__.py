"""Annealed importance sampling from q(z|x) to p(z|x), and bounds on log p(x) from both sides."""

from vaepriors.annealing.method import Annealing, Bounds, _Path, bidirectional, simulate

__all__ = ["Annealing", "Bounds", "_Path", "bidirectional", "simulate"]
