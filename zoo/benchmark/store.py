"""The results store: one SQLite file that holds runs, trials and raw samples, each committed as it comes."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zoo.benchmark.cost import StaticCost
from zoo.benchmark.measure import Failure, Sample
from zoo.benchmark.trial import Trial, digest
from zoo.errors import StoreError

__all__ = ["Store", "StoredRun", "StoredTrial"]

SCHEMA_VERSION = 1
APPLICATION_ID = 0x7A6F6F  # "zoo": what tells this store from any other SQLite file
SCHEMA = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    identity TEXT NOT NULL,        -- hash of the configuration and the environment: what a resumed run must share
    config TEXT NOT NULL,          -- JSON
    environment TEXT NOT NULL,     -- JSON
    owner TEXT NOT NULL,           -- host:pid:start of the process that measures it
    started TEXT NOT NULL,
    finished TEXT
);
CREATE TABLE trial (
    run INTEGER NOT NULL REFERENCES run(id),
    key TEXT NOT NULL,
    position INTEGER NOT NULL,
    facts TEXT NOT NULL,           -- JSON
    cost TEXT,                     -- JSON, from the static pass
    device_bytes INTEGER,          -- the accelerator's peak, where it has one
    error TEXT,
    PRIMARY KEY (run, key)
);
CREATE TABLE sample (
    run INTEGER NOT NULL,
    trial TEXT NOT NULL,
    round INTEGER NOT NULL,
    slot INTEGER NOT NULL,         -- its place in the round's order
    calls INTEGER NOT NULL,
    seconds REAL NOT NULL,         -- mean of the calls
    PRIMARY KEY (run, trial, round),
    FOREIGN KEY (run, trial) REFERENCES trial(run, key)
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as the store has it."""

    id: int
    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    started: str
    finished: str | None
    is_resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial:
    """A trial with what is known of it so far; `samples` maps a round's number to seconds a call."""

    key: str
    facts: dict[str, Any]
    cost: StaticCost | None
    device_bytes: int | None
    error: str | None
    samples: dict[int, float]


class Store:
    """One SQLite file. Every method that writes is one transaction.

    Raises:
        StoreError: the file cannot be opened or written, or was made by a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._guarded():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            try:
                self._migrate()
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA foreign_keys = ON")
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def start_run(self, name: str, config: dict[str, Any], environment: dict[str, Any], trials: list[Trial]) -> StoredRun:
        """Return the latest unfinished run of the same configuration and environment, or a new one.

        A run that another living process measures is left to that process.
        """
        identity = digest([config, environment])
        with self._transaction():
            unfinished = self._db.execute(
                "SELECT id, owner FROM run WHERE identity = ? AND finished IS NULL ORDER BY id DESC", (identity,)
            ).fetchall()
            for run, owner in unfinished:
                if not _is_alive(owner):
                    self._db.execute("UPDATE run SET owner = ? WHERE id = ?", (_owner(), run))
                    return self._run(run, is_resumed=True)
            cursor = self._db.execute(
                "INSERT INTO run (name, identity, config, environment, owner, started) VALUES (?, ?, ?, ?, ?, ?)",
                (name, identity, json.dumps(config), json.dumps(environment), _owner(), _now()),
            )
            run = int(cursor.lastrowid or 0)
            self._db.executemany(
                "INSERT INTO trial (run, key, position, facts) VALUES (?, ?, ?, ?)",
                [(run, trial.key, position, json.dumps(trial.as_dict())) for position, trial in enumerate(trials)],
            )
            return self._run(run, is_resumed=False)

    def finish_run(self, run: int) -> None:
        """Mark a run as complete, so that the next one starts afresh."""
        with self._transaction():
            self._db.execute("UPDATE run SET finished = ? WHERE id = ?", (_now(), run))

    def run(self, run: int) -> StoredRun:
        """Return a run."""
        with self._guarded():
            return self._run(run, is_resumed=False)

    def trials(self, run: int) -> list[StoredTrial]:
        """Return a run's trials in their order, with all samples."""
        with self._guarded():
            samples: dict[str, dict[int, float]] = {}
            asked = "SELECT trial, round, seconds FROM sample WHERE run = ? ORDER BY round"
            for key, number, seconds in self._db.execute(asked, (run,)):
                samples.setdefault(key, {})[number] = seconds
            asked = "SELECT key, facts, cost, device_bytes, error FROM trial WHERE run = ? ORDER BY position"
            return [
                StoredTrial(
                    key=key,
                    facts=json.loads(facts),
                    cost=StaticCost(**json.loads(cost)) if cost else None,
                    device_bytes=device_bytes,
                    error=error,
                    samples=samples.get(key, {}),
                )
                for key, facts, cost, device_bytes, error in self._db.execute(asked, (run,)).fetchall()
            ]

    def add_cost(self, run: int, trial: Trial, cost: StaticCost) -> None:
        """Keep what the static pass found."""
        self._update(run, trial, "cost", json.dumps(asdict(cost)))

    def add_device_bytes(self, run: int, trial: Trial, peak: int) -> None:
        """Keep the accelerator's peak memory."""
        self._update(run, trial, "device_bytes", peak)

    def add_failure(self, run: int, failure: Failure) -> None:
        """Make a trial a row with its error."""
        self._update(run, failure.trial, "error", failure.error)

    def add_round(self, run: int, number: int, samples: list[Sample]) -> None:
        """Keep one round's samples, all or none."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO sample (run, trial, round, slot, calls, seconds) VALUES (?, ?, ?, ?, ?, ?)",
                [(run, entry.trial.key, number, entry.slot, entry.calls, entry.seconds) for entry in samples],
            )

    def _update(self, run: int, trial: Trial, column: str, value: object) -> None:
        with self._transaction():
            self._db.execute(f"UPDATE trial SET {column} = ? WHERE run = ? AND key = ?", (value, run, trial.key))

    def _run(self, run: int, *, is_resumed: bool) -> StoredRun:
        asked = "SELECT name, config, environment, started, finished FROM run WHERE id = ?"
        row = self._db.execute(asked, (run,)).fetchone()
        if row is None:
            raise StoreError(f"{self.path} has no run {run}.")
        name, config, environment, started, finished = row
        return StoredRun(
            id=run,
            name=name,
            config=json.loads(config),
            environment=json.loads(environment),
            started=started,
            finished=finished,
            is_resumed=is_resumed,
        )

    def _migrate(self) -> None:
        """Make the tables of a new file; refuse what is another program's or a later version's."""
        if self._pragma("application_id") == APPLICATION_ID and self._pragma("user_version") == SCHEMA_VERSION:
            return
        with self._transaction():
            found = self._pragma("user_version")
            if self._pragma("application_id") != APPLICATION_ID:
                if found or self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise StoreError(f"{self.path} is a database of another program; give another --store.")
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif found > SCHEMA_VERSION:
                raise StoreError(
                    f"{self.path} was written by a later version of zoo (schema {found}, this one reads up to "
                    f"{SCHEMA_VERSION}); upgrade segmentation-zoo, or give another --store."
                )

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as cause:
            raise StoreError(
                f"The results store {self.path} cannot be used: {cause}. Give another with --store, or move that file away."
            ) from cause


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def _is_alive(owner: str) -> bool:
    """Whether another process on this machine still measures; one on another machine is taken to be gone."""
    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(int(pid)) == started


def _started(pid: int) -> str:
    """Return when a process began, in the kernel's ticks, to tell it from a later one of the same number; else ''."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
