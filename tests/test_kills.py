"""What `make kills` starts and compares; itself, it takes minutes."""

import shutil

import numpy as np
import pytest

import kills


@pytest.mark.parametrize("kind", kills.TRAININGS)
def test_a_changed_bit_is_noticed_in_every_kind_of_run(tmp_path, vaepriors, kind):
    one, other = tmp_path / "one", tmp_path / "other"
    words = kills.command(kind, one, kills.make_data(tmp_path))
    assert vaepriors(*words[3:], "--epochs", "5", "--batch-size", "100") == 0
    shutil.copytree(one, other)
    assert kills.differences(one, other) == []
    tensors, values = kills.checkpoint.load(other / "last.ckpt")
    np.asarray(tensors[max(tensors)])[...] += 1
    kills.checkpoint.save(other / "last.ckpt", tensors, values)
    (other / "metrics.jsonl").unlink()
    assert [line.split()[0] for line in kills.differences(one, other)] == ["last.ckpt", "metrics.jsonl"]
