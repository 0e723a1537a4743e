"""A run that is killed keeps what it measured, and the same command completes it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

ROUNDS, TRIALS = 100, 4
CONFIG = f"""
name: interrupted
pairings:
  - {{encoder: resnet18, decoder: unet-basic, levels: 2}}
baseline: {{name: conv, factory: "torch.nn:Conv2d", options: {{in_channels: 3, out_channels: 1, kernel_size: 1}}}}
size: [64]
device: cpu
rounds: {ROUNDS}
"""


@pytest.fixture
def store(tmp_path):
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path / "store.sqlite"


def start(store):
    command = [sys.executable, "-m", "zoo", "bench", store.with_name("run.yaml"), "--store", store]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, env=environment, preexec_fn=_heed_interrupts)


def _heed_interrupts():
    """A shell that runs the tests in the background has them, and what they start, ignore an interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def select(store, query):
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=60)) as database:
        return database.execute(query).fetchall()


def count_of_samples(store):
    try:
        return select(store, "SELECT count(*) FROM sample")[0][0]
    except sqlite3.OperationalError:
        return 0


def stopped_halfway(store, sent):
    """Start a run, send it a signal once some of it is measured, and return it when it has ended."""
    process = start(store)
    deadline = time.monotonic() + 300
    while count_of_samples(store) < 10 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(sent)
    out, err = process.communicate(timeout=300)
    assert 0 < count_of_samples(store) < ROUNDS * TRIALS, err
    return process.returncode, out, err


def test_what_was_measured_before_a_kill_is_kept_and_the_rest_is_completed(store):
    status, _, _ = stopped_halfway(store, signal.SIGKILL)
    assert status == -signal.SIGKILL
    everything = "SELECT rowid, * FROM sample ORDER BY rowid"
    before = select(store, everything)

    process = start(store)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Resuming run 1" in " ".join(err.split())
    assert f"{len(before)} of {ROUNDS * TRIALS}" in " ".join(err.split())
    assert "resnet18 x unet-basic" in out

    after = select(store, everything)
    assert after[: len(before)] == before
    assert len(after) == ROUNDS * TRIALS
    per_trial = select(store, "SELECT count(*), count(DISTINCT round), min(round), max(round) FROM sample GROUP BY run, trial")
    assert per_trial == [(ROUNDS, ROUNDS, 0, ROUNDS - 1)] * TRIALS
    assert select(store, "SELECT count(*), count(finished) FROM run") == [(1, 1)]
    assert select(store, "PRAGMA integrity_check") == [("ok",)]


def test_an_interrupted_run_says_that_the_same_command_goes_on(store):
    status, _, err = stopped_halfway(store, signal.SIGINT)
    assert status == 130
    assert "Traceback" not in err
    assert "What was measured is kept" in err
