"""The command line: train, refit, evaluate, sample, encode, impute, report, compare, interpolate, data, reproduce.

A mistake of the user is one sentence on standard error and exit status 2, before any work. Ctrl-C leaves a run that
`--resume` continues. What takes long to import is imported by the commands that need it.
"""

from vaepriors.cli.entry import main

__all__ = ["main"]
