"""The facts of a trial: which model, doing what, on how much; and the key it is stored under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from zoo.benchmark.config import BenchConfig
from zoo.options import Options
from zoo.pairing import Pairing

__all__ = ["GROUP_FACTS", "Mode", "Reference", "Subject", "Trial", "digest", "groups_of", "trials_of"]

Mode: TypeAlias = Literal["inference", "training"]

GROUP_FACTS = ("mode", "batch", "height", "width", "dtype")
"""The facts that trials share which are measured in one interleaved group and compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A model that is no pairing: `factory`, written `module:name`, called with `options`."""

    name: str
    factory: str
    options: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"reference": self.name, "factory": self.factory, "options": dict(self.options)}

    def __str__(self) -> str:
        return self.name


Subject: TypeAlias = Pairing | Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One row of the table before it is measured."""

    subject: Subject
    mode: Mode
    batch: int
    height: int
    width: int
    dtype: str
    input: str
    classes: int
    in_channels: int
    is_baseline: bool = False

    @property
    def group(self) -> tuple[object, ...]:
        """What trials must share to be measured in one interleaved group and compared."""
        return tuple(getattr(self, name) for name in GROUP_FACTS)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, all that defines the trial."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "subject"}
        return {"subject": self.subject.as_dict(), **plain}

    @property
    def key(self) -> str:
        """A short hash of all that defines the trial."""
        return digest(self.as_dict())


def digest(facts: Any) -> str:
    """Return a short hash of plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def trials_of(config: BenchConfig) -> list[Trial]:
    """Return every trial of a run, each once, the baseline first within each group."""
    subjects: list[Subject] = list(config.all_pairings())
    if config.baseline is not None:
        entry = config.baseline
        subjects.insert(0, Reference(name=entry.name, factory=entry.factory, options=Options(entry.options)))
    sides = [side if isinstance(side, tuple) else (side, side) for side in config.size]
    trials = (
        Trial(
            subject=subject,
            mode=mode,
            batch=batch,
            height=height,
            width=width,
            dtype=dtype,
            input=config.input,
            classes=config.classes,
            in_channels=config.in_channels,
            is_baseline=isinstance(subject, Reference),
        )
        for dtype in config.dtype
        for height, width in sides
        for batch in config.batch
        for mode in config.modes
        for subject in subjects
    )
    return list(dict.fromkeys(trials))


def groups_of(trials: list[Trial]) -> list[list[Trial]]:
    """Return the trials that are interleaved with one another, group by group, in the run's order."""
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.group, []).append(trial)
    return list(groups.values())
