"""The facts of a trial: which model, doing what, on how much; and the key it is stored under. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, get_args

from zoo.benchmark.config import TRAINING_RUNTIMES, BenchConfig, ExcludeRule, PairingEntry, ReferenceEntry
from zoo.common.options import Options, plain
from zoo.pairing.pairing import Pairing

__all__ = [
    "BLOCK_FACTS",
    "Mode",
    "Reference",
    "Role",
    "Subject",
    "Trial",
    "block_words",
    "blocks_of",
    "digest",
    "subject_key",
    "told_block",
    "told_dimensions",
    "trials_of",
]

Mode: TypeAlias = Literal["inference", "training"]
Role: TypeAlias = Literal["candidate", "baseline", "control"]
"""What a trial is for: to be compared, to be compared with, or to tell the noise (the baseline once more, the A/A check)."""

BLOCK_FACTS = ("mode", "batch", "height", "width", "dtype")
"""The facts that trials share which are compared with one another and with one baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A model that is no pairing: `factory`, written `module:name`, called with `options`."""

    name: str
    factory: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.factory, str):
            raise TypeError(f"a reference has a name and a factory; found {self.name!r:.80} and {self.factory!r:.80}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"reference": self.name, "factory": self.factory, "options": plain(self.options)}

    def __str__(self) -> str:
        return self.name


Subject: TypeAlias = Pairing | Reference


def subject_key(subject: Subject) -> str:
    """Return a short hash of what is trained: the same for all trials of one model."""
    return digest(subject.as_dict())


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One row of the table before it is measured.

    Attributes:
        name: what the configuration calls it; "" for the subject's own name.
    """

    subject: Subject
    mode: Mode
    batch: int
    height: int
    width: int
    dtype: str
    input: str
    classes: int
    in_channels: int
    memory_format: str = "contiguous"
    runtime: str = "eager"
    name: str = ""
    role: Role = "candidate"

    def __post_init__(self) -> None:
        for name in ("mode", "dtype", "input", "memory_format", "runtime", "name", "role"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"a trial's {name} is text; found {getattr(self, name)!r:.80}")
        for name, allowed in (("mode", get_args(Mode)), ("role", get_args(Role))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"a trial's {name} is one of {', '.join(allowed)}; found {getattr(self, name)!r:.80}")
        for name in ("batch", "height", "width", "classes", "in_channels"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"a trial's {name} is a whole number of at least 1; found {getattr(self, name)!r:.80}")

    @property
    def block(self) -> tuple[Any, ...]:
        """What trials must share to be compared with one another."""
        return tuple(getattr(self, name) for name in BLOCK_FACTS)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, all that defines the trial."""
        facts = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "subject"}
        return {"subject": self.subject.as_dict(), **facts}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Trial:
        """Return the trial that `as_dict` made plain."""
        subject = dict(facts["subject"])
        if "reference" in subject:
            name, options = subject.pop("reference"), Options(subject.pop("options"))
            return cls(**{**facts, "subject": Reference(name=name, options=options, **subject)})
        return cls(**{**facts, "subject": Pairing(**subject)})

    @property
    def key(self) -> str:
        """A short hash of all that defines the trial."""
        return digest(self.as_dict())

    def __str__(self) -> str:
        if self.name or isinstance(self.subject, Reference):
            return self.name or str(self.subject)
        return self.subject.describe(without=("classes", "in_channels"))  # which all trials of a run share


def digest(facts: Any) -> str:
    """Return a short hash of plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def block_words(block: Sequence[Any]) -> tuple[str, ...]:
    """Return what the trials of a block share, a word or two each."""
    mode, batch, height, width, dtype = block
    return (mode, f"batch {batch}", f"{height}x{width}", dtype)


def told_block(block: Sequence[Any]) -> str:
    """Return what the trials of a block share, in words."""
    return ", ".join(block_words(block))


def told_dimensions(trial: Trial) -> str:
    """Return what a trial does, on how much, in words; what is usual is left out."""
    told = [*block_words(trial.block)]
    told += [value for value, usual in ((trial.memory_format, "contiguous"), (trial.runtime, "eager")) if value != usual]
    return ", ".join(told)


def trials_of(config: BenchConfig) -> list[Trial]:
    """Return every trial of a run, each once: block by block, the baseline first in each and its control last.

    The baseline is the configured one in the first memory format and runtime, or, without one, the block's first trial.
    """
    trials: list[Trial] = []
    for block in blocks_of([trial for trial in _crossed(config) if not any(_hits(rule, trial) for rule in config.exclude)]):
        chosen = next((trial for trial in block if trial.role == "baseline"), block[0])
        baseline = replace(chosen, role="baseline")
        others = [replace(trial, role="candidate") for trial in block if trial is not chosen]
        trials += [baseline, *others, replace(baseline, role="control")]
    return trials


def blocks_of(trials: list[Trial]) -> list[list[Trial]]:
    """Return the trials that are compared with one another, block by block, in the run's order."""
    blocks: dict[Any, list[Trial]] = {}
    for trial in trials:
        blocks.setdefault(trial.block, []).append(trial)
    return list(blocks.values())


def _crossed(config: BenchConfig) -> list[Trial]:
    """Return every subject under every combination of the dimensions; all of the baseline's are marked as that."""
    shared: dict[str, Any] = {"classes": config.classes, "in_channels": config.in_channels}
    subjects: dict[tuple[Subject, str], Role] = {}
    if isinstance(config.baseline, ReferenceEntry):
        subjects[_reference(config.baseline), ""] = "baseline"
    elif isinstance(config.baseline, PairingEntry):
        subjects[config.baseline.pairing(**shared), config.baseline.name] = "baseline"
    for pairing, name in config.named_pairings():
        subjects.setdefault((pairing, name), "candidate")
    for entry in config.references:
        subjects.setdefault((_reference(entry), ""), "candidate")
    sides = [side if isinstance(side, tuple) else (side, side) for side in config.size]
    trials = (
        Trial(
            subject=subject,
            name=name,
            role=role,
            mode=mode,
            batch=batch,
            height=height,
            width=width,
            dtype=dtype,
            memory_format=memory_format,
            runtime=runtime,
            input=config.input,
            **shared,
        )
        for dtype in config.dtype
        for height, width in sides
        for batch in config.batch
        for mode in config.modes
        for runtime in config.runtime
        if mode == "inference" or runtime in TRAINING_RUNTIMES
        for memory_format in config.memory_format
        for (subject, name), role in subjects.items()
    )
    return list(dict.fromkeys(trials))


def _reference(entry: ReferenceEntry) -> Reference:
    return Reference(name=entry.name, factory=entry.factory, options=Options(entry.options))


def _hits(rule: ExcludeRule, trial: Trial) -> bool:
    pairing = trial.subject if isinstance(trial.subject, Pairing) else None
    names = {
        "encoder": pairing.encoder if pairing else None,
        "decoder": pairing.decoder if pairing else None,
        "name": str(trial),
    }
    facts = {entry.name: getattr(trial, entry.name) for entry in fields(trial)}
    return rule.hits({**facts, **names, "size": (trial.height, trial.width)})
