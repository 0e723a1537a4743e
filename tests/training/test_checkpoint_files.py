"""A run's checkpoints: whole, finite, and never lost to a kill, a full disk or a divergence."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from squares import READS, are_equal, squares, train_squares, weights
from torch import nn

import zoo
from zoo.training.loop.checkpoint_files import check_weights

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's own, on import
]
SETTINGS = {"steps": 60, "batch": 2, "validations": 3}
OTHER_FILE_SYSTEM = Path("/dev/shm")


@contextmanager
def files_of_at_most(size):
    """Let the system refuse larger files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Return the folder of a run that was cut off after its first checkpoint."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(zoo.errors.DataError, match=r"sample \d+ cannot be read: OSError: the disk is gone"):
        train_squares(folder, squares(broken_at=READS + 58), **SETTINGS)
    assert (folder / "last.ckpt").is_file()
    return folder


@pytest.fixture
def cut(interrupted, tmp_path):
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


def test_a_full_disk_leaves_the_checkpoint_before_and_says_what_to_do(cut):
    before = (cut / "last.ckpt").read_bytes()
    with files_of_at_most(100_000), pytest.raises(zoo.ZooError, match=r"cannot be written: .*The previous checkpoint is kept"):
        train_squares(cut, **SETTINGS)
    assert (cut / "last.ckpt").read_bytes() == before
    assert [path for path in cut.rglob(".*") if path.is_file()] == []
    assert train_squares(cut, **SETTINGS).steps == 60


@pytest.mark.parametrize("left", [0, 1000])
def test_a_damaged_checkpoint_is_reported_with_what_to_do(cut, left):
    path = cut / "last.ckpt"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(zoo.ZooError, match=r"last\.ckpt is damaged \(.+\)\. Without it, the run cannot be resumed\. Restore"):
        train_squares(cut, **SETTINGS)


def test_a_damaged_best_checkpoint_is_reported_before_the_test(tmp_path):
    train_squares(tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    (tmp_path / "run/best.ckpt").write_bytes(b"")
    with pytest.raises(zoo.ZooError, match=r"best\.ckpt is damaged"):
        train_squares(tmp_path / "run")


def test_a_training_that_diverges_is_an_error_and_no_checkpoint_holds_nan(tmp_path):
    with pytest.raises(zoo.ZooError, match=r"(NaN or infinity).*lower\s+learning_rate"):
        train_squares(tmp_path / "run", learning_rate=1e30, steps=60, validations=3)
    for path in (tmp_path / "run").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in state.values())
    assert not (tmp_path / "run/result.json").exists()


@pytest.mark.parametrize("name", ["settings.json", "result.json"])
@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_damaged_file_of_a_run_is_an_error_that_names_it(tmp_path, name, content):
    train_squares(tmp_path / "run", steps=2, validations=0)
    (tmp_path / "run" / name).write_text(content, encoding="utf-8")
    with pytest.raises(
        zoo.errors.ConfigError, match=r"result\.json is damaged|settings\.json is damaged|run with other settings"
    ):
        train_squares(tmp_path / "run", steps=2, validations=0)


