"""The results store: one SQLite file that holds runs, trials and raw samples, each committed as it comes. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat

from zoo.benchmark.messages import Alone, Failed, Rated, Round, StaticCost
from zoo.benchmark.store.database import Database
from zoo.benchmark.store.lease import is_alive, owner
from zoo.benchmark.store.records import (
    AloneFacts,
    EnvironmentFacts,
    QualityFacts,
    StoredGroup,
    StoredQuality,
    StoredRun,
    StoredTrial,
    Taken,
    read_facts,
)
from zoo.benchmark.trial import Trial, digest
from zoo.common.regular_files import check_regular
from zoo.errors import StoreError, ZooError

__all__ = ["Store"]


class Store:
    """One SQLite file. Every method that writes is one transaction.

    Raises:
        StoreError: the file cannot be opened or written, or was made by another program or another version.
    """

    def __init__(self, path: Path, *, must_exist: bool = False) -> None:
        self.path = path
        try:
            check_regular(path)
        except FileNotFoundError:
            if must_exist:
                raise StoreError(
                    f"There is no results store {path}. `zoo bench CONFIG` makes one; --store PATH names another."
                ) from None
        except OSError as cause:
            raise StoreError(
                f"The results store {path} cannot be read: {cause.strerror}. --store PATH names another."
            ) from cause
        self._db = Database(path)
        self._read: int | None = None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def reading(self, run: int | None = None) -> Iterator[None]:
        """Tell of facts that cannot be read or shown whose they are: of this run, or by default of that which was read last.

        Raises:
            StoreError: within, something other than a `ZooError` was raised: facts are missing or of other types.
        """
        self._read = self._read if run is None else run
        try:
            with self._db.guarded():
                yield
        except ZooError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as cause:
            told = "" if self._read is None else f": run {self._read}"
            raise StoreError(
                f"The results store {self.path}{told} holds facts that cannot be read ({type(cause).__name__}: {cause}): it is "
                "damaged, or another program wrote to it. Read another run or copy of it, or measure again into a new --store."
            ) from cause

    def start_run(self, name: str, config: dict[str, Any], environment: dict[str, Any], trials: list[Trial]) -> StoredRun:
        """Return the latest unfinished run of the same configuration and environment, or a new one.

        A run that another living process measures is left to that process.
        """
        identity = digest([config, environment])
        with self._db.transaction():
            unfinished = self._db.execute(
                "SELECT id, owner FROM run WHERE identity = ? AND finished IS NULL ORDER BY id DESC", (identity,)
            ).fetchall()
            for run, measures in unfinished:
                if not is_alive(measures):
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
        """Mark a run as complete, so that the next one starts afresh."""
        with self._db.transaction():
            self._db.execute("UPDATE run SET finished = ? WHERE id = ?", (_now(), run))

    def run(self, run: int) -> StoredRun:
        """Return a run."""
        with self.reading(run):
            return self._run(run, is_resumed=False)

    def runs(self) -> list[StoredRun]:
        """Return every run, in the order in which they began."""
        with self._db.guarded():
            ids = self._db.execute("SELECT id FROM run ORDER BY id").fetchall()
        return [self.run(run) for (run,) in ids]

    def trials(self, run: int) -> list[StoredTrial]:
        """Return a run's trials in their order."""
        asked = "SELECT key, facts, cost, alone, smaller, failure, error, notes FROM trial WHERE run = ? ORDER BY position"
        with self.reading(run):
            return [
                StoredTrial(
                    key=key,
                    facts=Trial.from_dict(read_facts(dict[str, Any], facts)).as_dict(),
                    cost=None if cost is None else read_facts(StaticCost, cost),
                    alone=None if alone is None else _plain(AloneFacts, alone),
                    smaller=None if smaller is None else _plain(AloneFacts, smaller),
                    failure=failure,
                    error=error,
                    notes=tuple(read_facts(list[str], notes)),
                )
                for key, facts, cost, alone, smaller, failure, error, notes in self._db.execute(asked, (run,)).fetchall()
            ]

    def groups(self, run: int) -> list[StoredGroup]:
        """Return a run's groups in their order, each with the samples of one place: where most of its rounds were measured."""
        with self.reading(run):
            places = dict(self._db.execute("SELECT id, environment FROM place WHERE run = ?", (run,)).fetchall())
            rounds: dict[int, dict[int, list[Mapping[str, float | None]]]] = {}
            asked = "SELECT timing, place, conditions FROM round WHERE run = ? ORDER BY number"
            for number, place, conditions in self._db.execute(asked, (run,)):
                rounds.setdefault(number, {}).setdefault(place, []).append(
                    read_facts(dict[str, FiniteFloat | None], conditions)
                )
            samples: dict[tuple[int, int], dict[str, dict[int, Taken]]] = {}
            asked = "SELECT timing, place, trial, round, seconds, busy_seconds FROM sample WHERE run = ? ORDER BY round"
            for number, place, key, turn, seconds, busy in self._db.execute(asked, (run,)):
                taken = Taken(seconds=seconds, busy_seconds=busy)
                samples.setdefault((number, place), {}).setdefault(key, {})[turn] = taken
            found = []
            asked = "SELECT number, trials, stopped, place FROM timing WHERE run = ? ORDER BY number"
            for number, trials, stopped, chosen in self._db.execute(asked, (run,)).fetchall():
                done = rounds.get(number, {})
                place = chosen if chosen is not None else max(done, key=lambda where: len(done[where]), default=None)
                found.append(
                    StoredGroup(
                        number=number,
                        trials=tuple(read_facts(list[str], trials)),
                        stopped=stopped,
                        environment=None if place is None else _plain(EnvironmentFacts, places[place]),
                        place=place,
                        samples=samples.get((number, place), {}) if place is not None else {},
                        conditions=tuple(done.get(place, ())) if place is not None else (),
                    )
                )
            return found

    def rates(self, run: int) -> dict[tuple[int, str], tuple[str, float]]:
        """Return the fastest kernel of each place and dtype, and its FLOP/s."""
        with self.reading(run):
            asked = "SELECT place, dtype, kernel, flops_per_second FROM rate WHERE run = ? ORDER BY flops_per_second"
            found = {(place, dtype): (kernel, rate) for place, dtype, kernel, rate in self._db.execute(asked, (run,))}
            for (_, dtype), (kernel, rate) in found.items():
                if (
                    not isinstance(dtype, str)
                    or not isinstance(kernel, str)
                    or not (isinstance(rate, float) and 0 < rate < math.inf)
                ):
                    raise ValueError(f"the rate of {kernel!r:.80} in {dtype!r:.80} is {rate!r:.80}")
            return found

    def place(self, run: int, environment: Mapping[str, Any]) -> int:
        """Return the number of an environment among those in which a run is measured; a new one if need be."""
        with self._db.transaction():
            return self._place(run, environment)

    def add_cost(self, run: int, trial: str, cost: StaticCost) -> None:
        """Keep what the static pass found."""
        self._update(run, trial, "cost", json.dumps(asdict(cost)))

    def add_alone(self, run: int, alone: Alone) -> None:
        """Keep what a trial took in a fresh process."""
        self._update(run, alone.trial, "alone", json.dumps(asdict(alone)))

    def add_smaller(self, run: int, alone: Alone) -> None:
        """Keep what a trial took at a smaller batch than its own, which ran out of memory."""
        self._update(run, alone.trial, "smaller", json.dumps(asdict(alone)))

    def add_failure(self, run: int, failed: Failed) -> None:
        """Make a trial a row with its error."""
        with self._db.transaction():
            asked = "UPDATE trial SET failure = ?, error = ? WHERE run = ? AND key = ?"
            self._db.execute(asked, (failed.kind, failed.error, run, failed.trial))

    def add_note(self, run: int, trial: str, note: str) -> None:
        """Keep what a row must say of how it was measured, once."""
        with self._db.transaction():
            asked = "SELECT notes FROM trial WHERE run = ? AND key = ?"
            notes = json.loads(self._db.execute(asked, (run, trial)).fetchone()[0])
            if note not in notes:
                changed = (json.dumps([*notes, note]), run, trial)
                self._db.execute("UPDATE trial SET notes = ? WHERE run = ? AND key = ?", changed)

    def add_groups(self, run: int, groups: Sequence[Sequence[str]]) -> None:
        """Keep which trials are measured together, after the groups that there are."""
        with self._db.transaction():
            self._insert_groups(run, groups)

    def replace_group(self, run: int, number: int, groups: Sequence[Sequence[str]]) -> None:
        """Measure a group's trials in several groups instead: the first takes its place, the others come last."""
        with self._db.transaction():
            changed = (json.dumps(list(groups[0])), run, number)
            self._db.execute("UPDATE timing SET trials = ? WHERE run = ? AND number = ?", changed)
            self._insert_groups(run, groups[1:])

    def _insert_groups(self, run: int, groups: Sequence[Sequence[str]]) -> None:
        asked = "SELECT coalesce(max(number) + 1, 0) FROM timing WHERE run = ?"
        first = self._db.execute(asked, (run,)).fetchone()[0]
        rows = [(run, number, json.dumps(list(keys))) for number, keys in enumerate(groups, first)]
        self._db.executemany("INSERT INTO timing (run, number, trials) VALUES (?, ?, ?)", rows)

    def add_round(self, run: int, group: int, place: int, done: Round) -> None:
        """Keep one round's samples, all or none."""
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO round (run, timing, place, number, conditions) VALUES (?, ?, ?, ?, ?)",
                (run, group, place, done.number, json.dumps(done.conditions)),
            )
            self._db.executemany(
                "INSERT INTO sample (run, timing, place, round, trial, slot, calls, seconds, busy_seconds) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (run, group, place, done.number, each.trial, each.slot, each.calls, each.seconds, each.busy_seconds)
                    for each in done.samples
                ],
            )

    def stop_group(self, run: int, group: int, place: int | None, reason: str) -> None:
        """Keep why a group's rounds ended, and where those were measured that count."""
        with self._db.transaction():
            asked = "UPDATE timing SET stopped = ?, place = ? WHERE run = ? AND number = ?"
            self._db.execute(asked, (reason, place, run, group))

    def add_rate(self, run: int, place: int, rated: Rated) -> None:
        """Keep how fast the device does one kernel."""
        with self._db.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO rate (run, place, dtype, kernel, flops_per_second) VALUES (?, ?, ?, ?, ?)",
                (run, place, rated.dtype, rated.kernel, rated.flops_per_second),
            )

    def add_quality(
        self, run: int, subject: str, seed: int, result: Mapping[str, Any] | None, *, failure: str = "", error: str = ""
    ) -> None:
        """Keep what training a subject with a seed came to, or why it came to nothing."""
        with self._db.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO quality (run, subject, seed, result, failure, error) VALUES (?, ?, ?, ?, ?, ?)",
                (run, subject, seed, json.dumps(result) if result else None, failure or None, error or None),
            )

    def qualities(self, run: int) -> dict[str, dict[int, StoredQuality]]:
        """Return what the trainings of a run came to, by subject and seed."""
        found: dict[str, dict[int, StoredQuality]] = {}
        asked = "SELECT subject, seed, result, error FROM quality WHERE run = ? ORDER BY subject, seed"
        with self.reading(run):
            for subject, seed, result, error in self._db.execute(asked, (run,)):
                facts = None if result is None else _plain(QualityFacts, result)
                stored = StoredQuality(result=facts, error=error)
                found.setdefault(subject, {})[seed] = stored
        return found

    def _place(self, run: int, environment: Mapping[str, Any]) -> int:
        identity = digest(environment)
        asked = "SELECT id FROM place WHERE run = ? AND identity = ?"
        found = self._db.execute(asked, (run, identity)).fetchone()
        if found:
            return int(found[0])
        cursor = self._db.execute(
            "INSERT INTO place (run, identity, environment) VALUES (?, ?, ?)", (run, identity, json.dumps(environment))
        )
        return int(cursor.lastrowid or 0)

    def _update(self, run: int, trial: str, column: str, value: object) -> None:
        with self._db.transaction():
            self._db.execute(f"UPDATE trial SET {column} = ? WHERE run = ? AND key = ?", (value, run, trial))

    def _run(self, run: int, *, is_resumed: bool) -> StoredRun:
        asked = "SELECT name, config, environment, started, finished FROM run WHERE id = ?"
        row = self._db.execute(asked, (run,)).fetchone()
        if row is None:
            raise StoreError(f"{self.path} has no run {run}.")
        name, config, environment, started, finished = row
        return StoredRun(
            id=run,
            name=name,
            config=read_facts(dict[str, Any], config),
            environment=_plain(EnvironmentFacts, environment),
            started=started,
            finished=finished,
            is_resumed=is_resumed,
        )


def _plain(kind: type[BaseModel], text: object) -> dict[str, Any]:
    return read_facts(kind, text).model_dump(exclude_unset=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
