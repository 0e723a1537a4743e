"""The results store: what is written stays, runs resume only where they may, and a broken file is told."""

from __future__ import annotations

import os
import random
import socket
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from made_stores import ENVIRONMENT

import zoo
from zoo.benchmark.messages import (
    ColdStart,
    Failure,
    KernelRate,
    Round,
    Sample,
    StaticCost,
    Timing,
)
from zoo.benchmark.operation import Operation, OperationTime, OperationTimes
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import Trial

FACTS = {"batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3}
BASIC, BILINEAR, STRANGER = (
    Trial(subject=zoo.Pairing("resnet18", decoder), mode="inference", **FACTS)
    for decoder in ("unet-basic", "unet-bilinear", "not-in-the-run")
)
CONFIG = {"name": "small", "rounds": 20}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results/store.sqlite"


@pytest.fixture
def store(path):
    with closing(Store(path)) as opened:
        yield opened


def begin(store, config=CONFIG, environment=ENVIRONMENT):
    """Start or resume a run, with one group of its two trials."""
    run = store.start_run("small", config, environment, [BASIC, BILINEAR])
    if not store.groups(run.id):
        store.add_groups(run.id, [[BASIC.key, BILINEAR.key]])
    return run


def add_round(store, run, number, seconds, *trials, environment=ENVIRONMENT, group=0):
    samples = tuple(
        Sample(trial=trial.key, slot=slot, calls=3, seconds=seconds, busy_seconds=2 * seconds)
        for slot, trial in enumerate(trials)
    )
    id = store.environment_id(run, environment)
    store.add_round(run, group, id, Round(number=number, samples=samples, conditions={"load": 0.5}))


def seconds_of(store, run, group=0):
    """Return what the rounds of a group took, by trial."""
    found = store.groups(run)[group].samples
    return [{number: taken.seconds for number, taken in found.get(trial.key, {}).items()} for trial in (BASIC, BILINEAR)]


def started(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def set_owner(path, owner):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE run SET owner = ?", (owner,))


def test_what_was_written_is_there_after_reopening(path):
    cost = StaticCost(parameters=3, flops=5, live_bytes=7, step_flops=15, parts={"encoder": 2, "head": 1}, plan={"maps": ["a"]})
    norm = OperationTime(operation=Operation(kind="norm", bytes=11, width=3, positions=4), calls=2, seconds=0.5)
    times = OperationTimes(trial=BASIC.key, seconds=1.5, operations=(norm,))
    cold_start = ColdStart(trial=BASIC.key, batch=1, build_seconds=0.5, first_seconds=0.25, seconds=0.125, rss_bytes=11)
    with closing(Store(path)) as store:
        run = begin(store).id
        store.add_cost(run, BASIC.key, cost)
        store.add_cold_start(run, cold_start)
        store.add_operation_times(run, times)
        store.add_smaller_batch(run, ColdStart(trial=BILINEAR.key, batch=2, build_seconds=1, first_seconds=1, seconds=1))
        add_round(store, run, 0, 0.25, BASIC, BILINEAR)
        add_round(store, run, 1, 0.5, BASIC)
        store.add_failure(run, Failure(trial=BILINEAR.key, kind="crash", error="ValueError: of its own"))
        store.add_note(run, BASIC.key, "noted")
        store.add_note(run, BASIC.key, "noted")
        store.add_rate(
            run, store.environment_id(run, ENVIRONMENT), KernelRate(kernel="product", dtype="float32", flops_per_second=1e9)
        )
        store.add_rate(
            run, store.environment_id(run, ENVIRONMENT), KernelRate(kernel="convolution", dtype="float32", flops_per_second=2e9)
        )
        store.stop_group(run, 0, store.environment_id(run, ENVIRONMENT), "precise")
    with closing(Store(path)) as store:
        basic, bilinear = store.trials(run)
        assert (basic.key, basic.cost, basic.error, basic.notes) == (BASIC.key, cost, None, ("noted",))
        assert (basic.cold_start, basic.operation_times, basic.trial) == (cold_start, times, BASIC)
        assert (bilinear.error, bilinear.failure, bilinear.cost) == ("ValueError: of its own", "crash", None)
        assert bilinear.smaller_batch.batch == 2
        (group,) = store.groups(run)
        assert group.samples[BASIC.key] == {
            0: Timing(seconds=0.25, busy_seconds=0.5),
            1: Timing(seconds=0.5, busy_seconds=1.0),
        }
        assert seconds_of(store, run)[1] == {0: 0.25}
        assert (group.stopped, group.rounds, group.environment) == ("precise", 2, ENVIRONMENT)
        assert group.conditions == ({"load": 0.5}, {"load": 0.5})
        assert store.rates(run) == {
            (group.environment_id, "float32"): KernelRate(kernel="convolution", dtype="float32", flops_per_second=2e9)
        }
        found = store.run(run)
        assert (found.name, found.config, found.environment, found.finished) == ("small", CONFIG, ENVIRONMENT, None)
        assert [found.id for found in store.runs()] == [run]


def test_each_write_is_seen_by_another_reader_at_once(store, path):
    run = begin(store).id
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        for number in range(3):
            add_round(store, run, number, 0.1, BASIC, BILINEAR)
            assert reader.execute("SELECT count(*) FROM sample").fetchone() == (2 * (number + 1),)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_unfinished_run_goes_on_where_it_was(path):
    with closing(Store(path)) as store:
        first = begin(store)
        add_round(store, first.id, 0, 0.1, BASIC, BILINEAR)
    with closing(Store(path)) as store:
        again = begin(store)
        assert (first.is_resumed, again.is_resumed, again.id) == (False, True, first.id)
        assert seconds_of(store, again.id) == [{0: 0.1}, {0: 0.1}]


def test_of_rounds_measured_in_two_environments_those_of_one_count(store):
    run, elsewhere = begin(store).id, ENVIRONMENT | {"processor": "another"}
    for number in range(3):
        add_round(store, run, number, 0.1, BASIC, BILINEAR, environment=elsewhere)
    for number in range(2):
        add_round(store, run, number, 0.7, BASIC, BILINEAR)
    assert seconds_of(store, run)[0] == {0: 0.1, 1: 0.1, 2: 0.1}
    assert store.groups(run)[0].environment == elsewhere
    store.stop_group(run, 0, store.environment_id(run, ENVIRONMENT), "budget")
    assert seconds_of(store, run)[0] == {0: 0.7, 1: 0.7}


def test_a_group_can_be_split_all_or_nothing(store):
    run = begin(store).id
    store.replace_group(run, 0, [[BASIC.key], [BILINEAR.key]])
    assert [(group.number, group.trials) for group in store.groups(run)] == [(0, (BASIC.key,)), (1, (BILINEAR.key,))]


@pytest.mark.parametrize(
    ("config", "environment"),
    [({**CONFIG, "rounds": 40}, ENVIRONMENT), (CONFIG, ENVIRONMENT | {"device": "cuda"})],
    ids=["config", "environment"],
)
def test_another_configuration_or_environment_starts_a_new_run(store, config, environment):
    first, other = begin(store), begin(store, config, environment)
    assert not other.is_resumed
    assert other.id != first.id
    assert begin(store).id == first.id


def test_a_finished_run_is_followed_by_a_new_one(store):
    first = begin(store).id
    store.finish_run(first)
    second = begin(store)
    assert not second.is_resumed
    assert second.id != first
    assert store.run(first).finished is not None


def test_a_run_of_a_living_process_is_left_to_it_and_goes_on_once_that_is_dead(store, path):
    first = begin(store).id
    other = subprocess.Popen(["sleep", "600"])
    try:
        set_owner(path, f"{socket.gethostname()}:{other.pid}:{started(other.pid)}")
        second = begin(store)
        assert not second.is_resumed
        assert second.id != first
        store.finish_run(second.id)
    finally:
        other.kill()
        other.wait()
    third = begin(store)
    assert (third.id, third.is_resumed) == (first, True)


def test_a_run_of_another_machine_is_taken_to_be_gone(store, path):
    first = begin(store).id
    set_owner(path, f"elsewhere.example:{os.getppid()}:{started(os.getppid())}")
    assert begin(store).id == first


def test_a_round_that_cannot_be_kept_whole_leaves_nothing(store, path):
    run = begin(store).id
    with pytest.raises(zoo.errors.StoreError):
        add_round(store, run, 0, 0.1, BASIC, STRANGER)
    assert (seconds_of(store, run), store.groups(run)[0].rounds) == ([{}, {}], 0)
    add_round(store, run, 0, 0.2, BASIC, BILINEAR)
    with pytest.raises(zoo.errors.StoreError):
        add_round(store, run, 0, 0.9, BILINEAR, BASIC)
    assert seconds_of(store, run) == [{0: 0.2}, {0: 0.2}]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_store_that_must_be_there_is_not_made(tmp_path):
    with pytest.raises(zoo.errors.StoreError, match="zoo bench"):
        Store(tmp_path / "absent.sqlite", must_exist=True)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_there_is_told(store):
    with pytest.raises(zoo.errors.StoreError, match="no run 7"):
        store.run(7)


@pytest.mark.parametrize("version", [1, 999])
def test_a_store_of_another_version_is_refused_and_left_as_it_is(store, path, version):
    store.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(
        zoo.errors.StoreError, match=f"another version.*version {version},.*into a new file with --store"
    ) as caught:
        Store(path)
    assert str(path) in str(caught.value)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (version,)


def test_a_file_that_is_no_database_is_told_and_left_as_it_is(tmp_path):
    path = tmp_path / "noise.sqlite"
    noise = random.Random(0).randbytes(8192)
    path.write_bytes(noise)
    with pytest.raises(zoo.errors.StoreError, match=r"noise\.sqlite") as caught:
        Store(path)
    assert "--store" in str(caught.value)
    assert path.read_bytes() == noise


def test_a_folder_or_a_path_under_a_file_is_no_store(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for path in (tmp_path, file / "store.sqlite"):
        with pytest.raises(zoo.errors.StoreError) as caught:
            Store(path)
        assert str(path) in str(caught.value)


def test_a_database_of_another_program_is_not_written_into(tmp_path):
    path = tmp_path / "theirs.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE photo (id INTEGER)")
    with pytest.raises(zoo.errors.StoreError, match=r"theirs\.sqlite"):
        Store(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("photo",)]


def test_many_may_open_one_new_store_at_once(tmp_path):
    def opened(path, number):
        with closing(Store(path)) as store:
            return begin(store, config={"number": number}).id

    with ThreadPoolExecutor(16) as pool:
        for turn in range(20):
            path = tmp_path / f"{turn}.sqlite"
            assert sorted(pool.map(partial(opened, path), range(16))) == list(range(1, 17))


def test_a_process_that_only_has_the_number_of_the_one_that_measured_is_not_taken_for_it(store, path):
    first = begin(store).id
    set_owner(path, f"{socket.gethostname()}:{os.getppid()}:1")
    assert begin(store).id == first
