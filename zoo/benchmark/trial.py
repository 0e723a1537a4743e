"""Define a trial: a model with one mode, batch size, image size, dtype, memory format and runtime. Torch-free."""

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
    "digest",
    "format_block",
    "format_dimensions",
    "make_trials",
    "split_into_blocks",
    "subject_key",
    "unusual_settings",
]

Mode: TypeAlias = Literal["inference", "training"]
Role: TypeAlias = Literal["candidate", "baseline", "control"]
"""A candidate is compared with the baseline. The control is a copy of the baseline and is measured like a candidate, so the
true ratio of its time to the baseline's is 1. How far the measured ratio is from 1 shows the noise (the A/A check)."""

BLOCK_FACTS = ("mode", "batch", "height", "width", "dtype")
"""The fields that define a block. Trials with the same values in all of these fields have the same baseline, and are compared
with one another."""

USUAL_MEMORY_FORMAT, USUAL_RUNTIME = "contiguous", "eager"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A model that is not a pairing. To build it, `factory` (written `module:name`) is called with `options`."""

    name: str
    factory: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.factory, str):
            raise TypeError(f"a reference's name and factory must be text; found {self.name!r:.80} and {self.factory!r:.80}")

    def as_dict(self) -> dict[str, Any]:
        """Return the reference as a JSON-serializable dictionary."""
        return {"reference": self.name, "factory": self.factory, "options": plain(self.options)}

    def __str__(self) -> str:
        return self.name


Subject: TypeAlias = Pairing | Reference


def subject_key(subject: Subject) -> str:
    """Return a short hash of a pairing or reference. It is the same for all trials of this pairing or reference."""
    return digest(subject.as_dict())


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A model and the setting in which it is measured: one row of the table, unless the role is "control".

    Attributes:
        subject: the pairing or reference.
        name: the name in the configuration; "" if the configuration sets none; then the table shows the subject as text.
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
    memory_format: str = USUAL_MEMORY_FORMAT
    runtime: str = USUAL_RUNTIME
    name: str = ""
    role: Role = "candidate"

    def __post_init__(self) -> None:
        for name in ("mode", "dtype", "input", "memory_format", "runtime", "name", "role"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"a trial's {name} must be text; found {getattr(self, name)!r:.80}")
        for name, allowed in (("mode", get_args(Mode)), ("role", get_args(Role))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"a trial's {name} must be one of {', '.join(allowed)}; found {getattr(self, name)!r:.80}")
        for name in ("batch", "height", "width", "classes", "in_channels"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"a trial's {name} must be a whole number of at least 1; found {getattr(self, name)!r:.80}")

    @property
    def block(self) -> tuple[Any, ...]:
        """The values of `BLOCK_FACTS`, which trials must share to be compared with one another."""
        return tuple(getattr(self, name) for name in BLOCK_FACTS)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields of the trial as a JSON-serializable dictionary."""
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "subject"}
        return {"subject": self.subject.as_dict(), **facts}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Trial:
        """Return the trial that `as_dict` converted to a dictionary."""
        subject = dict(facts["subject"])
        if "reference" in subject:
            name, options = subject.pop("reference"), Options(subject.pop("options"))
            return cls(**{**facts, "subject": Reference(name=name, options=options, **subject)})
        return cls(**{**facts, "subject": Pairing(**subject)})

    @property
    def key(self) -> str:
        """A short hash of all fields of the trial."""
        return digest(self.as_dict())

    def __str__(self) -> str:
        if self.name or isinstance(self.subject, Reference):
            return self.name or str(self.subject)
        return self.subject.describe(without=("classes", "in_channels"))  # both are the same for all trials of a run


def digest(facts: Any) -> str:
    """Return a short hash of JSON-serializable data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def block_words(block: Sequence[Any]) -> tuple[str, ...]:
    """Return a block's mode, batch, size and dtype, such as ("inference", "batch 1", "256x256", "float32")."""
    mode, batch, height, width, dtype = block
    return (mode, f"batch {batch}", f"{height}x{width}", dtype)


def format_block(block: Sequence[Any]) -> str:
    """Return a block's mode, batch, size and dtype as one text, separated by commas."""
    return ", ".join(block_words(block))


def unusual_settings(memory_format: str, runtime: str) -> list[str]:
    """Return the memory format unless it is "contiguous", and the runtime unless it is "eager"."""
    settings = ((memory_format, USUAL_MEMORY_FORMAT), (runtime, USUAL_RUNTIME))
    return [setting for setting, usual in settings if setting != usual]


def format_dimensions(trial: Trial) -> str:
    """Return a trial's mode, batch, size and dtype, and its memory format and runtime if they are unusual, as one text."""
    return ", ".join((*block_words(trial.block), *unusual_settings(trial.memory_format, trial.runtime)))


def make_trials(config: BenchConfig) -> list[Trial]:
    """Return all trials of a run without duplicates, block by block.

    A block contains the trials with the same mode, batch, size and dtype. It begins with its baseline, and ends with the
    control, which is a copy of the baseline. If the configured baseline has trials in the block, the first of these is the
    block's baseline. Otherwise the block's first trial is the baseline.
    """
    included = [trial for trial in _cross(config) if not any(_is_excluded(trial, rule) for rule in config.exclude)]
    trials: list[Trial] = []
    for block in split_into_blocks(included):
        chosen = next((trial for trial in block if trial.role == "baseline"), block[0])
        baseline = replace(chosen, role="baseline")
        others = [replace(trial, role="candidate") for trial in block if trial is not chosen]
        trials += [baseline, *others, replace(baseline, role="control")]
    return trials


def split_into_blocks(trials: list[Trial]) -> list[list[Trial]]:
    """Return the trials grouped by block, in the order of the run. The trials of a block are compared with one another."""
    blocks: dict[Any, list[Trial]] = {}
    for trial in trials:
        blocks.setdefault(trial.block, []).append(trial)
    return list(blocks.values())


def _cross(config: BenchConfig) -> list[Trial]:
    """Return one trial for each model in each combination of settings.

    The mode training is combined only with the runtimes in `TRAINING_RUNTIMES`. All trials of the configured baseline have the
    role "baseline".
    """
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


def _is_excluded(trial: Trial, rule: ExcludeRule) -> bool:
    pairing = trial.subject if isinstance(trial.subject, Pairing) else None
    facts = {field.name: getattr(trial, field.name) for field in fields(trial)}
    ids = {"encoder": pairing.encoder if pairing else None, "decoder": pairing.decoder if pairing else None}
    return rule.matches({**facts, **ids, "name": str(trial), "size": (trial.height, trial.width)})
