"""A run's checkpoints: whole, finite, and never lost to a kill, a full disk or a divergence."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_train import READS, are_equal, squares, trained, weights
from torch import nn

import zoo
from zoo.training.checkpoint_files import check_weights

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


@pytest.fixture
def cut(tmp_path):
    """Return the folder of a run that was cut off after its first checkpoint."""
    with pytest.raises(OSError, match="the disk is gone"):
        trained(tmp_path / "run", squares(broken_at=READS + 58), **SETTINGS)
    assert (tmp_path / "run/last.ckpt").is_file()
    return tmp_path / "run"


def test_a_full_disk_leaves_the_checkpoint_before_and_says_what_to_do(cut):
    before = (cut / "last.ckpt").read_bytes()
    with files_of_at_most(100_000), pytest.raises(zoo.ZooError, match=r"cannot be written: .*The checkpoint before it is kept"):
        trained(cut, **SETTINGS)
    assert (cut / "last.ckpt").read_bytes() == before
    assert [path for path in cut.rglob(".*") if path.is_file()] == []
    assert trained(cut, **SETTINGS).steps == 60


@pytest.mark.parametrize("left", [0, 1000])
def test_a_damaged_checkpoint_is_reported_with_what_to_do(cut, left):
    path = cut / "last.ckpt"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(zoo.ZooError, match=r"last\.ckpt is damaged \(.+\), and the run cannot go on without it\. Restore"):
        trained(cut, **SETTINGS)


def test_a_damaged_best_checkpoint_is_reported_before_the_test(tmp_path):
    trained(tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    (tmp_path / "run/best.ckpt").write_bytes(b"")
    with pytest.raises(zoo.ZooError, match=r"best\.ckpt is damaged"):
        trained(tmp_path / "run")


def test_a_training_that_diverges_is_an_error_and_no_checkpoint_holds_nan(tmp_path):
    with pytest.raises(zoo.ZooError, match=r"(NaN or infinity).*lower\s+learning_rate"):
        trained(tmp_path / "run", learning_rate=1e30, steps=60, validations=3)
    for path in (tmp_path / "run").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in state.values())
    assert not (tmp_path / "run/result.json").exists()


@pytest.mark.parametrize("name", ["settings.json", "result.json"])
@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_damaged_file_of_a_run_is_an_error_that_names_it(tmp_path, name, content):
    trained(tmp_path / "run", steps=2, validations=0)
    (tmp_path / "run" / name).write_text(content, encoding="utf-8")
    with pytest.raises(zoo.ConfigError, match=r"result\.json is damaged|settings\.json is damaged|run of other settings"):
        trained(tmp_path / "run", steps=2, validations=0)


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
from test_train import trained
trained(__import__("pathlib").Path(sys.argv[1]), steps=60, batch=2, validations=3)
"""


@pytest.mark.slow
@pytest.mark.skipif(not OTHER_FILE_SYSTEM.is_dir(), reason="needs a second file system")
def test_kills_with_the_output_on_another_file_system_lose_no_checkpoint(tmp_path):
    """Lightning's own writer copies over the old file there, since the temporary folder is on another file system."""
    whole = trained(tmp_path / "whole", **SETTINGS)
    draw = random.Random(0)
    with tempfile.TemporaryDirectory(dir=OTHER_FILE_SYSTEM) as place:
        folder = Path(place, "run")
        command = [sys.executable, "-c", TRAIN, str(folder), str(Path(__file__).parent)]
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
