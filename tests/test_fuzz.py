"""A few inputs that make no sense, always the same ones; `make fuzz` tries thousands."""

from pathlib import Path

import pytest
from hypothesis import Phase, given, settings

from fuzz_inputs import Trial, inputs
from fuzzing import LOOSE, Broken, make_base, perform


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("fuzz") / "base")


@pytest.mark.parametrize(("kind", "count"), [("options", 20), ("files", 28), ("runs", 14)])
def test_every_input_ends_with_a_result_or_a_sentence(base, kind, count):
    @settings(LOOSE, derandomize=True, max_examples=count, phases=[Phase.generate, Phase.shrink])
    @given(inputs(base)[kind])
    def each(trial):
        perform(trial, base)

    each()


@pytest.mark.parametrize(
    ("ending", "words"),
    [(KeyError("x"), "KeyError in"), (SystemExit(1), "changes metrics.jsonl"), (SystemExit(3), "status 3")],
)
def test_a_broken_promise_is_noticed(base, ending, words):
    def write_and_end(_):
        Path("run/metrics.jsonl").write_text("")
        raise ending

    with pytest.raises(Broken, match=words):
        perform(Trial(("train",)), base, write_and_end)
