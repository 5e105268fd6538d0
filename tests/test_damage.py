"""Runs that are damaged, mixed up or in use: one sentence that names the file, and nothing changed or lost."""

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import TINY, largest_file
from test_train import assert_same_run
from vaepriors import checkpoint
from vaepriors.app.evaluation import Paused, evaluate_run
from vaepriors.app.experiment import Experiment
from vaepriors.app.records import read_records
from vaepriors.app.run import Run
from vaepriors.app.train import fit
from vaepriors.data import Dataset, load
from vaepriors.papers import read_result, tables
from vaepriors.reading import read_json
from vaepriors.store import LOCKS, Busy

OPTIONS = ["--epochs", "3", "--save-every", "0", "--snapshots", "1"]
INTERPOLATE = ["--nodes", "40", "--neighbors", "5", "--graphs", "1", "--pairs", "1"]
EVALUATE = ["--samples", "3000", "--chunk", "3000", "--accelerator", "cpu"]
COMMANDS = {
    "train": ["--resume", "--out"],
    "evaluate": [*EVALUATE],
    "sample": ["--number", "3"],
    "report": [],
    "interpolate": INTERPOLATE,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, train, vaepriors):
    """A finished run of three epochs, evaluated and interpolated, not to be written to."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train(folder, *OPTIONS) == 0
    assert vaepriors("evaluate", folder, *EVALUATE) == 0
    assert vaepriors("interpolate", folder, *INTERPOLATE) == 0
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture
def attempt(vaepriors, capsys):
    """A command on a folder that must fail: its one sentence. Nothing may have changed."""

    def attempt(command, folder, *options, status=2):
        before = content(folder)
        capsys.readouterr()
        assert vaepriors(command, *COMMANDS[command], folder, *options) == status
        err = capsys.readouterr().err
        assert err.startswith("vaepriors: "), err
        assert err.count("\n") == 1, err
        assert err.endswith("\n"), err
        assert content(folder) == before
        return err

    return attempt


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Damaged

NO_JSON = [b"", b"{", b"[]", b"null", b"3", b'"a"', bytes(range(256)), b"[" * 100_000, b'{"a": ' * 100_000, b"9" * 5000]
WRONG = ["x", None, [], {}, [None], {"a": 1}, True, -1, 10**400, float("nan"), float("inf"), 1e308]


@pytest.mark.parametrize("damage", NO_JSON, ids=lambda damage: repr(damage[:6]))
@pytest.mark.parametrize(
    ("command", "name"),
    [("train", "experiment.json"), ("evaluate", "experiment.json"), ("report", "evaluation.json"),
     ("report", "interpolation.json")],
)  # fmt: skip
def test_a_file_without_a_json_object(copy, attempt, command, name, damage):
    (copy / name).write_bytes(damage)
    assert str(copy / name) in attempt(command, copy)


def altered(whole, only=()):
    """The content of a JSON file with each field missing, and with each of the wrong values."""
    for name in only or whole:
        yield name, {key: value for key, value in whole.items() if key != name}
        for value in WRONG:
            yield name, whole | {name: value}


def reads_or_names(read, path):
    """Whether a file is read, else that the error is one sentence with its path."""
    message = None
    try:
        read()
    except ValueError as error:
        message = str(error)
    assert message is None or (str(path) in message and "\n" not in message)
    return message is None


def test_every_field_of_experiment_json_is_checked(copy):
    """What is read is the very experiment, up to what may change on resume."""
    run, path = Run(copy), copy / "experiment.json"
    whole, experiment = json.loads(path.read_text()), Run(copy).experiment()
    same = 0
    for _, inner in altered(whole["experiment"]):
        path.write_text(json.dumps(whole | {"experiment": inner}))
        if reads_or_names(run.experiment, path):
            run.check_same(Experiment(**{**vars(experiment), "data": run.experiment().data}))
            same += 1
    assert same < 100
    for _, outer in altered(whole):
        path.write_text(json.dumps(outer))
        assert not reads_or_names(run.experiment, path) or outer["sessions"] == []
    for name, session in altered(whole["sessions"][0]):
        path.write_text(json.dumps(whole | {"sessions": [session]}))
        assert (
            not reads_or_names(run.experiment, path) or isinstance(session[name], str | int | dict) or name == "commit"
        )


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("evaluation.json", "nll", None),
        ("evaluation.json", "n", "5"),
        ("evaluation.json", "effective_samples_mean", float("nan")),
        ("interpolation.json", "graphs", None),
        ("interpolation.json", "smoothness", {"graph": {"mean": 1.0}}),
        ("interpolation.json", "smoothness", {"elsewhere": {"mean": 1.0, "sd": 0.0}}),
        ("experiment.json", "data_sha256", "0"),
        ("experiment.json", "sessions", [{}]),
        ("experiment.json", "colour", "red"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_file(copy, attempt, name, field, value):
    whole = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps(whole | {field: value}))
    err = attempt("report", copy)
    assert name in err or "log_likelihood.npy" in err
    if field in whole:
        (copy / name).write_text(json.dumps({key: value for key, value in whole.items() if key != field}))
        assert f"{field} is missing" in attempt("report", copy)


def test_an_evaluation_and_the_likelihoods_of_another_are_not_mixed_up(copy, vaepriors):
    """The page shows the evaluation, and a sentence in place of log p(x) of each example."""
    path, file = copy / "log_likelihood.npy", copy / "evaluation.json"
    values, whole = np.load(path), file.read_text()

    def has_examples():
        (record,) = read_records(Run(copy))
        return record.log_likelihood is not None

    def shows_examples():
        assert vaepriors("report", copy) == 0
        return "log p(x) of each example of evaluation.json is missing" not in (copy / "report.html").read_text()

    assert has_examples()
    assert shows_examples()
    for change in ({"n": 4}, {"log_likelihood_sha256": "0"}):
        file.write_text(json.dumps(json.loads(whole) | change))
        assert not has_examples()
    file.write_text(whole)
    np.save(path, values + 1)
    assert not has_examples()
    assert not shows_examples()
    path.unlink()
    assert not has_examples()


def test_every_field_of_a_result_is_checked(tmp_path, vaepriors, capsys):
    row = next(row for row in tables()["kth-1"].rows if row.home == ("kth-1", row.name))
    path = tmp_path / "kth-1" / f"{row.name}-0.json"
    path.parent.mkdir()
    session = {"hardware": "a CPU"}
    whole = {
        "seed": 0, "complete": True, "ended": "finished", "epochs": 3, "epochs_planned": 3, "hours": 0.5,
        "experiment": {"data": "digits"}, "sessions": [session],
        "found": {"n": 5, "nll": 1.0, "nll_se": 0.1, "elbo": -1.0,
        "bits_per_dim": 0.1},
    }  # fmt: skip
    show = ["reproduce", "show", "kth-1", "--results", tmp_path]
    path.write_text(json.dumps(whole))
    assert vaepriors(*show) == 0
    damaged = [json.dumps(outer).encode() for _, outer in altered(whole)]
    inner = altered(whole["found"], ["n", "nll", "nll_se"])
    damaged += [json.dumps(whole | {"found": numbers}).encode() for _, numbers in inner]
    for damage in NO_JSON + damaged:
        path.write_bytes(damage)
        reads_or_names(lambda: read_result(path, "nll"), path)
    capsys.readouterr()
    for damage in [*NO_JSON, *damaged[::13]]:
        path.write_bytes(damage)
        if vaepriors(*show):
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert path.name in err
        assert path.read_bytes() == damage


def flipped(path, place):
    """Flip a bit of a file: in the length of its header, the header's values or names, or the tensors."""
    file = bytearray(path.read_bytes())
    length = int.from_bytes(file[:8], "little")
    where = {
        "length": 0,
        "values": file.index(b'epoch\\"'),
        "digest": file.index(b'sha256\\": \\"') + 15,
        "owner": file.index(b'of\\": \\"') + 10,
        "names": file.index(b"weight"),
        "offsets": file.index(b"data_offsets") + 16,
        "first tensor": 8 + length,
        "last byte": -1,
    }
    file[where[place]] ^= 1
    path.write_bytes(file)


