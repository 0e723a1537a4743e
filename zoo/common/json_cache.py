"""Cache JSON-serializable results in an SQLite file. If the file cannot be used, all results are computed again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["JsonCache"]

APPLICATION_ID = 0x7A6F6D  # "zom" in ASCII, which distinguishes this cache from other SQLite files


class JsonCache:
    """Stores each result under a key that contains everything that the result depends on. Each is written immediately.

    Args:
        path: the SQLite file, which is created if it does not exist.
        say: called once, with the reason, if the file cannot be used.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self._say = say
        self._db: sqlite3.Connection | None = None
        with self._ignore_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None)
            self._prepare(self._db)

    @property
    def is_usable(self) -> bool:
        """Whether the file can be used."""
        return self._db is not None

    def read(self, key: str) -> Any | None:
        """Return the result that is stored under a key; None if there is none."""
        row = None
        with self._ignore_errors():
            if self._db is not None:
                row = self._db.execute("SELECT facts FROM cell WHERE key = ?", (key,)).fetchone()
        try:
            return json.loads(row[0]) if row else None
        except ValueError:  # the file is damaged
            return None

    def keep(self, key: str, result: Any) -> None:
        """Store a result under a key, in place of any earlier result with this key."""
        with self._ignore_errors():
            if self._db is not None:
                self._db.execute("INSERT OR REPLACE INTO cell (key, facts) VALUES (?, ?)", (key, json.dumps(result)))

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _prepare(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
            return
        db.execute("BEGIN IMMEDIATE")  # another process may be creating the table
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise sqlite3.DatabaseError("the file is a database of another program")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute("CREATE TABLE cell (key TEXT PRIMARY KEY, facts TEXT NOT NULL)")
        db.execute("COMMIT")

    @contextmanager
    def _ignore_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as cause:
            self.close()
            self._say(f"The cache {self.path} cannot be used, so the run continues without it: {cause}.")
