"""The results store: runs, trials and raw samples in an SQLite file, committed as soon as they are measured. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat

from zoo.benchmark.environment import Environment
from zoo.benchmark.messages import ColdStart, Failure, KernelRate, Round, StaticCost, Timing
from zoo.benchmark.operation import OperationTimes
from zoo.benchmark.store.database import Database
from zoo.benchmark.store.lease import is_alive, owner
from zoo.benchmark.store.records import (
    StoredGroup,
    StoredQuality,
    StoredRun,
    StoredTrial,
    TrainingFacts,
    read_facts,
)
from zoo.benchmark.trial import Trial, digest
from zoo.common.regular_files import check_regular
from zoo.errors import StoreError, ZooError

__all__ = ["Store"]


class Store:
    """A results store in one SQLite file. Every method that writes to it does so in a single transaction.

    A file that exists but is not writable is opened for reading only.

    Args:
        path: the file; created if it does not exist.
        must_exist: whether to raise an error if the file does not exist.

    Raises:
        StoreError: the file cannot be opened or created, or was created by another program or another version of zoo.
    """

    def __init__(self, path: Path, *, must_exist: bool = False) -> None:
        self.path = path
        try:
            check_regular(path)
        except FileNotFoundError:
            if must_exist:
                raise StoreError(
                    f"There is no results store {path}. `zoo bench CONFIG` creates it; --store PATH selects another file."
                ) from None
        except OSError as cause:
            raise StoreError(
                f"The results store {path} cannot be read: {cause.strerror}. --store PATH selects another file."
            ) from cause
        self._db = Database(path)
        self._latest_read: int | None = None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def reading(self, run: int | None = None) -> Iterator[None]:
        """If invalid stored values cause an error in the `with` block, convert it to a `StoreError` that names the run.

        Args:
            run: the run to name; by default the run that was read last.

        Raises:
            StoreError: SQLite failed, or the block raised an exception that points to missing or wrong values in the store
                (such as ValueError, TypeError or LookupError).
        """
        self._latest_read = self._latest_read if run is None else run
        try:
            with self._db.guarded():
                yield
        except ZooError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as cause:
            where = "" if self._latest_read is None else f": run {self._latest_read}"
            raise StoreError(
                f"The results store {self.path}{where} contains values that cannot be read ({type(cause).__name__}: {cause}). "
                "The file is damaged, or another program wrote to it. Read another run or a copy of the file, or measure again "
                "and write the results into a new file with --store."
            ) from cause

    def start_run(self, name: str, config: dict[str, Any], environment: dict[str, Any], trials: list[Trial]) -> StoredRun:
        """Return the latest unfinished run with the same configuration and environment (machine and software).

        If there is none, start a new run.

        An unfinished run that another process on this machine is still measuring is not returned.
        """
        identity = digest([config, environment])
        with self._db.transaction():
            unfinished = self._db.execute(
                "SELECT id, owner FROM run WHERE identity = ? AND finished IS NULL ORDER BY id DESC", (identity,)
            ).fetchall()
            for run, measuring in unfinished:
                if not is_alive(measuring):
                    self._db.execute("UPDATE run SET owner = ? WHERE id = ?", (owner(), run))
                    return self._run(run, is_resumed=True)
            cursor = self._db.execute(
                "INSERT INTO run (name, identity, config, environment, owner, started) VALUES (?, ?, ?, ?, ?, ?)",
                (name, identity, json.dumps(config), json.dumps(environment), owner(), _now()),
            )
            run = int(cursor.lastrowid or 0)
            self._db.executemany(
                "INSERT INTO trial (run, key, position, facts) VALUES (?, ?, ?, ?)",
                [(run, trial.key, position, json.dumps(trial.as_dict())) for position, trial in enumerate(trials)],
            )
            return self._run(run, is_resumed=False)

    def finish_run(self, run: int) -> None:
        """Mark a run as complete, so that the same configuration starts a new run next time."""
        with self._db.transaction():
            self._db.execute("UPDATE run SET finished = ? WHERE id = ?", (_now(), run))

    def run(self, run: int) -> StoredRun:
        """Return a run by its number."""
        with self.reading(run):
            return self._run(run, is_resumed=False)

    def runs(self) -> list[StoredRun]:
        """Return all runs in the order in which they started."""
        with self._db.guarded():
            ids = self._db.execute("SELECT id FROM run ORDER BY id").fetchall()
        return [self.run(run) for (run,) in ids]

    def trials(self, run: int) -> list[StoredTrial]:
        """Return the trials of a run in the order of the table."""
        query = """
            SELECT key, facts, cost, cold_start, smaller_batch, operation_times, failure, error, notes
            FROM trial WHERE run = ? ORDER BY position
        """
        with self.reading(run):
            return [
                StoredTrial(
                    key=key,
                    trial=Trial.from_dict(read_facts(dict[str, Any], facts)),
                    cost=None if cost is None else read_facts(StaticCost, cost),
                    cold_start=None if cold_start is None else read_facts(ColdStart, cold_start),
                    smaller_batch=None if smaller_batch is None else read_facts(ColdStart, smaller_batch),
                    operation_times=None if times is None else read_facts(OperationTimes, times),
                    failure=failure,
                    error=error,
                    notes=tuple(read_facts(list[str], notes)),
                )
                for key, facts, cost, cold_start, smaller_batch, times, failure, error, notes in self._db.execute(query, (run,))
            ]

    def groups(self, run: int) -> list[StoredGroup]:
        """Return the groups of a run, sorted by number, each with the rounds of a single environment.

        For a finished group, this is the environment that `stop_group` stored. For other groups, it is the environment with the
        most rounds.
        """
        with self.reading(run):
            # One query reads all rounds and one reads all samples: with a query per group, a large run would take much longer.
            conditions: dict[int, dict[int, list[Mapping[str, float | None]]]] = {}
            query = "SELECT trial_group, environment, conditions FROM round WHERE run = ? ORDER BY number"
            for number, environment, facts in self._db.execute(query, (run,)):
                of_group = conditions.setdefault(number, {})
                of_group.setdefault(environment, []).append(read_facts(dict[str, FiniteFloat | None], facts))
            samples: dict[tuple[int, int], dict[str, dict[int, Timing]]] = {}
            query = """
                SELECT trial_group, environment, trial, round, seconds, busy_seconds
                FROM sample WHERE run = ? ORDER BY round
            """
            for number, environment, key, turn, seconds, busy_seconds in self._db.execute(query, (run,)):
                timing = Timing(seconds=seconds, busy_seconds=busy_seconds)
                samples.setdefault((number, environment), {}).setdefault(key, {})[turn] = timing
            environments = {
                id: read_facts(Environment, facts).as_dict()
                for id, facts in self._db.execute("SELECT id, facts FROM environment WHERE run = ?", (run,))
            }
            groups = []
            query = "SELECT number, trials, stopped, environment FROM trial_group WHERE run = ? ORDER BY number"
            for number, trials, stopped, chosen in self._db.execute(query, (run,)):
                rounds = conditions.get(number, {})
                # A group that moved to another machine started again there, since times of two machines cannot be mixed.
                environment = chosen if chosen is not None else max(rounds, key=lambda one: len(rounds[one]), default=None)
                groups.append(
                    StoredGroup(
                        number=number,
                        trials=tuple(read_facts(list[str], trials)),
                        stopped=stopped,
                        environment=None if environment is None else environments[environment],
                        environment_id=environment,
                        samples={} if environment is None else samples.get((number, environment), {}),
                        conditions=() if environment is None else tuple(rounds.get(environment, ())),
                    )
                )
            return groups

    def rates(self, run: int) -> dict[tuple[int, str], KernelRate]:
        """Return a mapping from (environment id, dtype) to the rate of the fastest kernel in this environment and dtype."""
        query = "SELECT environment, kernel, dtype, flops_per_second FROM rate WHERE run = ? ORDER BY flops_per_second"
        rates = {}
        with self.reading(run):
            for environment, kernel, dtype, rate in self._db.execute(query, (run,)):
                if not isinstance(dtype, str) or not isinstance(kernel, str):
                    raise TypeError(f"a rate's dtype and kernel must be text; found {dtype!r:.80} and {kernel!r:.80}")
                if not isinstance(rate, float) or not 0 < rate < math.inf:
                    raise ValueError(f"the rate of {kernel!r:.80} must be a finite number above 0; found {rate!r:.80}")
                rates[environment, dtype] = KernelRate(kernel=kernel, dtype=dtype, flops_per_second=rate)
        return rates

    def environment_id(self, run: int, environment: Mapping[str, Any]) -> int:
        """Return the id in the store of a run's environment (machine and software). If it is not stored yet, add it."""
        identity = digest(environment)
        with self._db.transaction():
            query = "SELECT id FROM environment WHERE run = ? AND identity = ?"
            row = self._db.execute(query, (run, identity)).fetchone()
            if row:
                return int(row[0])
            statement = "INSERT INTO environment (run, identity, facts) VALUES (?, ?, ?)"
            return int(self._db.execute(statement, (run, identity, json.dumps(environment))).lastrowid or 0)

    def add_cost(self, run: int, trial: str, cost: StaticCost) -> None:
        """Store the costs of a trial that are computed rather than measured, such as FLOPs."""
        self._set_fact(run, trial, "cost", cost)

    def add_cold_start(self, run: int, cold_start: ColdStart) -> None:
        """Store the cold start of a trial, with the memory that was measured."""
        self._set_fact(run, cold_start.trial, "cold_start", cold_start)

    def add_smaller_batch(self, run: int, cold_start: ColdStart) -> None:
        """Store the cold start of a trial with a smaller batch, after its own batch ran out of memory."""
        self._set_fact(run, cold_start.trial, "smaller_batch", cold_start)

    def add_operation_times(self, run: int, times: OperationTimes) -> None:
        """Store the times of a trial's operations."""
        self._set_fact(run, times.trial, "operation_times", times)

    def _set_fact(self, run: int, trial: str, column: str, fact: StaticCost | ColdStart | OperationTimes) -> None:
        with self._db.transaction():
            statement = f"UPDATE trial SET {column} = ? WHERE run = ? AND key = ?"
            self._db.execute(statement, (json.dumps(asdict(fact)), run, trial))

    def add_failure(self, run: int, failure: Failure) -> None:
        """Store the error of a trial that failed."""
        with self._db.transaction():
            statement = "UPDATE trial SET failure = ?, error = ? WHERE run = ? AND key = ?"
            self._db.execute(statement, (failure.kind, failure.error, run, failure.trial))

    def add_note(self, run: int, trial: str, note: str) -> None:
        """Store a note on how a trial was measured, unless the trial has the same note already."""
        with self._db.transaction():
            query = "SELECT notes FROM trial WHERE run = ? AND key = ?"
            notes = json.loads(self._db.execute(query, (run, trial)).fetchone()[0])
            if note not in notes:
                values = (json.dumps([*notes, note]), run, trial)
                self._db.execute("UPDATE trial SET notes = ? WHERE run = ? AND key = ?", values)

    def add_groups(self, run: int, groups: Sequence[Sequence[str]]) -> None:
        """Store new groups of trials that are measured together, numbered after the existing groups."""
        with self._db.transaction():
            self._insert_groups(run, groups)

    def replace_group(self, run: int, number: int, groups: Sequence[Sequence[str]]) -> None:
        """Replace a group with several new groups.

        The first new group gets the number of the replaced group. The others are numbered after all existing groups.
        """
        with self._db.transaction():
            values = (json.dumps(list(groups[0])), run, number)
            self._db.execute("UPDATE trial_group SET trials = ? WHERE run = ? AND number = ?", values)
            self._insert_groups(run, groups[1:])

    def _insert_groups(self, run: int, groups: Sequence[Sequence[str]]) -> None:
        query = "SELECT coalesce(max(number) + 1, 0) FROM trial_group WHERE run = ?"
        first = self._db.execute(query, (run,)).fetchone()[0]
        rows = [(run, number, json.dumps(list(keys))) for number, keys in enumerate(groups, first)]
        self._db.executemany("INSERT INTO trial_group (run, number, trials) VALUES (?, ?, ?)", rows)

    def add_round(self, run: int, group: int, environment: int, round: Round) -> None:
        """Store one round with all its samples. If an error occurs, nothing is stored."""
        numbers = (run, group, environment, round.number)
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO round (run, trial_group, environment, number, conditions) VALUES (?, ?, ?, ?, ?)",
                (*numbers, json.dumps(round.conditions)),
            )
            self._db.executemany(
                "INSERT INTO sample (run, trial_group, environment, round, trial, slot, calls, seconds, busy_seconds) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (*numbers, sample.trial, sample.slot, sample.calls, sample.seconds, sample.busy_seconds)
                    for sample in round.samples
                ],
            )

    def stop_group(self, run: int, group: int, environment: int | None, reason: str) -> None:
        """Store why the measurement of a group stopped, and the id of the environment (machine) whose rounds are used."""
        with self._db.transaction():
            statement = "UPDATE trial_group SET stopped = ?, environment = ? WHERE run = ? AND number = ?"
            self._db.execute(statement, (reason, environment, run, group))

    def add_rate(self, run: int, environment: int, rate: KernelRate) -> None:
        """Store the rate at which the device runs one kernel."""
        with self._db.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO rate (run, environment, dtype, kernel, flops_per_second) VALUES (?, ?, ?, ?, ?)",
                (run, environment, rate.dtype, rate.kernel, rate.flops_per_second),
            )

    def add_quality(
        self, run: int, subject: str, seed: int, result: Mapping[str, Any] | None, *, failure: str = "", error: str = ""
    ) -> None:
        """Store the result of training a pairing or reference with one seed, or the error that training raised.

        The scores of a trivial baseline (which is not a neural network, see `zoo.benchmark.quality.FLOORS`) are stored in the
        same way.

        Args:
            run: the number of the run.
            subject: the `subject_key` of the pairing or reference, or the name of a trivial baseline.
            seed: the seed; 0 for a trivial baseline.
            result: the fields of `TrainingFacts`; None if training failed.
            failure: the kind of error.
            error: the text of the error.
        """
        with self._db.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO quality (run, subject, seed, result, failure, error) VALUES (?, ?, ?, ?, ?, ?)",
                (run, subject, seed, json.dumps(result) if result else None, failure or None, error or None),
            )

    def qualities(self, run: int) -> dict[str, dict[int, StoredQuality]]:
        """Return the results that `add_quality` stored for a run, as `{subject: {seed: result}}`."""
        qualities: dict[str, dict[int, StoredQuality]] = {}
        query = "SELECT subject, seed, result, error FROM quality WHERE run = ? ORDER BY subject, seed"
        with self.reading(run):
            for subject, seed, result, error in self._db.execute(query, (run,)):
                facts = None if result is None else read_facts(TrainingFacts, result)
                qualities.setdefault(subject, {})[seed] = StoredQuality(result=facts, error=error)
        return qualities

    def _run(self, run: int, *, is_resumed: bool) -> StoredRun:
        query = "SELECT name, config, environment, started, finished FROM run WHERE id = ?"
        row = self._db.execute(query, (run,)).fetchone()
        if row is None:
            raise StoreError(f"{self.path} has no run {run}. `zoo runs --store {self.path}` lists its runs.")
        name, config, environment, started, finished = row
        return StoredRun(
            id=run,
            name=name,
            config=read_facts(dict[str, Any], config),
            environment=read_facts(Environment, environment).as_dict(),
            started=started,
            finished=finished,
            is_resumed=is_resumed,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