@pytest.mark.parametrize(
    "place", ["length", "values", "digest", "owner", "names", "offsets", "first tensor", "last byte"]
)
def test_one_flipped_bit_of_a_checkpoint_is_noticed(copy, attempt, place):
    for command, name in (("train", "last.ckpt"), ("evaluate", "best.ckpt")):
        whole = (copy / name).read_bytes()
        flipped(copy / name, place)
        err = attempt(command, copy)
        assert str(copy / name) in err
        (copy / name).write_bytes(whole)


@pytest.mark.parametrize("damage", NO_JSON[:1] + NO_JSON[6:7] + [b"\xff" * 100, b"cut"])
def test_a_checkpoint_of_other_bytes_is_named(copy, attempt, damage):
    for command, name in (("train", "last.ckpt"), ("sample", "best.ckpt")):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[:-1] if damage == b"cut" else damage)
        assert str(copy / name) in attempt(command, copy)
        (copy / name).write_bytes(whole)


def test_a_damaged_last_checkpoint_can_be_replaced_by_the_one_before_it(trained, copy, attempt, vaepriors):
    flipped(copy / "last.ckpt", "first tensor")
    err = attempt("train", copy)
    assert "resumes after epoch 2" in err
    assert "best.ckpt can still be used" in err
    assert vaepriors("evaluate", copy, *EVALUATE) == 0
    move, resume = (shlex.split(part) for part in re.search(r"(mv \S+ \S+) && (vaepriors .* --resume)", err).groups())
    subprocess.run(move, check=True)
    assert vaepriors(*resume[1:]) == 0
    assert_same_run(trained, copy)
    assert (copy / "previous.ckpt").is_file()


