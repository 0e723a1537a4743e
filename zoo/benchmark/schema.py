"""The results store's tables, version by version, and how a file of an earlier version becomes one of this."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

__all__ = ["APPLICATION_ID", "MIGRATIONS", "SCHEMA_VERSION"]

APPLICATION_ID = 0x7A6F6F  # "zoo": what tells this store from any other SQLite file

VERSION_1 = """
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

VERSION_2 = """
ALTER TABLE trial ADD COLUMN failure TEXT;     -- which kind of error
ALTER TABLE trial ADD COLUMN alone TEXT;       -- JSON, from the pass in which each trial has a fresh process
ALTER TABLE trial ADD COLUMN smaller TEXT;     -- JSON, the same at a smaller batch, after the trial's own ran out of memory
ALTER TABLE trial ADD COLUMN notes TEXT NOT NULL DEFAULT '[]';  -- JSON list
CREATE TABLE place (               -- where a run was measured: one row, or one a machine
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES run(id),
    identity TEXT NOT NULL,        -- hash of the environment
    environment TEXT NOT NULL,     -- JSON
    UNIQUE (run, identity)
);
CREATE TABLE timing (              -- a group: trials that are measured in interleaved rounds, in one process
    run INTEGER NOT NULL REFERENCES run(id),
    number INTEGER NOT NULL,
    trials TEXT NOT NULL,          -- JSON list of keys, the baseline and its control among them
    stopped TEXT,                  -- why its rounds ended; NULL while they go on
    place INTEGER REFERENCES place(id),  -- of the rounds that count; NULL while they go on
    PRIMARY KEY (run, number)
);
CREATE TABLE round (
    run INTEGER NOT NULL,
    timing INTEGER NOT NULL,
    place INTEGER NOT NULL REFERENCES place(id),
    number INTEGER NOT NULL,
    conditions TEXT NOT NULL,      -- JSON: how quiet the machine was
    PRIMARY KEY (run, timing, place, number),
    FOREIGN KEY (run, timing) REFERENCES timing(run, number)
);
CREATE TABLE rate (                -- how fast the device does a few large kernels
    run INTEGER NOT NULL REFERENCES run(id),
    place INTEGER NOT NULL REFERENCES place(id),
    dtype TEXT NOT NULL,
    kernel TEXT NOT NULL,
    flops_per_second REAL NOT NULL,
    PRIMARY KEY (run, place, dtype, kernel)
);
ALTER TABLE sample RENAME TO sample_1;
CREATE TABLE sample (
    run INTEGER NOT NULL,
    timing INTEGER NOT NULL,
    place INTEGER NOT NULL REFERENCES place(id),
    round INTEGER NOT NULL,
    trial TEXT NOT NULL,
    slot INTEGER NOT NULL,         -- its place in the round's order
    calls INTEGER NOT NULL,
    seconds REAL NOT NULL,         -- wall-clock time, mean of the calls
    busy_seconds REAL,             -- of the device: CPU time of all threads, or between two events; mean of the calls
    PRIMARY KEY (run, timing, place, round, trial),
    FOREIGN KEY (run, trial) REFERENCES trial(run, key),
    FOREIGN KEY (run, timing, place, round) REFERENCES round(run, timing, place, number)
);
"""


VERSION_3 = """
CREATE TABLE quality (             -- what training a model with a seed came to; of a look-up, too, with the seed 0
    run INTEGER NOT NULL REFERENCES run(id),
    subject TEXT NOT NULL,         -- hash of what was trained, or the look-up's name
    seed INTEGER NOT NULL,
    result TEXT,                   -- JSON
    failure TEXT,                  -- which kind of error
    error TEXT,
    PRIMARY KEY (run, subject, seed)
);
"""


def _made(database: sqlite3.Connection) -> None:
    _run(database, VERSION_1)


def _grouped(database: sqlite3.Connection) -> None:
    """Version 1 had one group a block and one place a run; what it measured keeps its numbers."""
    _run(database, VERSION_2)
    database.execute("INSERT INTO place (id, run, identity, environment) SELECT id, id, identity, environment FROM run")
    for run, key, facts, device_bytes in database.execute("SELECT run, key, facts, device_bytes FROM trial").fetchall():
        plain = json.loads(facts)
        plain["role"] = "baseline" if plain.pop("is_baseline") else "candidate"
        plain |= {"memory_format": "contiguous", "runtime": "eager", "name": ""}
        alone = None if device_bytes is None else json.dumps({"allocated_bytes": device_bytes})
        changed = (json.dumps(plain), alone, run, key)
        database.execute("UPDATE trial SET facts = ?, alone = ? WHERE run = ? AND key = ?", changed)
    database.execute("UPDATE trial SET failure = 'error' WHERE error IS NOT NULL")
    for run, finished in database.execute("SELECT id, finished FROM run").fetchall():
        blocks: dict[str, list[str]] = {}
        trials = database.execute("SELECT key, facts FROM trial WHERE run = ? ORDER BY position", (run,)).fetchall()
        for key, facts in trials:
            plain = json.loads(facts)
            shared = [plain[name] for name in ("mode", "batch", "height", "width", "dtype")]
            blocks.setdefault(json.dumps(shared), []).append(key)
        for number, keys in enumerate(blocks.values()):
            facts = (run, number, json.dumps(keys), "fixed" if finished else None, run if finished else None)
            database.execute("INSERT INTO timing (run, number, trials, stopped, place) VALUES (?, ?, ?, ?, ?)", facts)
            marks = ", ".join("?" * len(keys))
            database.execute(
                "INSERT INTO round (run, timing, place, number, conditions) "
                f"SELECT DISTINCT run, ?, run, round, '{{}}' FROM sample_1 WHERE run = ? AND trial IN ({marks})",
                (number, run, *keys),
            )
            database.execute(
                "INSERT INTO sample (run, timing, place, round, trial, slot, calls, seconds) "
                f"SELECT run, ?, run, round, trial, slot, calls, seconds FROM sample_1 WHERE run = ? AND trial IN ({marks})",
                (number, run, *keys),
            )
    _run(database, "DROP TABLE sample_1;\nALTER TABLE trial DROP COLUMN device_bytes;")


def _run(database: sqlite3.Connection, script: str) -> None:
    """Run statements within the transaction that is open; `executescript` would commit it first."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            database.execute(statement)
            statement = ""


def _with_quality(database: sqlite3.Connection) -> None:
    _run(database, VERSION_3)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_made, _grouped, _with_quality)
"""The step from each version to the next, from an empty file on."""

SCHEMA_VERSION = len(MIGRATIONS)
