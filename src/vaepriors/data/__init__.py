"""Data sets by name: train, validation and test points with the likelihood that fits them.

    >>> digits = load("digits")
    >>> digits.train.shape, digits.likelihood, digits.dynamic
    (torch.Size([1297, 1, 8, 8]), 'bernoulli', True)

A new set is a module with a loader and its sources, and one entry of `CATALOGUE`.
"""

from vaepriors.data.catalogue import CATALOGUE, Entry, Form, fetch, missing, stand_in
from vaepriors.data.conditions import CONDITIONS, condition_of, condition_on
from vaepriors.data.dataset import LIKELIHOODS, Dataset
from vaepriors.data.draws import binarize_once
from vaepriors.data.files import Source
from vaepriors.data.items import Items
from vaepriors.data.loading import absolute, is_file, load
from vaepriors.data.rows import Points, Rows, Streamed
from vaepriors.data.survey import reading_progress

__all__ = [
    "CATALOGUE",
    "CONDITIONS",
    "LIKELIHOODS",
    "Dataset",
    "Entry",
    "Form",
    "Items",
    "Points",
    "Rows",
    "Source",
    "Streamed",
    "absolute",
    "binarize_once",
    "condition_of",
    "condition_on",
    "fetch",
    "is_file",
    "load",
    "missing",
    "reading_progress",
    "stand_in",
]
