"""The results store's tables."""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "TABLES"]

APPLICATION_ID = 0x7A6F6F  # "zoo": what tells this store from any other SQLite file

SCHEMA_VERSION = 3
"""Raised when the tables change, or what their JSON holds; a file of another version is refused."""

TABLES = """
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
    error TEXT,
    failure TEXT,                  -- which kind of error
    alone TEXT,                    -- JSON, from the pass in which each trial has a fresh process
    smaller TEXT,                  -- JSON, the same at a smaller batch, after the trial's own ran out of memory
    notes TEXT NOT NULL DEFAULT '[]',  -- JSON list
    PRIMARY KEY (run, key)
);
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
