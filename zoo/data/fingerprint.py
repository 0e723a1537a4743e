"""Identify the content of what a model is trained on, so that no run goes on with other data."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.common.format_names import format_names
from zoo.common.json_files import read_json
from zoo.data.samples import Samples
from zoo.errors import DataError

__all__ = ["Fingerprint", "fingerprint_of_samples", "random_parts", "read_fingerprint"]

NUM_REPEATED = 256
"""Samples of a part that are read more than once; in a smaller part all."""
NUM_REPEATS = 64
"""How often that is done at least. Where a coin is tossed for each sample, all would be equal once in 10^19 times."""
REPEAT_SECONDS = 3.0
"""How long samples of a part are read again, once each was."""
MOST_NAMED = 3
"""Of what differs between two fingerprints, so many names are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Digests of everything that was read, and how it was read.

    Attributes:
        contents: by the name of a file or a sample, the digest of its content.
        reading: facts that decide what the contents mean, such as each file's part and the values of classes. Plain data.
        scans: by name, the facts read from files, with the size and the modification time of each; see `scan_folder`. Plain
            data; not compared.
        parts: the samples that it was made of, which `SegmentationData` fills in: it stands for no others. Not compared.
    """

    contents: Mapping[str, str]
    reading: Mapping[str, Any] = field(default_factory=dict)
    scans: Mapping[str, Any] = field(default_factory=dict, compare=False)
    parts: tuple[Samples, ...] = field(default=(), compare=False, repr=False)

    @property
    def digest(self) -> str:
        """A short hash of the contents and of how they were read."""
        return _digest_of_text(json.dumps([self.contents, self.reading], sort_keys=True))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"contents": dict(self.contents), "reading": dict(self.reading), "scans": dict(self.scans)}

    def differences(self, other: Fingerprint) -> str:
        """Return in words what the other has that this one does not have, and the reverse; "" if they are equal."""
        mine, theirs = self.contents, other.contents
        found = {
            "changed": [name for name in mine if name in theirs and mine[name] != theirs[name]],
            "new": [name for name in theirs if name not in mine],
            "gone": [name for name in mine if name not in theirs],
        }
        told = [f"{len(names)} {what} ({format_names(sorted(names), MOST_NAMED)})" for what, names in found.items() if names]
        keys = sorted(self.reading.keys() | other.reading.keys())
        told += [f"{key} differs" for key in keys if self.reading.get(key) != other.reading.get(key)]
        return ", ".join(told)


def read_fingerprint(path: Path) -> Fingerprint | None:
    """Return the fingerprint that a file holds as JSON; None if there is no such file.

    Raises:
        DataError: the file cannot be read as a fingerprint.
    """
    if not os.path.lexists(path):
        return None
    try:
        facts = {"scans": {}} | read_json(path)  # without scans, all files are read again
        fields = {name: facts[name] for name in ("contents", "reading", "scans")}
        if not all(isinstance(value, dict) for value in fields.values()):
            raise ValueError("contents, reading and scans must be mappings")
        if not all(isinstance(digest, str) for digest in fields["contents"].values()):
            raise ValueError("contents must be digests")
    except (OSError, ValueError, KeyError) as cause:
        raise DataError(
            f"{path} is damaged ({type(cause).__name__}: {cause}): it says which data the run was begun with. Restore it, "
            f"or remove {path.parent} to begin the run again."
        ) from cause
    return Fingerprint(**fields)


def fingerprint_of_samples(parts: Iterable[tuple[str, Samples]], kinds: Mapping[str, str] | None = None) -> Fingerprint:
    """Return the fingerprint of data that only its samples tell: every one is read, and some of each part more than once.

    A part that gives another sample when the same one is read again, such as one that draws its augmentation, is known by its
    length and its kind alone; `random_parts` names it.

    Args:
        parts: of the data, by name.
        kinds: by part, what the samples are, such as the name of their class.
    """
    contents: dict[str, str] = {}
    reading: dict[str, Any] = {}
    for name, samples in parts:
        digests = _repeatable_digests(samples)
        reading[f"the length of the {name} part"] = len(samples)
        reading[_is_fixed_key(name)] = digests is not None
        if digests is not None:
            contents |= {f"{name}/{index}": digest for index, digest in digests.items()}
        elif kinds:
            reading[f"the class of the {name} part"] = kinds[name]
    return Fingerprint(contents=contents, reading=reading)


def random_parts(fingerprint: Fingerprint) -> list[str]:
    """Return the parts whose samples are others each time they are read, so that their content is not known."""
    return [name for name in ("train", "validation", "test") if fingerprint.reading.get(_is_fixed_key(name)) is False]


def _is_fixed_key(part: str) -> str:
    return f"whether the {part} part is the same each time"


def _repeatable_digests(samples: Samples) -> dict[int, str] | None:
    """Return the digest of each sample; None if reading one again gives another."""
    count = len(samples)
    repeated = range(0, count, -(-count // NUM_REPEATED))
    digests = {index: _digest_of_sample(samples, index) for index in repeated}
    began = time.monotonic()
    for turn in range(-(-NUM_REPEATS // len(repeated))):
        if turn and time.monotonic() - began > REPEAT_SECONDS:
            break
        if any(_digest_of_sample(samples, index) != digests[index] for index in repeated):
            return None
    return {index: digests.get(index) or _digest_of_sample(samples, index) for index in range(count)}


def _digest_of_sample(samples: Samples, index: int) -> str:
    hashed = hashlib.sha256()
    for tensor in samples[index]:
        assert isinstance(tensor, Tensor)
        hashed.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        hashed.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()[:32]


def _digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
