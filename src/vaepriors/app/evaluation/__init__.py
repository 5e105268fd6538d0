"""The evaluation of a run, in blocks of examples that can stop and resume."""

from vaepriors.app.evaluation.record import Paused, digest_of, evaluate_run, measure_normalizer, summary

__all__ = ["Paused", "digest_of", "evaluate_run", "measure_normalizer", "summary"]
