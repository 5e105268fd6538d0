"""Tables in Markdown, and their places in a page."""

from collections.abc import Iterable, Sequence

__all__ = ["between_marks", "markdown_table"]


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(markdown_table(["row", "ours"], [["a", "1"]]))
    | row | ours |
    |---|---|
    | a | 1 |
    """
    first, *others = ("| " + " | ".join(each) + " |" for each in (titles, *rows))
    return "\n".join([first, "|" + "---|" * len(titles), *others])


def between_marks(text: str, name: str, body: str) -> str:
    """The text with this body between its two marks of a name.

    >>> between_marks("a <!-- b: begin --> old <!-- b: end --> c", "b", "new")
    'a <!-- b: begin -->\\nnew\\n<!-- b: end --> c'
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{body}\n{end}{after}"
