"""The SQL schema of the results store."""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "TABLES"]

APPLICATION_ID = 0x7A6F6F  # "zoo" in ASCII, which distinguishes a results store from other SQLite files

SCHEMA_VERSION = 5
"""The version of the tables. Increase it when the tables or the JSON in them change: zoo refuses files of other versions."""

TABLES = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    identity TEXT NOT NULL,        -- hash of the configuration and the environment, which a resumed run must share
    config TEXT NOT NULL,          -- JSON
    environment TEXT NOT NULL,     -- JSON: the machine that started the run
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
    failure TEXT,                  -- the kind of error
    cold_start TEXT,               -- JSON: cold start and memory
    smaller_batch TEXT,            -- JSON: cold start at a smaller batch, if the trial's own batch ran out of memory
    operation_times TEXT,          -- JSON: the times of the operations, from a calibration
    notes TEXT NOT NULL DEFAULT '[]',  -- JSON list
    PRIMARY KEY (run, key)
);
CREATE TABLE environment (         -- the environments in which a run was measured: one row per machine
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES run(id),
    identity TEXT NOT NULL,        -- hash of the facts
    facts TEXT NOT NULL,           -- JSON
    UNIQUE (run, identity)
);
CREATE TABLE trial_group (         -- trials that are measured in interleaved rounds, in one process
    run INTEGER NOT NULL REFERENCES run(id),
    number INTEGER NOT NULL,
    trials TEXT NOT NULL,          -- JSON list of keys, including the baseline and its control
    stopped TEXT,                  -- why the rounds ended; NULL while they continue
    environment INTEGER REFERENCES environment(id),  -- whose rounds count; NULL while they continue
    PRIMARY KEY (run, number)
);
CREATE TABLE round (
    run INTEGER NOT NULL,
    trial_group INTEGER NOT NULL,
    environment INTEGER NOT NULL REFERENCES environment(id),
    number INTEGER NOT NULL,
    conditions TEXT NOT NULL,      -- JSON: the state of the machine
    PRIMARY KEY (run, trial_group, environment, number),
    FOREIGN KEY (run, trial_group) REFERENCES trial_group(run, number)
);
CREATE TABLE rate (                -- how fast the device runs a few large kernels
    run INTEGER NOT NULL REFERENCES run(id),
    environment INTEGER NOT NULL REFERENCES environment(id),
    dtype TEXT NOT NULL,
    kernel TEXT NOT NULL,
    flops_per_second REAL NOT NULL,
    PRIMARY KEY (run, environment, dtype, kernel)
);
CREATE TABLE sample (
    run INTEGER NOT NULL,
    trial_group INTEGER NOT NULL,
    environment INTEGER NOT NULL REFERENCES environment(id),
    round INTEGER NOT NULL,
    trial TEXT NOT NULL,
    slot INTEGER NOT NULL,         -- position in the order of the round
    calls INTEGER NOT NULL,
    seconds REAL NOT NULL,         -- wall-clock time, mean of the calls
    busy_seconds REAL,             -- CPU time of all threads, or time between two events on the device; mean of the calls
    PRIMARY KEY (run, trial_group, environment, round, trial),
    FOREIGN KEY (run, trial) REFERENCES trial(run, key),
    FOREIGN KEY (run, trial_group, environment, round) REFERENCES round(run, trial_group, environment, number)
);
CREATE TABLE quality (             -- the result of training a model with a seed, or the scores of a floor with the seed 0
    run INTEGER NOT NULL REFERENCES run(id),
    subject TEXT NOT NULL,         -- hash of the model, or the floor's name
    seed INTEGER NOT NULL,
    result TEXT,                   -- JSON
    failure TEXT,                  -- the kind of error
    error TEXT,
    PRIMARY KEY (run, subject, seed)
);
"""
