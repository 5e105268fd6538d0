"""A page of HTML that contains all its pictures: it opens from disk and requests nothing from the network."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from vaepriors.app.report.pictures import figure_png, png
from vaepriors.checkpoint import write_atomically

__all__ = ["Opening", "Part", "Picture", "Section", "Table", "check_place", "drawn", "sections", "sheet", "write"]


@dataclass(frozen=True)
class Picture:
    """A PNG with its alternative text and its caption."""

    name: str
    content: bytes
    alt: str
    caption: str = ""
    pixels: bool = False  # enlarged without smoothing
    wide: bool = False  # scrolls on a narrow screen, where it would be too small to read

    @property
    def uri(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Opening:
    """A small picture that opens a large one."""

    name: str
    small: Picture
    large: Picture


@dataclass(frozen=True)
class Table:
    """Rows of words; the first word of a row is its name."""

    name: str
    rows: list[list[str]]
    head: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    key: str
    title: str
    text: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


Part = str | Picture | Opening | Table


def sections(
    parts: Mapping[tuple[str, str], Iterable[Part]], progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Section]:
    """The sections of these keys and titles, made one after another; one without any part is left out.

    Args:
        parts: Sentences, pictures, openings and tables; a section shows each kind in its order.
        progress: Called with the number of sections done and their total.
    """
    whole = []
    for done, ((key, title), some) in enumerate(parts.items(), 1):
        kinds: dict[type, list[Any]] = {str: [], Picture: [], Opening: [], Table: []}
        for part in some:
            kinds[type(part)].append(part)
        if any(kinds.values()):
            whole.append(Section(key, title, *kinds.values()))
        progress(done, len(parts))
    return whole


def drawn(name: str, figure: Figure, alt: str, caption: str = "") -> Picture:
    """A figure as a picture."""
    return Picture(name, figure_png(figure, 110), alt, caption, wide=figure.get_figwidth() > 7)


def sheet(name: str, images: np.ndarray, alt: str, caption: str = "", width: int = 600) -> Picture:
    """A sheet of images (see `pictures.grid`) as a picture."""
    return Picture(name, png(images, width), alt, caption, pixels=True)


def check_place(path: Path) -> None:
    """Refuse a page that cannot be written, before the work for it."""
    if path.suffix != ".html":
        raise ValueError(f"out is {path}: give a file that ends in .html")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: choose another page")
    for each in (path.with_suffix(""), *path.parents):
        if each.exists() and not each.is_dir():
            raise ValueError(f"{each} is a file, but {path} needs a folder there: choose another page")


def write(
    path: Path,
    title: str,
    subtitle: str,
    sections: list[Section],
    numbers: Sequence[tuple[str, str]] = (),
    notices: Sequence[str] = (),
) -> list[Path]:
    """Write a page, and the pictures of its sections as files into a folder of its name beside it; return both."""
    source = resources.files("vaepriors.app.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(source).render(
        title=title, subtitle=subtitle, numbers=numbers, notices=notices, sections=sections
    )
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for picture in (picture for section in sections for picture in section.pictures):
        write_atomically(folder / f"{picture.name}.png", picture.content)
    write_atomically(path, page.encode(errors="backslashreplace"))  # a folder's name may be no UTF-8
    return [path, folder]
