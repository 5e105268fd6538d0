"""Choices by name: a table for each kind of choice, an entry for each name, and what is derived from them.

An entry is a function of a `Setting`. Its keyword-only parameters are the options of that choice, with their types,
limits and defaults; the first paragraph of its docstring is the line about it, and its `Args` are the help:

    @PRIORS.entry("mog")
    def mog(setting: Setting, *, components: Count = 500) -> nn.Module:
        '''K free normals.

        Args:
            components: Number of components.
        '''

The fields of `Experiment`, the checks of options, `--help`, README's tables and the parameters of the contract tests
follow from the entries. A default of None means that the value follows from other choices; an option without a default
must be given. The value of an option `base` is another entry of the table: with it come that entry's options. The fact
`only` says which options belong to one value of another option: `only={"bins": ("flow", "nsf")}`.
"""

from vaepriors.app.choices.markdown import between_marks, markdown_table
from vaepriors.app.choices.options import (
    REQUIRED,
    Count,
    CountFromZero,
    Length,
    Option,
    Positive,
    Size,
    Sizes,
    Within,
    check_choice,
    check_value,
    in_words,
    metavar,
)
from vaepriors.app.choices.table import Choice, Setting, Table, fields_of, render

__all__ = [
    "REQUIRED",
    "Choice",
    "Count",
    "CountFromZero",
    "Length",
    "Option",
    "Positive",
    "Setting",
    "Size",
    "Sizes",
    "Table",
    "Within",
    "between_marks",
    "check_choice",
    "check_value",
    "fields_of",
    "in_words",
    "markdown_table",
    "metavar",
    "render",
]
