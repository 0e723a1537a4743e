"""The folder of a search, which records its stages, so that an interrupted search goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from zoo.benchmark.store.lease import is_alive, owner
from zoo.common.atomic_write import is_draft
from zoo.common.json_files import as_json, check_identity, read_json, write_json
from zoo.errors import ConfigError, OptionError

__all__ = ["SearchFolder", "SearchState", "Stage"]

STATE = "search.json"
StageKind: TypeAlias = Literal["measure", "train", "final"]


@dataclass(kw_only=True)
class Stage:
    """A stage of a search: a run that measures or trains some candidates.

    Attributes:
        kind: "measure" measures candidates roughly, "train" trains them for a part of the steps, and "final" measures the best
            ones precisely and, if there are data, trains them to the end.
        config: the configuration of the run.
        until: the seconds of the whole search after which the stage begins no further training; None for no limit.
        run: the number of the run in the store; None if it has not begun.
        is_finished: whether the stage is finished.
    """

    kind: StageKind
    config: dict[str, Any]
    until: float | None = None
    run: int | None = None
    is_finished: bool = False


@dataclass(kw_only=True)
class SearchState:
    """What is recorded about a search.

    Attributes:
        identity: the settings, the calibration and the environment of the search.
        owner: the process that searches.
        spent: the seconds that the search took until the state was written.
        considered: how many pairings were considered, and how many were dropped for each reason; {} until this is known.
        stages: the stages that have begun, in order.
        is_finished: whether the search is finished.
    """

    identity: dict[str, Any]
    owner: str
    spent: float = 0.0
    considered: dict[str, Any] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    is_finished: bool = False


class SearchFolder:
    """The folder of a search, with its state. After each change of the state, call `save`.

    If the folder belongs to an interrupted search with the same identity, that search goes on.

    Args:
        path: the folder; created if it does not exist.
        identity: the settings, the calibration and the environment of the search.

    Raises:
        ConfigError: the folder belongs to a search with another identity, contains other files, or is damaged; or another
            process is searching in it.
        OptionError: the folder cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path = path.absolute()  # jobs on other machines use the same path
        file = path / STATE
        if os.path.lexists(file):
            self.state = _read(file)
            check_identity(path, "search", self.state.identity, identity)
            if not self.state.is_finished and is_alive(self.state.owner):
                raise ConfigError(f"Another process is searching in {path}. Wait for its end, or use another --output.")
            self.state.owner = owner()
        elif path.is_dir() and not all(is_draft(each, STATE) for each in path.iterdir()):
            raise ConfigError(f"{path} is not empty, but does not contain a search of zoo. Use another --output.")
        else:
            self.state = SearchState(identity=as_json(identity), owner=owner())
        self.save()

    @property
    def training(self) -> Path:
        """The folder that contains a folder with checkpoints for each trained candidate."""
        return self.path / "training"

    @property
    def model(self) -> Path:
        """The folder of the best model."""
        return self.path / "model"

    def save(self) -> None:
        """Write the state.

        Raises:
            OptionError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / STATE, asdict(self.state))
        except OSError as cause:
            raise OptionError(
                f"{self.path} cannot be created or written to: {cause.strerror or cause}. Use another --output."
            ) from cause

    def discard(self) -> None:
        """Remove the folder of a search that has no stages."""
        (self.path / STATE).unlink()
        with suppress(OSError):  # the folder contains other files
            self.path.rmdir()


def _read(file: Path) -> SearchState:
    try:
        return TypeAdapter(SearchState).validate_python(read_json(file))
    except (OSError, ValueError, ValidationError) as cause:
        raise ConfigError(
            f"{file} is damaged ({str(cause).splitlines()[0]}). Restore the file, or remove {file.parent} to search again."
        ) from cause
