"""Read and write the JSON files of a run. A file is written completely or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.common.atomic_write import replace_file
from zoo.common.regular_files import check_regular
from zoo.errors import ConfigError

__all__ = ["as_json", "check_identity", "read_json", "write_json"]


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, which must be a mapping (a JSON object).

    Raises:
        OSError: the file does not exist, is not a regular file, or cannot be read.
        ValueError: the content is not JSON, is nested too deeply, or is not a mapping.
    """
    check_regular(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as cause:
        raise ValueError("nested too deeply") from cause
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} instead of keys and values")
    return content


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write data as a JSON file, completely or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    replace_file(path, (json.dumps(facts, indent=2) + "\n").encode())


def as_json(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return data as it would be after `write_json` and then `read_json`: tuples become lists, and keys become text."""
    found: dict[str, Any] = json.loads(json.dumps(facts))
    return found


def check_identity(folder: Path, what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that a folder belongs to the run, or the like, that is to go on in it.

    Args:
        folder: the folder, which the user chose with --output.
        what: what the folder contains, such as "run".
        found: the identity that the folder records.
        wanted: the identity of what is to go on.

    Raises:
        ConfigError: the two differ.
    """
    if found != as_json(wanted):
        differing = ", ".join(sorted(_differing_keys(found, as_json(wanted))))
        raise ConfigError(
            f"{folder} contains a {what} with other settings, which differ in {differing}. Use another --output, or remove "
            "that folder."
        )


def _differing_keys(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each value that differs between two JSON objects, such as "settings.batch"."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from _differing_keys(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif one != other:
        yield path
