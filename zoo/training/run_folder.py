"""The folder of a training run, and the files that identify the run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.common.atomic_write import is_draft
from zoo.common.json_files import check_identity, read_json, write_json
from zoo.data.fingerprint import Fingerprint, read_fingerprint
from zoo.errors import ConfigError, OptionError

__all__ = ["claim_folder", "damage_error", "known_files", "read_run_file", "run_id"]

SETTINGS, DATA = "settings.json", "data.json"


def known_files(output: Path) -> Mapping[str, Any]:
    """Return what the run in this folder has stored about the files of its data; {} if there is no run.

    If the result is passed to `zoo.open_data` as `earlier_scans`, unchanged files are not read again.

    Raises:
        DataError: the file in which the run has stored this is damaged.
    """
    fingerprint = read_fingerprint(output / DATA)
    return fingerprint.scans if fingerprint else {}


def run_id(identity: Mapping[str, Any], data: Fingerprint) -> str:
    """Return a hash of the settings and the data of a run, which identifies its checkpoints."""
    return hashlib.sha256(json.dumps([identity, data.digest], sort_keys=True).encode()).hexdigest()[:32]


def claim_folder(output: Path, identity: Mapping[str, Any], data: Fingerprint) -> None:
    """Make a folder the folder of this run: create it, or check that it already belongs to this run.

    Args:
        output: the folder.
        identity: the settings, the pairing and the files of the run.
        data: the fingerprint of the data.

    Raises:
        ConfigError: the folder contains another run, or other files.
        OptionError: the folder cannot be written.
    """
    path = output / SETTINGS
    if os.path.lexists(path):
        check_identity(output, "run", read_run_file(path), identity)
        _check_same_data(output, data)
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        if any(each.name != DATA and not is_draft(each, DATA) and not is_draft(each, SETTINGS) for each in output.iterdir()):
            raise ConfigError(f"{output} is not empty, but does not contain a run of zoo. Use another --output.")
        write_json(output / DATA, data.as_dict())
        write_json(path, identity)  # written last, since the folder belongs to this run as soon as this file exists
    except OSError as cause:
        raise OptionError(
            f"output {output} cannot be created or written to: {cause.strerror or cause}. Use a folder that you can write to."
        ) from cause


def _check_same_data(output: Path, data: Fingerprint) -> None:
    """Raise a ConfigError if the run was started with other data. Otherwise, update what is stored about the data's files."""
    before = read_fingerprint(output / DATA)
    if before is None:
        raise ConfigError(f"{output} has no {DATA}, which records the data of its run. Use another --output.")
    if differing := before.differences(data):
        raise ConfigError(
            f"The data differs from that of the run in {output}: {differing}. To train on the current data, use another "
            "--output, or remove that folder."
        )
    if before.scans != data.scans:  # if files were copied, their modification times differ
        write_json(output / DATA, data.as_dict())


def read_run_file(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of a run.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        return read_json(path)
    except (OSError, ValueError) as cause:
        raise damage_error(path, f"{type(cause).__name__}: {cause}") from cause


def damage_error(path: Path, reason: str) -> ConfigError:
    """Return the error for a damaged file in a run's folder."""
    return ConfigError(f"{path} is damaged ({reason}). Restore the file, or remove {path.parent} to start the run again.")
