"""Divide images into splits for training, validation and test, and keep each group of images in one split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from zoo.common.format_names import format_count, format_names
from zoo.data.folders.layout import PARTS, UNDIVIDED, Pair, normalize_name
from zoo.errors import DataError

__all__ = ["divide", "note_on_groups", "note_on_names"]

PREFIX = r"^(.+?)(?:[ _.-]+(?:[A-Za-z]+[ _.-]*)?[0-9]+){{0,{count}}}$"
"""A regular expression whose first capturing group is the name of an image without up to `count` numbers at its end.

Examples of such numbers are `_003`, `-r03_c12` and ` slice 7`.
"""
MOST_NUMBERS = 4
"""The most numbers at the end of a name that may distinguish the slices or tiles of one image."""


def divide(
    pairs: Sequence[Pair], *, validation: float, test: float, groups: Mapping[Path, str] | None = None
) -> dict[str, list[Pair]]:
    """Return the pairs of each split: "train", "validation" and "test".

    In a folder that is not divided, a hash decides the split of each pair, so that the pair stays in its split when other
    images are added. It is the hash of the image's name or, with groups, of the name of its group. Each split has a range of
    hashes.

    Without groups, a split may be empty. With groups, a split that would be empty, although its share is above 0, receives the
    group whose hash is nearest to the split's range.

    Args:
        pairs: the pairs of a folder.
        validation: the share of pairs for validation if the folder is not divided.
        test: the share of pairs for the test if the folder is not divided.
        groups: a mapping from the path of each image to the name of its group.

    Raises:
        DataError: there are fewer groups than splits, or a group is in two splits of a divided folder.
    """
    parts: dict[str, list[Pair]] = {part: [] for part in PARTS}
    is_divided = any(pair.part != UNDIVIDED for pair in pairs)
    if groups is not None and is_divided:
        _check_parts(pairs, groups)
    names = {pair.image: groups[pair.image] if groups else normalize_name(pair.image.stem) for pair in pairs}
    part_of = {} if is_divided else _assign(set(names.values()), validation, test, can_be_empty=groups is None)
    for pair in pairs:
        parts[pair.part if is_divided else part_of[names[pair.image]]].append(pair)
    return parts


def note_on_groups(parts: Mapping[str, Sequence[Pair]], groups: Mapping[Path, str]) -> str:
    """Return a note with the number of groups and of images in each split."""
    texts = []
    for part, pairs in parts.items():
        names = {groups[pair.image] for pair in pairs}
        texts.append(f"{part} has {format_count(len(names), 'group')} ({format_count(len(pairs), 'image')})")
    return ", ".join(texts)


def note_on_names(parts: Mapping[str, Sequence[Pair]], num_parts: int) -> str | None:
    """Return a note if images whose names look like slices or tiles of one image are in several splits; None otherwise.

    Args:
        parts: the pairs of each split.
        num_parts: the number of splits that zoo divides the folder into, if the folder is not divided already.
    """
    part_of = {pair.image: part for part in PARTS for pair in parts[part]}
    images = {image: normalize_name(image.stem) for image in part_of}
    is_divided = any(pair.part != UNDIVIDED for pair in parts["train"])
    for count in range(MOST_NUMBERS, 0, -1):
        expression = PREFIX.format(count=count)
        prefixes: dict[str, list[Path]] = defaultdict(list)
        for image, name in images.items():
            match = re.search(expression, name)
            prefixes[match[1] if match else name].append(image)
        if len(prefixes) < 2 or len(images) < 2 * len(prefixes):
            continue
        for prefix, members in prefixes.items():
            first = members[0]
            other = next((image for image in members if part_of[image] != part_of[first]), None)
            if other is None or all(images[image] == prefix for image in members):
                continue
            text = (
                f"some names look like slices or tiles of one image. Of {prefix}, {first.name} is in the {part_of[first]} "
                f"split, and {other.name} is in the {part_of[other]} split. Scores may therefore be too high. "
            )
            if is_divided:
                return f"{text}Move such images to one split. With group: '{expression}', zoo checks that they are in one split"
            few = " and validation: 0 (there are fewer groups than splits)" if len(prefixes) < num_parts else ""
            return f"{text}To keep them in one split, set this option of the data: group: '{expression}'{few}"
    return None


def _assign(names: Collection[str], validation: float, test: float, *, can_be_empty: bool) -> dict[str, str]:
    """Return the split of each name, by the name's hash. Unless `can_be_empty`, no split with a share above 0 stays empty."""
    ends = {"test": (0.0, test), "validation": (test, test + validation), "train": (test + validation, 1.0)}
    positions = {name: _position(name) for name in names}

    def distance(name: str, part: str) -> float:
        start, end = ends[part]
        return max(start - positions[name], positions[name] - end, 0.0)

    part_of = {
        name: "test" if position < test else "validation" if position < test + validation else "train"
        for name, position in positions.items()
    }
    if can_be_empty:
        return part_of
    shares = {"test": test, "validation": validation, "train": 1 - validation - test}
    wanted = [part for part, share in shares.items() if share > 0]
    if len(names) < len(wanted):
        raise DataError(
            f"group: {format_count(len(names), 'group')} ({format_names(sorted(names))}) cannot be divided into {len(wanted)} "
            "splits. Set validation or test to 0, or divide the folder into train/, validation/ and test/"
        )
    counts = Counter(part_of.values())
    for part in wanted:
        if not counts[part]:
            movable = [name for name in names if counts[part_of[name]] > 1]
            nearest = min(movable, key=lambda name: (distance(name, part), name))
            counts[part_of[nearest]] -= 1
            counts[part] += 1
            part_of[nearest] = part
    return part_of


def _position(name: str) -> float:
    """Return a hash of a name as a number that is uniformly distributed in 0 to 1."""
    content = name.encode(errors="surrogateescape")  # a file name need not be valid Unicode
    return int.from_bytes(hashlib.sha256(content).digest()[:6], "big") / 2**48


def _check_parts(pairs: Sequence[Pair], groups: Mapping[Path, str]) -> None:
    """Raise a DataError if a group has images in several splits."""
    parts_of: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        parts_of[groups[pair.image]].add(pair.part)
    shared = [f"{group} ({', '.join(sorted(parts))})" for group, parts in sorted(parts_of.items()) if len(parts) > 1]
    if shared:
        raise DataError(
            f"group: the images of {format_count(len(shared), 'group')} are in several splits: {format_names(shared)}. Move "
            "all images of a group into one split"
        )