def test_a_damaged_best_model_is_written_again_from_the_last_checkpoint(trained, copy, attempt, vaepriors):
    flipped(copy / "best.ckpt", "first tensor")
    err = attempt("evaluate", copy)
    assert vaepriors(*shlex.split(re.search(r"vaepriors (train .* --resume)", err)[1])) == 0
    assert_same_run(trained, copy)


def test_a_lost_last_checkpoint_does_not_restart_the_run(trained, copy, attempt, vaepriors):
    (copy / "last.ckpt").unlink()
    err = attempt("train", copy)
    subprocess.run(shlex.split(re.search(r"mv \S+ \S+", err)[0]), check=True)
    assert vaepriors("train", "--resume", "--out", copy) == 0
    assert_same_run(trained, copy)


SEALED = {
    "no epoch": lambda tensors, values: values.pop("epoch"),
    "an unknown value": lambda tensors, values: values.update(colour=1),
    "an epoch in words": lambda tensors, values: values.update(epoch="three"),
    "no number": lambda tensors, values: values.update(loss=float("nan"), best_loss=float("nan")),
    "no tensors": lambda tensors, values: tensors.clear(),
    "another shape": lambda tensors, values: tensors.update({first(tensors): torch.zeros(1, 2, 3)}),
    "another type": lambda tensors, values: tensors.update({first(tensors): tensors[first(tensors)].double()}),
    "a tensor less": lambda tensors, values: tensors.pop(first(tensors)),
    "an unknown tensor of the model": lambda tensors, values: tensors.update({"model.a": torch.zeros(1)}),
}
SEALED_LAST = {
    "an unknown tensor": lambda tensors, values: tensors.update({"a": torch.zeros(1)}),
    "a parameter that is not there": lambda tensors, values: tensors.update({"optimizer.999.step": torch.zeros(())}),
    "a parameter in words": lambda tensors, values: tensors.update({"optimizer.one.step": torch.zeros(())}),
    "no moments": lambda tensors, values: tensors.pop("optimizer.0.exp_avg"),
    "moments of another shape": lambda tensors, values: tensors.update({"optimizer.0.exp_avg": torch.zeros(7, 7)}),
    "a best model with more": lambda tensors, values: tensors.update({"best.a": torch.zeros(1)}),
    "metrics in words": lambda tensors, values: tensors.update({"metrics.lines": torch.zeros(3)}),
    "no metrics": lambda tensors, values: tensors.pop("metrics.lines"),
    "metrics of other bytes": lambda tensors, values: tensors["metrics.lines"].fill_(255),
}


