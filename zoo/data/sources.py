"""From what a user names, a task, a folder or a data set of torchvision's, to the data."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from zoo.common.configuration import checked
from zoo.common.suggestions import did_you_mean
from zoo.data.data_config import DataEntry, locate_data
from zoo.data.folder import open_folder
from zoo.data.segmentation_data import SegmentationData
from zoo.data.tasks.tasks import TASKS, task
from zoo.data.torchvision_data import PUBLISHED, open_published
from zoo.errors import DataError

__all__ = ["open_data"]

FOLDER_OPTIONS = ("classes", "values", "colours", "ignored", "validation", "test")
PUBLISHED_OPTIONS = ("root", "download")


def open_data(
    source: SegmentationData | str | PathLike[str], *, earlier_scans: Mapping[str, Any] | None = None, **options: Any
) -> SegmentationData:
    """Return images with masks, by a name or a path; data that is open already is returned as it is.

    Args:
        source: one of

            - a built-in task: `"texture-mosaic"`, `"brain-lobes"`, `"hela"`, `"blue-marble"`;
            - a folder of `images/` and `masks/`, or of `train/`, `validation/` and `test/` with these two in each;
            - a data set of torchvision's: `"OxfordIIITPet"`, `"VOCSegmentation"`, `"Cityscapes"`, `"SBDataset"`.
        earlier_scans: for a folder, the scans of an earlier call (`SegmentationData.fingerprint.scans`). Files whose name,
            size and modification time are unchanged are not read again.
        options: for a folder, `classes` (names), `values` (the grey value of each class) or `colours` (the colour of each
            class), `ignored` (values of pixels that are left out), `validation` and `test` (their shares of an undivided
            folder). For torchvision's, `root` (its folder) and `download`.

    Raises:
        DataError: no such data, a task's name that is a folder's as well, or what is wrong with its files, each named.
        ConfigError: an option of another kind than a YAML file may give.
    """
    if isinstance(source, SegmentationData):
        _check_options(source.name, options, ())
        return source
    if not isinstance(source, str | PathLike):
        raise DataError(
            "Data are a name, a folder's path, or a zoo.SegmentationData(name=..., classes=..., train=..., validation=..., "
            f"test=...) of your own samples; found a {type(source).__name__}."
        )
    name = fspath(source)
    if name in TASKS:
        locate_data(name, Path())
        _check_options(name, options, ())
        return task(name)
    if name in PUBLISHED:
        _check_options(name, options, PUBLISHED_OPTIONS)
        return open_published(name, **_checked(name, options))
    if not Path(name).is_dir():
        names = [*TASKS, *PUBLISHED]
        raise DataError(
            f"{name} is no folder, no task and no data set.{did_you_mean(name, names)} Tasks: {', '.join(TASKS)}. "
            f"torchvision's: {', '.join(PUBLISHED)}. A folder has images/ and masks/, or train/, validation/ and test/ with "
            "these two in each."
        )
    _check_options(name, options, FOLDER_OPTIONS)
    return open_folder(Path(name), earlier_scans=earlier_scans, **_checked(name, options))


def _checked(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that a YAML file might have given, which has lists and text where Python has more."""
    content = {"source": name} | {option: _plain(value) for option, value in options.items()}
    return checked(DataEntry, content, f"{name} cannot be opened").options()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, PathLike):
        return fspath(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _check_options(name: str, given: dict[str, Any], allowed: tuple[str, ...]) -> None:
    for option in given:
        if option not in allowed:
            told = f"takes {', '.join(allowed)}" if allowed else "takes no options"
            raise DataError(f"{name} {told}; found {option}.{did_you_mean(option, allowed)}")
