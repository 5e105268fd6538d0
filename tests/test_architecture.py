"""Imports point down: a module knows only floors below its own, or its own package."""

import ast
import re
from pathlib import Path

import pytest

import vaepriors

ROOT = Path(vaepriors.__file__).parent
FLOORS = [
    {"limits", "words", "numerics", "checkpoint", "reading"},
    {"distributions", "agreement", "devices", "compilation"},
    {"vae"},
    {"networks", "conditional"},
    {"data", "priors", "objectives"},
    {"optim"},
    {"likelihood", "refinement", "analysis", "store"},
    {"training", "annealing", "checking", "imputation"},
    {"app"},
    {"papers", "estimator"},
    {"cli"},
    {"__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = [path for path in sorted(ROOT.rglob("*.py")) if part(path) != "__init__"]


def imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, anywhere in it."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vaepriors":
            names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            imported.update(names)
    return imported - {part(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    own = part(path)
    for other in imports(path):
        assert FLOOR[other] < FLOOR[own], f"{own} imports {other}"


def test_every_part_has_a_floor():
    assert {part(path) for path in FILES} == set(FLOOR)


def test_contributing_names_every_part():
    page = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    table = page.partition("| floor |")[2].partition("\n\n")[0]
    modules = " ".join(re.findall(r"^\|[^|]*\|([^|]*)\|", table, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", modules)) == set(FLOOR) - {"__main__"}


def test_the_theory_knows_no_prior_network_objective_or_data_set():
    assert imports(ROOT / "vae.py") == {"agreement", "distributions"}


def length(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    described = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return function.end_lineno - function.lineno + 1 - described


def test_no_function_is_longer_than_40_lines():
    nodes = [(path, node) for path in FILES for node in ast.walk(ast.parse(path.read_text()))]
    long = {
        f"{path.relative_to(ROOT)}: {node.name}": length(node)
        for path, node in nodes
        if isinstance(node, ast.FunctionDef) and length(node) > 40
    }
    assert not long


def test_no_file_is_longer_than_320_lines():
    """A longer file holds two ideas."""
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in ROOT.rglob("*.py")}
    assert not {name: lines for name, lines in lengths.items() if lines > 320}
