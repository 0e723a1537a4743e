"""Find the group of each image, such as its patient or scene, from the name of the image or from a CSV file."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from zoo.common.format_names import format_count, format_names
from zoo.common.regular_files import check_regular
from zoo.data.data_config import is_csv
from zoo.data.folders.layout import Pair, normalize_name
from zoo.errors import DataError

__all__ = ["find_groups"]


def find_groups(group: str, pairs: Sequence[Pair], folder: Path) -> tuple[dict[Path, str], list[str]]:
    """Return two values: a mapping from the path of each image to the name of its group; and notes for the user.

    Args:
        group: a regular expression or the path of a CSV file. The expression is searched in the name of an image without its
            suffix, and the group is the first capturing group, or else the whole match. The CSV file has a header. Its first
            column has the name of an image, with or without its suffix, or the path of the image in the folder. Its second
            column has the group.
        pairs: the images.
        folder: the folder of the images.

    Raises:
        DataError: an image has no group, or the CSV file cannot be read or puts an image into two groups.
    """
    groups, notes = _find_in_table(Path(group), pairs, folder) if is_csv(group) else (_find_in_names(group, pairs), [])
    if missing := [pair.image.relative_to(folder) for pair in pairs if not groups.get(pair.image)]:
        problem = f"{group} has no line" if is_csv(group) else f"the expression {group!r} has no match"
        count = format_count(len(missing), "image")
        raise DataError(f"group: {problem} for {count}: {format_names(missing)}. Every image needs a group")
    return groups, notes


def _find_in_names(expression: str, pairs: Sequence[Pair]) -> dict[Path, str]:
    pattern = re.compile(normalize_name(expression))
    groups = {}
    for pair in pairs:
        if match := pattern.search(normalize_name(pair.image.stem)):
            groups[pair.image] = match[1 if pattern.groups else 0] or ""
    return groups


def _find_in_table(path: Path, pairs: Sequence[Pair], folder: Path) -> tuple[dict[Path, str], list[str]]:
    images: dict[str, list[Path]] = defaultdict(list)
    for pair in pairs:
        image = pair.image
        for name in (image.relative_to(folder).as_posix(), image.name, image.stem):
            images[normalize_name(name)].append(image)
    groups: dict[Path, str] = {}
    unused = []
    (_, (header, _)), *lines = _read_table(path)
    if header in images:
        raise DataError(f"group: {path}: the first line must be a header; found the image {header}. Add a header")
    for number, (name, group) in lines:
        if name not in images:
            unused.append(name)
        for image in images.get(name, ()):
            if groups.setdefault(image, group) != group:
                raise DataError(
                    f"group: {path}: line {number} puts {name} into the group {group!r}, but an earlier line puts it into "
                    f"{groups[image]!r}. Keep one of the lines"
                )
    lines_unused = format_count(len(unused), "line")
    return groups, [f"{path} has {lines_unused} without an image in the folder: {format_names(unused)}"] if unused else []


def _read_table(path: Path) -> list[tuple[int, tuple[str, str]]]:
    """Return the number and the first two cells of each line that is not empty. The cells are in Unicode's composed form."""
    lines = []
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for cells in reader:
                if not any(cells):
                    continue
                name, group = (normalize_name(cell.strip()) for cell in (*cells, "", "")[:2])
                if not name or not group:
                    raise DataError(
                        f"group: {path}, line {reader.line_num}: an image and its group are expected, separated by a comma; "
                        f"found {','.join(cells)!r:.100}"
                    )
                lines.append((reader.line_num, (name, group)))
    except OSError as cause:
        raise DataError(
            f"group: {path} cannot be read: {cause.strerror or cause}. Set group to the path of a readable CSV file"
        ) from cause
    except (UnicodeDecodeError, csv.Error) as cause:
        raise DataError(f"group: {path} is not a CSV file in UTF-8: {cause}. Save it as one") from cause
    if not lines:
        raise DataError(f"group: {path} is empty. It must have a header, and a line for each image: its name and its group")
    return lines
