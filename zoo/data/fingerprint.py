"""Identify the content of training data, so that a run is never resumed with other data."""

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
"""The largest number of samples of a split that are read more than once."""
NUM_REPEATS = 64
"""The minimum number of repeated reads of a split, unless `REPEAT_SECONDS` end them earlier.

If each read of random samples differs with probability 0.5, all of them are equal with probability 5e-20.
"""
REPEAT_SECONDS = 3.0
"""The time limit in seconds for repeated reads of a split. The first repetition is always completed."""
MOST_NAMED = 3
"""The number of names that a message lists for each kind of difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Digests of the files or samples that were read, and the settings that they were read with.

    Attributes:
        contents: a mapping from the name of each file or sample to its digest.
        reading: the settings that the contents are read with, such as the mask value of each class, as JSON values.
        scans: what `scan_folder` read from each image and its mask, plus the size and modification time of each file, as JSON
            values. Comparisons of fingerprints ignore this attribute.
        parts: the training, validation and test samples that the fingerprint describes. `SegmentationData` sets this attribute.
            Comparisons of fingerprints ignore this attribute.
    """

    contents: Mapping[str, str]
    reading: Mapping[str, Any] = field(default_factory=dict)
    scans: Mapping[str, Any] = field(default_factory=dict, compare=False)
    parts: tuple[Samples, ...] = field(default=(), compare=False, repr=False)

    @property
    def digest(self) -> str:
        """A short hash of the contents and of how they are read."""
        text = json.dumps([self.contents, self.reading], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def as_dict(self) -> dict[str, Any]:
        """Return the fingerprint as a dictionary that can be written as JSON."""
        return {"contents": dict(self.contents), "reading": dict(self.reading), "scans": dict(self.scans)}

    def differences(self, other: Fingerprint) -> str:
        """Return text that lists how another fingerprint differs from this one; "" if the two are equal."""
        before, after = self.contents, other.contents
        changes = {
            "changed": [name for name in before if name in after and before[name] != after[name]],
            "new": [name for name in after if name not in before],
            "gone": [name for name in before if name not in after],
        }
        texts = [
            f"{len(names)} {change} ({format_names(sorted(names), most=MOST_NAMED)})"
            for change, names in changes.items()
            if names
        ]
        keys = sorted(self.reading.keys() | other.reading.keys())
        texts += [f"{key} differs" for key in keys if self.reading.get(key) != other.reading.get(key)]
        return ", ".join(texts)


def read_fingerprint(path: Path) -> Fingerprint | None:
    """Return the fingerprint that a JSON file contains; None if the file does not exist.

    Raises:
        DataError: the file is damaged.
    """
    if not os.path.lexists(path):
        return None
    try:
        facts = {"scans": {}} | read_json(path)  # scans may be missing: all files of the data are then read again
        fields = {name: facts[name] for name in ("contents", "reading", "scans")}
        if not all(isinstance(value, dict) for value in fields.values()):
            raise ValueError('"contents", "reading" and "scans" must be JSON objects')
        if not all(isinstance(digest, str) for digest in fields["contents"].values()):
            raise ValueError('the values of "contents" must be digests')
    except (OSError, ValueError, KeyError) as cause:
        raise DataError(
            f"{path} is damaged ({type(cause).__name__}: {cause}). The file records the data of a run. Restore the file, or "
            f"remove {path.parent} to start the run again."
        ) from cause
    return Fingerprint(**fields)


def fingerprint_of_samples(parts: Iterable[tuple[str, Samples]], kinds: Mapping[str, str] | None = None) -> Fingerprint:
    """Return the fingerprint of samples that do not come from a folder.

    Every sample is read once, and some samples of each split are read several times.

    A split whose samples differ when they are read again, as with random augmentation, is identified only by its length and
    its kind. `random_parts` returns the names of such splits.

    Args:
        parts: the name and the samples of each split.
        kinds: a mapping from the name of each split to text that identifies its data set, such as the name of a Python class.
    """
    contents: dict[str, str] = {}
    reading: dict[str, Any] = {}
    for name, samples in parts:
        digests = _repeatable_digests(samples)
        reading[f"the length of the {name} part"] = len(samples)
        reading[_repeatable_key(name)] = digests is not None
        if digests is not None:
            contents |= {f"{name}/{index}": digest for index, digest in digests.items()}
        elif kinds:
            reading[f"the class of the {name} part"] = kinds[name]
    return Fingerprint(contents=contents, reading=reading)


def random_parts(fingerprint: Fingerprint) -> list[str]:
    """Return the names of the splits whose samples differ each time they are read, so that their content cannot be compared."""
    return [name for name in ("train", "validation", "test") if fingerprint.reading.get(_repeatable_key(name)) is False]


def _repeatable_key(part: str) -> str:
    return f"whether the {part} part is the same each time"


def _repeatable_digests(samples: Samples) -> dict[int, str] | None:
    """Return the digest of each sample; None if a sample differs when it is read again."""
    count = len(samples)
    repeated = range(0, count, -(-count // NUM_REPEATED))
    digests = {index: _digest_of_sample(samples, index) for index in repeated}
    start = time.monotonic()
    for turn in range(-(-NUM_REPEATS // len(repeated))):
        if turn and time.monotonic() - start > REPEAT_SECONDS:
            break
        if any(_digest_of_sample(samples, index) != digests[index] for index in repeated):
            return None
    return {index: digests.get(index) or _digest_of_sample(samples, index) for index in range(count)}


def _digest_of_sample(samples: Samples, index: int) -> str:
    digest = hashlib.sha256()
    for tensor in samples[index]:
        assert isinstance(tensor, Tensor)
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).flatten().numpy().data)
    return digest.hexdigest()[:32]
