"""The command data."""

from typing import Literal

import tyro

from vaepriors.cli.shared import console
from vaepriors.data import CATALOGUE, fetch

__all__ = ["data"]


def data(
    action: tyro.conf.Positional[Literal["list", "fetch"]],
    names: tyro.conf.Positional[tuple[str, ...]] = (),
) -> int:
    """List the data sets, or fetch some to the cache.

    Args:
        action: list, or fetch.
        names: The data sets to fetch; none for list.
    """
    from rich.table import Table

    if action == "list":
        if names:
            raise ValueError(
                f"list takes no names, but has {' '.join(names)}: use vaepriors data fetch {' '.join(names)}"
            )
        table = Table("name", "what", box=None)
        for name, entry in CATALOGUE.items():
            table.add_row(name, entry.about)
        console.print(table)
        return 0
    if not names:
        raise ValueError(f"nothing to fetch: name one of {', '.join(CATALOGUE)}")
    unknown = [name for name in names if name not in CATALOGUE]
    for name in unknown or names:  # an unknown one is refused before the first is fetched
        paths = fetch(name)
        console.print("\n".join(map(str, paths)) or f"{name} comes with the installation: nothing to fetch")
    return 0
