"""The results store: what is written stays, runs resume only where they may, and a broken file is told."""

from __future__ import annotations

import os
import random
import socket
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

import zoo
from zoo.benchmark.cost import StaticCost
from zoo.benchmark.measure import Failure, Sample
from zoo.benchmark.store import Store
from zoo.benchmark.trial import Trial

FACTS = {"batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3}
BASIC, BILINEAR, STRANGER = (
    Trial(subject=zoo.Pairing("resnet18", decoder), mode="inference", **FACTS)
    for decoder in ("unet-basic", "unet-bilinear", "not-in-the-run")
)
CONFIG = {"name": "small", "rounds": 20}
ENVIRONMENT = {"device": "cpu"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results/store.sqlite"


@pytest.fixture
def store(path):
    with closing(Store(path)) as opened:
        yield opened


def begin(store, config=CONFIG, environment=ENVIRONMENT):
    return store.start_run("small", config, environment, [BASIC, BILINEAR])


def samples_of(seconds, *trials):
    return [Sample(trial=trial, slot=slot, calls=3, seconds=seconds) for slot, trial in enumerate(trials)]


def started(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def set_owner(path, owner):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE run SET owner = ?", (owner,))


def test_what_was_written_is_there_after_reopening(path):
    cost = StaticCost(parameters=3, flops=5, live_bytes=7)
    with closing(Store(path)) as store:
        run = begin(store).id
        store.add_cost(run, BASIC, cost)
        store.add_device_bytes(run, BASIC, 11)
        store.add_round(run, 0, samples_of(0.25, BASIC, BILINEAR))
        store.add_round(run, 1, samples_of(0.5, BASIC))
        store.add_failure(run, Failure(trial=BILINEAR, error="ValueError: of its own"))
    with closing(Store(path)) as store:
        basic, bilinear = store.trials(run)
        assert (basic.key, basic.cost, basic.device_bytes, basic.error) == (BASIC.key, cost, 11, None)
        assert basic.samples == {0: 0.25, 1: 0.5}
        assert basic.facts == BASIC.as_dict()
        assert (bilinear.samples, bilinear.error, bilinear.cost) == ({0: 0.25}, "ValueError: of its own", None)
        found = store.run(run)
        assert (found.name, found.config, found.environment, found.finished) == ("small", CONFIG, ENVIRONMENT, None)


def test_each_write_is_seen_by_another_reader_at_once(store, path):
    run = begin(store).id
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        for number in range(3):
            store.add_round(run, number, samples_of(0.1, BASIC, BILINEAR))
            assert reader.execute("SELECT count(*) FROM sample").fetchone() == (2 * (number + 1),)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_unfinished_run_goes_on_where_it_was(path):
    with closing(Store(path)) as store:
        first = begin(store)
        store.add_round(first.id, 0, samples_of(0.1, BASIC, BILINEAR))
    with closing(Store(path)) as store:
        again = begin(store)
        assert (first.is_resumed, again.is_resumed, again.id) == (False, True, first.id)
        assert [trial.samples for trial in store.trials(again.id)] == [{0: 0.1}, {0: 0.1}]


@pytest.mark.parametrize(
    ("config", "environment"), [({**CONFIG, "rounds": 40}, ENVIRONMENT), (CONFIG, {"device": "cuda"})], ids=["config", "place"]
)
def test_a_run_of_another_configuration_or_place_starts_afresh(store, config, environment):
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
    with pytest.raises(zoo.StoreError):
        store.add_round(run, 0, samples_of(0.1, BASIC, STRANGER))
    assert [trial.samples for trial in store.trials(run)] == [{}, {}]
    store.add_round(run, 0, samples_of(0.2, BASIC, BILINEAR))
    with pytest.raises(zoo.StoreError):
        store.add_round(run, 0, samples_of(0.9, BILINEAR, BASIC))
    assert [trial.samples for trial in store.trials(run)] == [{0: 0.2}, {0: 0.2}]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_run_that_is_not_there_is_told(store):
    with pytest.raises(zoo.StoreError, match="no run 7"):
        store.run(7)


def test_a_store_of_a_later_version_is_told_and_left_as_it_is(store, path):
    store.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 999")
    with pytest.raises(zoo.StoreError, match="later version") as caught:
        Store(path)
    assert all(part in str(caught.value) for part in (str(path), "999", "upgrade"))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (999,)


def test_a_file_that_is_no_database_is_told_and_left_as_it_is(tmp_path):
    path = tmp_path / "noise.sqlite"
    noise = random.Random(0).randbytes(8192)
    path.write_bytes(noise)
    with pytest.raises(zoo.StoreError, match=r"noise\.sqlite") as caught:
        Store(path)
    assert "--store" in str(caught.value)
    assert path.read_bytes() == noise


def test_a_folder_or_a_path_under_a_file_is_no_store(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for path in (tmp_path, file / "store.sqlite"):
        with pytest.raises(zoo.StoreError) as caught:
            Store(path)
        assert str(path) in str(caught.value)


def test_a_database_of_another_program_is_not_written_into(tmp_path):
    path = tmp_path / "theirs.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE photo (id INTEGER)")
    with pytest.raises(zoo.StoreError, match=r"theirs\.sqlite"):
        Store(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("photo",)]


def test_many_may_open_one_new_store_at_once(path):
    def opened(number):
        with closing(Store(path)) as store:
            return begin(store, config={"number": number}).id

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(opened, range(8))) == list(range(1, 9))


def test_a_process_that_only_has_the_number_of_the_one_that_measured_is_not_taken_for_it(store, path):
    first = begin(store).id
    set_owner(path, f"{socket.gethostname()}:{os.getppid()}:1")
    assert begin(store).id == first
