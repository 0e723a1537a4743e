"""Open a task, a folder or a data set of torchvision by its name or path."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from zoo.common.configuration import checked
from zoo.common.suggestions import did_you_mean
from zoo.data.data_config import DataEntry, locate_data
from zoo.data.folders.open_folder import open_folder
from zoo.data.segmentation_data import SegmentationData
from zoo.data.tasks.tasks import TASKS, open_task
from zoo.data.torchvision_data import PUBLISHED, open_published
from zoo.errors import DataError

__all__ = ["open_data"]

FOLDER_OPTIONS = ("classes", "values", "colors", "ignored", "validation", "test", "value_range", "mean", "std", "group")
PUBLISHED_OPTIONS = ("root", "download")


def open_data(
    source: SegmentationData | str | PathLike[str], *, earlier_scans: Mapping[str, Any] | None = None, **options: Any
) -> SegmentationData:
    """Open images with masks by name or path. A `SegmentationData` is returned unchanged.

    Args:
        source: one of the following:

            - a built-in task: `"texture-mosaic"`, `"brain-lobes"`, `"hela"`, `"blue-marble"`;
            - the path of a folder with `images/` and `masks/`, or with `train/`, `validation/` and `test/` that each have these
              two;
            - a data set of torchvision: `"OxfordIIITPet"`, `"VOCSegmentation"`, `"Cityscapes"`, `"SBDataset"`.
        earlier_scans: for a folder, the scans of an earlier call (`SegmentationData.fingerprint.scans`). Files whose name,
            size and modification time are unchanged are not read again.
        options: the options of a folder or of a data set of torchvision. For a folder:

            - `classes`: the names of the classes;
            - `values` or `colors`: the mask value or the color of each class;
            - `ignored`: the mask values of pixels to ignore;
            - `validation` and `test`: the shares of these splits if the folder is not divided;
            - `value_range`: the pixel values that become 0 and 1, as a pair `(low, high)` for all bands, as a list of one pair
              for each band, or as `"auto"`;
            - `mean` and `std`: one number for each band in the units of the files, which replace the normalization of the
              encoder's weights, or `"auto"` to measure them on the training split;
            - `group`: which images must be in the same split: a regular expression that is searched in the names of images
              without their suffixes, or the path of a CSV file of names and groups.

            For a data set of torchvision: `root` (its folder) and `download` (whether torchvision may download files).

    Raises:
        DataError: the data do not exist, `source` names a task and also a folder of images and masks, an option does not apply
            to these data, or the files of a folder have problems. The message lists all problems.
        ConfigError: an option has a wrong type or value.
    """
    if isinstance(source, SegmentationData):
        _check_options(source.name, options, ())
        return source
    if not isinstance(source, str | PathLike):
        raise DataError(
            "data must be a name, the path of a folder, or a zoo.SegmentationData(name=..., classes=..., train=..., "
            f"validation=..., test=...) with your own samples; found a {type(source).__name__}."
        )
    name = fspath(source)
    if name in TASKS:
        locate_data(name, Path())
        _check_options(name, options, ())
        return open_task(name)
    if name in PUBLISHED:
        _check_options(name, options, PUBLISHED_OPTIONS)
        return open_published(name, **_validate(name, options))
    if not Path(name).is_dir():
        names = [*TASKS, *PUBLISHED]
        raise DataError(
            f"{name} is not a folder, a task or a data set of torchvision.{did_you_mean(name, names)} Tasks: "
            f"{', '.join(TASKS)}. Data sets of torchvision: {', '.join(PUBLISHED)}. A folder has images/ and masks/, or "
            "train/, validation/ and test/ with these two in each."
        )
    _check_options(name, options, FOLDER_OPTIONS)
    return open_folder(Path(name), earlier_scans=earlier_scans, **_validate(name, options))


def _validate(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options from Python types to the types of a YAML file, and return them after validation."""
    content = {"source": name} | {option: _plain(value) for option, value in options.items()}
    return checked(DataEntry, content, f"{name} cannot be opened").options()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, PathLike):
        return fspath(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _check_options(name: str, options: dict[str, Any], allowed: tuple[str, ...]) -> None:
    for option in options:
        if option not in allowed:
            expected = ", ".join(allowed) or "no options"
            raise DataError(f"{name} accepts {expected}; found {option}.{did_you_mean(option, allowed)}")
