"""The evaluation of a run, in blocks of examples that can stop and resume."""

from vaepriors.app.evaluation.blocks import Paused, check_likelihoods
from vaepriors.app.evaluation.normalizer import measure_normalizer
from vaepriors.app.evaluation.record import digest_of, evaluate_run, summary

__all__ = ["Paused", "check_likelihoods", "digest_of", "evaluate_run", "measure_normalizer", "summary"]
