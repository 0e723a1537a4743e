"""Open a built-in task by its name. Its data come from an installed package."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

from zoo.common.suggestions import did_you_mean
from zoo.data.segmentation_data import SegmentationData
from zoo.errors import DataError

__all__ = ["TASKS", "open_task"]

TASKS = {
    "texture-mosaic": "zoo.data.tasks.texture_mosaic:texture_mosaic",
    "brain-lobes": "zoo.data.tasks.brain_lobes:brain_lobes",
    "hela": "zoo.data.tasks.hela:hela",
    "blue-marble": "zoo.data.tasks.blue_marble:blue_marble",
}


@cache
def open_task(name: str) -> SegmentationData:
    """Return the data of a built-in task.

    Raises:
        DataError: there is no task of this name, or a package with its data is not installed.
    """
    if name not in TASKS:
        raise DataError(f"There is no task {name!r}.{did_you_mean(name, TASKS)} Tasks: {', '.join(TASKS)}.")
    module, _, function = TASKS[name].partition(":")
    build: Callable[[], SegmentationData] = getattr(import_module(module), function)
    return build()