QUICK = {"steps": 2, "batch": 4, "validations": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folders of two finished runs, of one seed each."""
    folder = tmp_path_factory.mktemp("finished")
    for seed in (0, 1):
        train_squares(folder / str(seed), seed=seed, **QUICK)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished / "0", tmp_path / "run"))


def put_json(name, **changes):
    def spoil(folder, _):
        facts = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(facts | changes), encoding="utf-8")

    return spoil


def put(name, content):
    return lambda folder, _: (folder / name).write_bytes(content)


def put_other(name):
    return lambda folder, finished: shutil.copy(finished / "1" / name, folder / name)


def put_checkpoint(name, change):
    def spoil(folder, _):
        found = torch.load(folder / name, weights_only=True)
        change(found)
        torch.save(found, folder / name)

    return spoil


def put_pipe(name):
    def spoil(folder, _):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return spoil


SCORES = {"miou": 0.5, "dice": 0.5, "accuracy": 0.5, "iou": [0.5, 0.5], "pixels": 9}
SPOILED = {
    "best missing": (
        lambda folder, _: (folder / "best.ckpt").unlink(),
        r"best\.ckpt is missing\. .* Restore the file, or remove",
    ),
    "best empty": (put("best.ckpt", b""), r"best\.ckpt is damaged \(EOFError\)"),
    "best cut": (lambda folder, _: os.truncate(folder / "best.ckpt", 9999), r"best\.ckpt is damaged"),
    "best a pipe": (put_pipe("best.ckpt"), r"best\.ckpt is not a regular file"),
    "best of another run": (put_other("best.ckpt"), r"best\.ckpt is not a checkpoint of this run"),
    "best of another program": (put_checkpoint("best.ckpt", lambda found: found.pop("zoo")), "is not a checkpoint of this run"),
    "result of another run": (put_other("result.json"), r"result\.json is damaged \(it belongs to another run\)"),
    "result of an earlier version": (
        put_json("result.json", run=None),
        r"result\.json was written by an earlier version of zoo",
    ),
    "result deep": (put("result.json", b"[" * 200_000), r"result\.json is damaged \(ValueError: nested too deeply\)"),
    "result a list": (put("result.json", b"[]"), r"result\.json is damaged \(ValueError: a list instead of"),
    "result a pipe": (put_pipe("result.json"), r"result\.json is damaged"),
    "miou NaN": (
        put_json("result.json", test=SCORES | {"miou": float("nan")}),
        r"(?s)result\.json is damaged.*test\.miou: .*finite",
    ),
    "miou 7": (put_json("result.json", test=SCORES | {"miou": 7.0}), r"(?s)result\.json is damaged.*test\.miou: .*found 7"),
    "iou below 0": (put_json("result.json", test=SCORES | {"iou": [0.5, -1]}), r"(?s)result\.json is damaged.*test\.iou\.1"),
    "iou of others": (put_json("result.json", test=SCORES | {"iou": [0.5] * 5}), "damaged .5 scores for 2 classes"),
    "steps text": (put_json("result.json", steps="9"), r"(?s)result\.json is damaged.*steps: "),
    "tested elsewhere": (put_json("result.json", tested="../x"), r"(?s)result\.json is damaged.*tested: "),
    "settings deep": (put("settings.json", b'{"a":' * 200_000), r"settings\.json is damaged \(ValueError: nested too deeply\)"),
    "settings null": (put("settings.json", b"null"), r"settings\.json is damaged"),
    "data deep": (put("data.json", b"[" * 200_000), r"data\.json is damaged \(ValueError: nested too deeply\)"),
    "data a number": (put("data.json", b"7"), r"data\.json is damaged"),
    "data of numbers": (put_json("data.json", contents={"a": 1}), r"data\.json is damaged \(ValueError: the values of"),
    "data of lists": (put_json("data.json", scans=[1]), r"data\.json is damaged"),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILED.values(), ids=SPOILED)
def test_a_finished_run_with_a_file_that_is_not_its_own_is_an_error_that_names_it(copied, finished, spoil, words):
    spoil(copied, finished)
    with pytest.raises(zoo.ZooError, match=words):
        train_squares(copied, **QUICK)


def with_weight(value):
    return lambda found: found["state_dict"]["model.head.weight"].fill_(value)


UNFIT = {
    "of another run": (put_other("last.ckpt"), r"last\.ckpt is not a checkpoint of this run"),
    "missing": (lambda folder, _: (folder / "last.ckpt").unlink(), r"last\.ckpt is missing"),
    "NaN": (put_checkpoint("last.ckpt", with_weight(float("nan"))), r"last\.ckpt: model\.head\.weight contains NaN"),
    "infinite variance": (
        put_checkpoint(
            "best.ckpt", lambda found: found["state_dict"]["model.encoder.network.bn1.running_var"].fill_(torch.inf)
        ),
        r"best\.ckpt: .*running_var contains NaN or infinity",
    ),
    "a weight too few": (
        put_checkpoint("last.ckpt", lambda found: found["state_dict"].pop("model.head.weight")),
        r"last\.ckpt is damaged \(its tensor model\.head\.weight is not the model's\)",
    ),
    "no optimizer": (put_checkpoint("last.ckpt", lambda found: found.pop("optimizer_states")), r"last\.ckpt is damaged"),
    "steps below 0": (put_checkpoint("last.ckpt", lambda found: found.update(global_step=-5)), "damaged .-5 of 2 steps"),
    "steps without end": (put_checkpoint("last.ckpt", lambda found: found.update(global_step=10**9)), "1000000000 of 2 steps"),
    "steps NaN": (put_checkpoint("last.ckpt", lambda found: found.update(global_step=float("nan"))), r"last\.ckpt is damaged"),
    "the log a file": (
        lambda folder, _: (shutil.rmtree(folder / "log"), (folder / "log").write_text("x")),
        r"log cannot be written: File exists",
    ),
}


@pytest.mark.parametrize(("spoil", "words"), UNFIT.values(), ids=UNFIT)
def test_a_run_does_not_go_on_from_what_is_not_its_own(copied, finished, spoil, words):
    (copied / "result.json").unlink()
    spoil(copied, finished)
    with pytest.raises(zoo.ZooError, match=words):
        train_squares(copied, **QUICK)


def test_a_run_whose_last_checkpoint_is_gone_says_that_it_begins_again(cut, caplog):
    (cut / "last.ckpt").unlink()
    assert train_squares(cut, **SETTINGS).steps == 60
    assert "last.ckpt is missing: the run begins again with its first step" in caplog.text


def test_a_run_that_goes_on_does_not_say_that_it_begins_again(cut, caplog):
    train_squares(cut, **SETTINGS)
    assert "begins again" not in caplog.text


def test_a_best_checkpoint_that_is_gone_is_reported_before_the_run_goes_on(cut):
    (cut / "best.ckpt").unlink()
    data = squares()
    with pytest.raises(zoo.ZooError, match=r"best\.ckpt is missing"):
        train_squares(cut, data, **SETTINGS)
    assert data.train.taken == READS  # for the fingerprint alone


def test_infinity_in_a_buffer_is_no_divergence_and_nan_there_is():
    model = nn.BatchNorm2d(2)
    model.register_buffer("attention_mask", torch.tensor([0.0, -torch.inf]))
    check_weights(model, 1, 1e-3)
    model.running_mean[0] = torch.nan
    with pytest.raises(zoo.ZooError, match="Training diverged: a weight holds NaN or infinity after step 1"):
        check_weights(model, 1, 1e-3)


TRAIN = """
import sys
sys.path.insert(0, sys.argv[2])
from squares import train_squares
train_squares(__import__("pathlib").Path(sys.argv[1]), steps=60, batch=2, validations=3)
"""


@pytest.mark.slow
@pytest.mark.skipif(not OTHER_FILE_SYSTEM.is_dir(), reason="needs a second file system")
def test_kills_with_the_output_on_another_file_system_lose_no_checkpoint(tmp_path):
    """Lightning's own writer copies over the old file there, since the temporary folder is on another file system."""
    whole = train_squares(tmp_path / "whole", **SETTINGS)
    draw = random.Random(0)
    with tempfile.TemporaryDirectory(dir=OTHER_FILE_SYSTEM) as place:
        folder = Path(place, "run")
        command = [sys.executable, "-c", TRAIN, str(folder), str(Path(__file__).parents[1] / "support")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        for _ in range(10):
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)
            time.sleep(draw.uniform(4, 12))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            for path in folder.glob("*.ckpt"):
                assert torch.load(path, weights_only=True)["global_step"] > 0
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert are_equal(weights(tmp_path / "whole"), weights(folder))
        assert zoo.load(folder / "best.ckpt")
    assert whole.steps == 60
