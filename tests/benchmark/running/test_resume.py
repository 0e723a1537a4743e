"""A run that is killed keeps what it measured, and the same command completes it."""

from __future__ import annotations

import os
import random
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import psutil
import pytest

ROUNDS, TRIALS = 60, 6  # in two modes a pairing, the baseline and its control
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
    """Start a run, send it a signal once some of it is measured, and check that nothing that it started outlives it."""
    process = start(store)
    deadline = time.monotonic() + 300
    while count_of_samples(store) < 10 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(sent)
    out, err = process.communicate(timeout=300)
    assert len(family) >= 2, err  # the one that imports, and its fork that works
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert 0 < count_of_samples(store) < ROUNDS * TRIALS, err
    return process.returncode, out, err


def check_that_every_trial_is_measured_once(store, rounds=ROUNDS):
    per_trial = select(store, "SELECT count(*), count(DISTINCT round), min(round), max(round) FROM sample GROUP BY run, trial")
    assert per_trial == [(rounds, rounds, 0, rounds - 1)] * TRIALS
    assert select(store, "SELECT count(*), count(finished) FROM run") == [(1, 1)]
    assert select(store, "SELECT stopped FROM trial_group") == [("fixed",)] * 2
    assert select(store, "SELECT count(*) FROM trial WHERE error IS NOT NULL") == [(0,)]
    assert select(store, "PRAGMA integrity_check") == [("ok",)]
    assert select(store, "PRAGMA foreign_key_check") == []


def test_a_kill_ends_the_processes_that_measure_and_keeps_what_they_measured_and_the_rest_is_completed(store):
    status, _, _ = stopped_halfway(store, signal.SIGKILL)
    assert status == -signal.SIGKILL
    everything = "SELECT rowid, * FROM sample ORDER BY rowid"
    before = select(store, everything)

    process = start(store)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Resuming run 1" in " ".join(err.split())
    assert f"{len(before) // 3} rounds are measured" in " ".join(err.split())
    assert "resnet18 x unet-basic" in out
    assert select(store, everything)[: len(before)] == before
    check_that_every_trial_is_measured_once(store)


@pytest.mark.slow
def test_ten_kills_at_random_moments_lose_nothing_and_double_nothing(store):
    rounds, moments = 2000, random.Random(5)  # more than are measured until the last kill, however quick the machine
    store.with_name("run.yaml").write_text(CONFIG.replace(f"rounds: {ROUNDS}", f"rounds: {rounds}"), encoding="utf-8")
    for _ in range(10):
        process = start(store)
        time.sleep(moments.uniform(1, 14))
        assert process.poll() is None, "it had ended by itself: a run that is complete is not gone on with"
        process.kill()
        process.communicate(timeout=300)
        assert not store.exists() or select(store, "PRAGMA integrity_check") == [("ok",)]
    process = start(store)
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    check_that_every_trial_is_measured_once(store, rounds)


@pytest.mark.slow
def test_an_interrupted_run_says_that_the_same_command_goes_on(store):
    status, _, err = stopped_halfway(store, signal.SIGINT)
    assert status == 130
    assert "Traceback" not in err
    assert "The measurements so far are kept" in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on a file's size")
def test_a_disk_that_is_full_is_told_and_what_was_kept_goes_on_once_there_is_room(store):
    """A limit on the size of files stands for the full disk: writing fails in the same place."""
    command = "ulimit -f 160; exec " + shlex.join(map(str, [sys.executable, "-m", "zoo", "bench", store.with_name("run.yaml")]))
    full = subprocess.run(
        ["bash", "-c", f"{command} --store {shlex.quote(str(store))}"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert full.returncode == 2, full.stderr
    assert f"The results store {store} cannot be used" in " ".join(full.stderr.split())
    assert "Traceback" not in full.stderr
    assert select(store, "PRAGMA integrity_check") == [("ok",)]
    assert 0 < count_of_samples(store) < ROUNDS * TRIALS
    process = start(store)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    check_that_every_trial_is_measured_once(store)
