"""Numbers and types in a sentence."""

__all__ = ["a_type", "counted"]


def counted(number: int, noun: str) -> str:
    """A number with its noun, which takes an s in the plural.

    >>> counted(1, "sample"), counted(5000, "sample")
    ('1 sample', '5000 samples')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def a_type(value: object) -> str:
    """The type of a value with its article, for errors.

    >>> a_type(3), a_type([])
    ('an int', 'a list')
    """
    name = type(value).__name__
    spoken_with_a_vowel = name.startswith((*"AEIOaeio", "nd"))  # an ndarray, but a Uniform
    return f"{'an' if spoken_with_a_vowel else 'a'} {name}"
