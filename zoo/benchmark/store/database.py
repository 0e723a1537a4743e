"""Open the results store's SQLite file, and write to it in transactions. Torch-free."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.benchmark.store.schema import APPLICATION_ID, SCHEMA_VERSION, TABLES
from zoo.errors import StoreError

__all__ = ["Database"]

PATIENCE = 60
"""How many seconds to wait while another process locks the file."""


class Database:
    """A connection to the file of a results store. Several processes may use the file at the same time.

    A file that exists but is not writable is opened for reading only.

    Raises:
        StoreError: the file cannot be opened or created, or was created by another program or another version of zoo.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.guarded():
            if path.is_file() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
                self._open_to_read()
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            try:
                self._prepare()
                self._write_ahead()
                self.execute("PRAGMA foreign_keys = ON")
            except BaseException:
                self.close()
                raise

    def _open_to_read(self) -> None:
        """Open the file for reading only. The file or its folder is not writable, so SQLite cannot create its working files."""
        ahead = self.path.with_name(f"{self.path.name}-wal")
        is_whole = not ahead.exists() or not ahead.stat().st_size  # otherwise the -wal file contains the latest transactions
        mode = "immutable=1" if is_whole else "mode=ro"
        address = f"{self.path.resolve().as_uri()}?{mode}"
        self._connection = sqlite3.connect(address, uri=True, timeout=PATIENCE, isolation_level=None)
        try:
            if self._pragma("application_id") != APPLICATION_ID:
                raise StoreError(f"{self.path} is not a results store. Choose another file with --store.")
            if not self._is_current():
                raise self._other_version_error()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(statement, values)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row."""
        self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all changes that the `with` block makes, or none if it raises an exception."""
        with self.guarded():
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.execute("ROLLBACK")
                raise
            self.execute("COMMIT")

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Convert an error of SQLite or of the file system in the `with` block to a `StoreError`."""
        try:
            yield
        except (sqlite3.Error, OSError) as cause:
            raise StoreError(
                f"The results store {self.path} cannot be used: {cause}. Choose another file with --store, or move this file."
            ) from cause

    def _prepare(self) -> None:
        """Create the tables in a new file. Raise a StoreError if another program or another version of zoo created the file."""
        if self._is_current():
            return
        with self.transaction():
            if self._is_current():  # another process created the tables while this process waited
                return
            if self._pragma("application_id") == APPLICATION_ID:
                raise self._other_version_error()
            if self._pragma("user_version") or self.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise StoreError(f"{self.path} is a database of another program. Choose another file with --store.")
            for statement in filter(str.strip, TABLES.split(";\n")):
                self.execute(statement)
            self.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _is_current(self) -> bool:
        return (self._pragma("application_id"), self._pragma("user_version")) == (APPLICATION_ID, SCHEMA_VERSION)

    def _other_version_error(self) -> StoreError:
        version = self._pragma("user_version")
        return StoreError(
            f"{self.path} was written by another version of segmentation-zoo: its tables have version {version}, and the "
            f"installed segmentation-zoo reads version {SCHEMA_VERSION}. Read the file with the version that wrote it, or "
            "write new results into a new file with --store."
        )

    def _pragma(self, name: str) -> int:
        return int(self.execute(f"PRAGMA {name}").fetchone()[0])

    def _write_ahead(self) -> None:
        """Turn on write-ahead logging, so that other processes can read while one process writes.

        The connection's timeout does not apply to this statement, so the loop waits until the file is not locked.
        """
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as cause:
                if "locked" not in str(cause) or time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return
