"""The programs of examples/, each for an epoch."""

import importlib.util
import inspect
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, in_folder, capsys):
    if "import zuko" in path.read_text():
        pytest.importorskip("zuko", reason="needs zuko")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    few = {"samples": 10} if "samples" in inspect.signature(module.main).parameters else {}
    module.main(epochs=1, **few)
    assert "nats" in (out := capsys.readouterr().out) or "(bound 0.350)" in out
    assert len(path.read_text().splitlines()) <= 80