def first(tensors):
    return next(name for name in sorted(tensors) if name.startswith("model.") and tensors[name].dim())


@pytest.mark.parametrize("damage", [*SEALED, *SEALED_LAST])
def test_a_checkpoint_with_another_content_is_named(copy, attempt, damage):
    """Written as a checkpoint is, with its digest: by another version, say."""
    commands = {"last.ckpt": "train"} if damage in SEALED_LAST else {"last.ckpt": "train", "best.ckpt": "evaluate"}
    for name, command in commands.items():
        tensors, values = checkpoint.load(copy / name)
        (SEALED | SEALED_LAST)[damage](tensors, values)
        checkpoint.save(copy / name, tensors, values, of=checkpoint.owner(copy / name))
        assert str(copy / name) in attempt(command, copy)
        shutil.copy(copy / "previous.ckpt", copy / "last.ckpt")


EVALUATE_TRAIN = ["--split", "train", "--samples", "200", "--chunk", "200", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def evaluated_on_train(trained, tmp_path_factory, vaepriors):
    """log p(x) of the 23 training examples, more than a block of them."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("evaluated") / "run")
    assert vaepriors("evaluate", folder, *EVALUATE_TRAIN) == 0
    return np.load(folder / "log_likelihood-train.npy")


@pytest.mark.parametrize(
    "damage", ["empty", "other bytes", "a bit", "no field", "another shape", "too many", "another type", "no tensor"]
)
def test_a_damaged_partial_evaluation_is_set_aside(copy, evaluated_on_train, vaepriors, capsys, damage):
    path = copy / "evaluation-train.partial"
    with pytest.raises(Paused):
        evaluate_run(Run(copy), 200, "train", chunk=200, accelerator="cpu", until=0.0)
    tensors, values = checkpoint.load(path)
    wrong = {
        "another shape": torch.zeros(2, dtype=torch.float64),
        "too many": torch.zeros(5, 24, dtype=torch.float64),
        "another type": torch.zeros(5, 2),
    }
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "other bytes":
            path.write_bytes(bytes(range(256)))
        case "a bit":
            path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
        case "no field":
            checkpoint.save(path, tensors, {"same": values["same"]})
        case "no tensor":
            checkpoint.save(path, {}, values)
        case _:
            checkpoint.save(path, {"found": wrong[damage]}, values)
    damaged = path.read_bytes()
    assert vaepriors("evaluate", copy, *EVALUATE_TRAIN) == 0
    assert path.name in capsys.readouterr().err
    assert np.array_equal(np.load(copy / "log_likelihood-train.npy"), evaluated_on_train)
    assert not path.exists()
    assert (copy / f"{path.name}.damaged").read_bytes() == damaged


@pytest.mark.parametrize("damage", ["missing", "cut", "a line less", "garbled", "empty"])
def test_damaged_metrics_are_repaired_from_the_last_checkpoint(trained, copy, attempt, vaepriors, capsys, damage):
    path = copy / "metrics.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    damaged = {
        "cut": whole[:-40],
        "a line less": lines[0] + lines[2],
        "garbled": whole.replace(b'"loss"', b'"\xff"', 2),
    }
    path.write_bytes(damaged.get(damage, b""))
    if damage == "missing":
        path.unlink()
    if damage in ("a line less", "garbled"):
        assert str(path) in attempt("sample", copy)
    assert vaepriors("train", "--resume", "--out", copy) == 0
    assert f"{path} was damaged or missing" in capsys.readouterr().err
    assert path.read_bytes() == whole


# Mixed up


def test_checkpoints_without_their_experiment_are_not_adopted(copy, train, attempt, capsys):
    (copy / "experiment.json").unlink()
    for name in ("epoch-1.ckpt", "best.ckpt", "last.ckpt"):  # any of them
        before = content(copy)
        for options in ([], ["--resume"]):
            assert train(copy, *OPTIONS, *options) == 2
            err = capsys.readouterr().err
            assert "experiment.json" in err
            assert "another folder" in err
        assert content(copy) == before
        (copy / name).unlink()


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt", "epoch-1.ckpt"])
def test_a_checkpoint_of_another_experiment_is_refused(tmp_path, copy, train, attempt, name):
    assert train(tmp_path / "other", *OPTIONS, "--seed", "1") == 0
    shutil.copy(tmp_path / "other" / name, copy / name)
    assert str(copy / name) in attempt("train", copy)
    if name == "best.ckpt":
        assert str(copy / name) in attempt("evaluate", copy)


def test_fewer_epochs_than_there_are_change_nothing(trained, copy, attempt):
    err = attempt("train", copy, "--epochs", "2")
    assert "epochs is 2" in err
    assert "3 epochs" in err


def test_data_that_were_replaced_are_noticed(tmp_path, vaepriors, attempt):
    path, run = tmp_path / "mine.npy", tmp_path / "run"
    x = np.random.default_rng(0).random((30, 3))
    np.save(path, x)
    assert vaepriors("train", "--data", path, "--out", run, *TINY, "--epochs", "1") == 0
    x[-1, 0] += 1e-3
    np.save(path, x)
    for command in COMMANDS:
        err = attempt(command, run)
        assert str(path) in err
        assert "digest" in err
    with pytest.raises(ValueError, match="digest"):
        fit(Run(run).experiment(), load(str(path)), Run(run))


def test_data_that_were_moved_are_named_once_more(tmp_path, vaepriors, attempt):
    old, new, other, run = (tmp_path / name for name in ("mine.npy", "moved.npy", "other.npy", "run"))
    x = np.random.default_rng(0).random((30, 3))
    np.save(old, x)
    np.save(other, x + 1)
    assert vaepriors("train", "--data", old, "--out", run, *TINY, "--epochs", "1") == 0
    old.rename(new)
    assert f"--out {run} --resume --data PATH" in attempt("evaluate", run)
    assert f"{other} is not the data set" in attempt("train", run, "--data", other)
    assert "digits" in attempt("train", run, "--data", "digits")
    assert vaepriors("train", "--out", run, "--resume", "--data", new) == 0
    assert Run(run).experiment().data == str(new)
    assert vaepriors("evaluate", *EVALUATE, run) == 0


def test_data_that_are_computed_may_differ_in_bits(tmp_path, capsys):
    """Another processor may round the pendulum's images otherwise."""
    x = torch.rand(4, 3)
    one, other = (Dataset("pendulum", each, each, each, "gaussian") for each in (x, x + 1e-6))
    Run(tmp_path).write_settings(vars(Experiment(data="pendulum")), [], one.digest())
    Run(tmp_path).check_data(one)
    assert capsys.readouterr().err == ""
    Run(tmp_path).check_data(other)
    assert "pendulum" in capsys.readouterr().err


def test_a_digest_of_data_depends_on_all_that_is_trained_on():
    x, y = torch.eye(4)[:2], torch.eye(4)[2:]
    sets = [
        Dataset("a", x, y, y, "bernoulli"),
        Dataset("a", y, x, y, "bernoulli"),
        Dataset("a", x, y, x, "bernoulli"),
        Dataset("a", x, y, y, "gaussian"),
        Dataset("a", x, y, y, "bernoulli", dynamic=True),
        Dataset("a", *(each.reshape(2, 1, 2, 2) for each in (x, y, y)), "bernoulli"),
    ]
    assert len({each.digest() for each in sets}) == len(sets)
    assert Dataset("b", x, y, y, "bernoulli").digest() == sets[0].digest()


# In use

HOLD = """
import json, sys
from filelock import FileLock
with FileLock(sys.argv[1] + "/run.lock"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_use_is_left_alone(copy, attempt, vaepriors):
    command = [sys.executable, "-c", HOLD, copy]
    (copy / "run.holder").write_text(json.dumps({"pid": 4711, "host": "there"}))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        for command in COMMANDS:
            assert f"{copy} is in use by process 4711 on there" in attempt(command, copy)
        (copy / "run.holder").write_text("[")
        assert f"{copy} is in use by another process" in attempt("sample", copy)
        assert Run(copy).is_busy()
        process.stdin.close()
    assert not Run(copy).is_busy()
    assert vaepriors("sample", copy, "--number", "3") == 0
    assert not (copy / "run.holder").exists()


def test_a_process_takes_its_lock_again_and_another_thread_does_not(copy):
    outcomes = []

    def other():
        try:
            with Run(copy).lock():
                outcomes.append("taken")
        except Busy as error:
            outcomes.append(str(error))

    with Run(copy).lock(), Run(copy).lock():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"by process {os.getpid()}" in outcomes[0]
    other()
    assert outcomes[1] == "taken"


def test_a_lock_needs_a_run_or_makes_a_folder(tmp_path):
    with pytest.raises(ValueError, match="holds no run"), Run(tmp_path / "a").lock():
        pass
    assert not (tmp_path / "a").exists()
    with Run(tmp_path / "a").lock(create=True):
        assert (tmp_path / "a" / "run.lock").is_file()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_a_warning(copy, vaepriors, entries, capsys, number):
    def acquire(timeout):
        raise OSError(number, os.strerror(number))

    entries(LOCKS, {(copy / "run.lock").resolve(): SimpleNamespace(is_locked=False, acquire=acquire)})
    assert vaepriors("sample", copy, "--number", "3") == 0
    assert f"{copy} cannot be locked" in capsys.readouterr().err


# Written


def test_a_file_is_new_of_the_usual_mode_and_follows_no_link(tmp_path):
    before = os.umask(0o027)
    try:
        checkpoint.write_atomically(tmp_path / "a", b"a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert len({checkpoint.partial_of(tmp_path / "a") for _ in range(100)}) == 100


def test_only_own_leftovers_are_swept(tmp_path):
    own = [".best.ckpt.0123456789abcdef.partial", ".a.json.aaaaaaaaaaaaaaaa.partial"]
    others = [".a.partial", "a.0123456789abcdef.partial", ".best.ckpt.0123456789ABCDEF.partial", "evaluation.partial"]
    for name in own + others:
        (tmp_path / name).write_bytes(b"")
    checkpoint.sweep(tmp_path, "a.json")
    assert sorted(os.listdir(tmp_path)) == sorted([own[0], *others])
    checkpoint.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    checkpoint.sweep(tmp_path / "nowhere")


def test_samples_are_whole_or_as_before(copy, vaepriors):
    assert vaepriors("sample", copy, "--number", "3") == 0
    before = content(copy)
    with largest_file(4000):
        assert vaepriors("sample", copy, "--number", "100") == 1
    assert content(copy) == before


def test_a_json_file_is_read_with_the_fields_that_it_names(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2]}')
    assert read_json(tmp_path / "a.json", dict[str, list[int]], "restore it") == {"a": [1, 2]}
    (tmp_path / "a.json").write_text('{"a": true}')
    with pytest.raises(ValueError, match=r"a\.json .* a is True, not of type float; restore it"):
        read_json(tmp_path / "a.json", dict[str, float], "restore it")
