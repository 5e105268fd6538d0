"""What a benchmark measured, in results/benchmarks, and the table of it in a page of docs."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaepriors.app.choices import between_marks
from vaepriors.checkpoint import write_atomically

__all__ = ["ROOT", "Record"]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Record:
    """The record of a benchmark.

    Args:
        name: Name of its file, and of the marks around its table.
        page: The page in docs.
        table: What the file holds -> the table.
    """

    name: str
    page: str
    table: Callable[[dict[str, Any]], str]

    @property
    def path(self) -> Path:
        return ROOT / "results" / "benchmarks" / f"{self.name}.json"

    def rendered(self, text: str) -> str:
        """The text of the page with the table of the file."""
        return between_marks(text, self.name, self.table(json.loads(self.path.read_text())))

    def render(self) -> None:
        """Write the table into the page."""
        page = ROOT / "docs" / self.page
        write_atomically(page, self.rendered(page.read_text()).encode())
