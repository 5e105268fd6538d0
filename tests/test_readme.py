"""README tells the truth: its code runs, its commands parse, its results are those of results/."""

import json
import re
import shlex
from pathlib import Path

import pytest

from vaepriors import results
from vaepriors.experiment import MODELS, PRIORS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    vaepriors (train .*|data list)$", README.replace("\\\n", ""), re.MULTILINE)


def test_the_library_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code.replace("range(1000)", "range(3)").replace("samples=1000", "samples=10"), {})
    assert "tensor(-" in capsys.readouterr().out


def test_the_table_of_results_is_that_of_the_files():
    assert results.replace_table(README, results.render(ROOT / "results")) == README


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_parse(command, tmp_path, monkeypatch, vaepriors):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vaepriors.cli.load", lambda name, seed: (_ for _ in ()).throw(ValueError(f"asked for {name}")))
    assert vaepriors(*shlex.split(command)) == (0 if command.startswith("data") else 2)


def test_the_tables_have_every_model_and_prior():
    assert [name for name in (*MODELS, *PRIORS) if f"\n| `{name}` |" not in README] == []


def test_the_time_of_drawing_pixels_is_that_of_the_benchmark():
    rows = json.loads((ROOT / "results" / "benchmarks" / "sampling.json").read_text())["pixelhvae"]
    (row,) = [row for row in rows if row["images"] == 64]
    assert f"take {row['seconds']:.1f} s on one CPU thread" in README
    assert f"takes {row['plain_loop_seconds']:.0f} s" in README


def test_a_result_has_all_that_a_number_needs():
    for path in (ROOT / "results").glob("*.json"):
        result = json.loads(path.read_text())
        assert {"experiment", "sessions", "evaluation", "hours", "paper", "source", "note"} <= set(result)
        assert all(session["commit"] and session["hardware"] and session["versions"] for session in result["sessions"])
        assert result["evaluation"]["nll_se"] > 0
        assert result["experiment"]["seed"] >= 0


def test_record_and_render(tmp_path, train, vaepriors, capsys):
    run = tmp_path / "runs" / "a"
    assert train(run, "--epochs", "1") == 0
    with pytest.raises(SystemExit, match=r"no evaluation\.json"):
        results.main(["record", str(run), "--to", str(tmp_path / "results")])
    assert vaepriors("evaluate", run, "--samples", "10", "--accelerator", "cpu") == 0
    results.main(["record", str(run), "--paper", "-1.5", "--source", "a paper", "--to", str(tmp_path / "results")])
    file = tmp_path / "README.md"
    file.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    results.main(["render", str(file), "--results", str(tmp_path / "results")])
    text = file.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    nll = json.loads((run / "evaluation.json").read_text())["nll"]
    assert f"| vae | standard | {-nll:.2f} ± " in text
    assert "| -1.5 | 5 | 1 (1) | 0.0005, he | 0 |" in text
